// The dependencies of the pod verbs, handed in by daemon/pod-context.ts: kernel, desired state of the host,
// reservations, health, this node.
import type { PerFamily, Prefix } from '../../ipam/address.ts'
import type { Networks } from '../../ipam/networks.ts'
import type { FileReader } from '../../ipam/read-file.ts'
import type { Mode } from '../attachment/objects.ts'
import type { Log } from '../base/log.ts'
import type { Health } from '../health/health.ts'
import type { Kernel, Outcome } from '../state/kernel.ts'
import type { Node } from '../state/node.ts'
import type { KernelObject, Key, Link, State } from '../state/object.ts'
import type { Attachments } from './attachments.ts'

/** The part of the reconciler that pods use: reconcile/reconciler.ts. */
export type HostState = {
  want(owner: string, objects: readonly KernelObject[], alsoKeys?: Iterable<Key>): Promise<readonly Outcome[]>
  wantAll(
    entries: Iterable<readonly [owner: string, objects: readonly KernelObject[]]>,
    alsoKeys?: Iterable<Key>
  ): Promise<readonly Outcome[]>
  /** Replaces an owner's desired objects; they are not compared with the kernel now. */
  keep(owner: string, objects: readonly KernelObject[]): void
  /** Removes objects that otherwise stay for others that may depend on them; `evenDesired` ends what wants them. */
  discard(objects: readonly KernelObject[], evenDesired?: boolean): Promise<readonly Outcome[]>
  /** Sets these fields of an existing link although the kernel shows them so. */
  impose(link: Link): Promise<readonly Outcome[]>
  readonly observed: State
  /** What all owners want on the host. */
  readonly desired: State
}

/** What pods need to know of the node. */
export type PodNode = Pick<Node, 'identity' | 'ipv6' | 'subnet'>

/** Known once this node has a subnet. */
export type PodPlace = {
  readonly node: PodNode
  /** Bytes, as the backend leaves them to pods. */
  readonly mtu: number
  readonly clusterNetworks: PerFamily<Prefix>
}

/** Timed steps of a verb. `host`: links and rules of the host; `inside`: of the container. */
export type Step = 'total' | 'queue' | 'sandbox' | 'reserve' | 'host' | 'inside'

export type Verb = 'ADD' | 'CHECK' | 'DEL' | 'GC' | 'STATUS' | 'VERSION'

export type PodContext = {
  readonly kernel: Pick<Kernel, 'sandbox' | 'runs' | 'exists' | 'routeTo' | 'filtersVlans' | 'removeOtherChains'>
  readonly host: HostState
  readonly attachments: Attachments
  readonly networks: Networks
  /** For paths that callers choose. */
  readonly files: Pick<FileReader, 'text' | 'answers'>
  readonly health: Pick<Health, 'blockers' | 'raise' | 'clear'>
  /** `undefined` until this node has a subnet. */
  readonly place: () => PodPlace | undefined
  /** This process's network namespace as the kernel names it, `net:[4026531840]`. */
  readonly namespace: string
  /** Known before that: enough for attachments that do not use the node's subnet. */
  readonly self: Pick<Node, 'identity' | 'ipv6'>
  /**
   * The mode for pods whose configuration names none and whose bridge does not exist yet; `auto`: that of other pods.
   */
  readonly defaultMode: Mode | 'auto'
  /**
   * To be called after the forwarded subnets changed: resolves when other programs' chains that drop them have the
   * accepts.
   */
  readonly updateForeignAccepts: () => Promise<void>
  readonly log: Log
  /** Milliseconds of the monotonic clock. */
  readonly now: () => number
  readonly timings: (verb: Verb, step: Step, seconds: number) => void
}
