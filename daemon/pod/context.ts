// What the verbs stand on, handed in by main.ts: the kernel, the host's desired state, reservations, health, this node. And the errors they share.

import { type PerFamily, type Prefix, perFamily } from '../../ipam/address.ts'
import type { Networks } from '../../ipam/networks.ts'
import { RangeRuleError, type RangeSet, rangeSets } from '../../ipam/pool.ts'
import type { Attachment, Existing, InterfaceAddress, Macvlan, Veth } from '../../plugins/attachment.ts'
import type { Mode, Wiring } from '../attachment/objects.ts'
import { WeftError } from '../base/error.ts'
import type { Log } from '../base/log.ts'
import { nodeMasquerades } from '../firewall/masquerade.ts'
import type { ConditionCode } from '../health/conditions.ts'
import type { Health } from '../health/health.ts'
import type { Change } from '../state/difference.ts'
import type { Kernel, Outcome } from '../state/kernel.ts'
import type { Node } from '../state/node.ts'
import type { KernelObject, Key, Link, State } from '../state/object.ts'
import type { Attachments } from './attachments.ts'

/** The host's desired state as pods need it: reconcile/reconciler.ts. */
export type HostState = {
  want(owner: string, objects: readonly KernelObject[], alsoKeys?: Iterable<Key>): Promise<readonly Outcome[]>
  wantAll(
    entries: Iterable<readonly [owner: string, objects: readonly KernelObject[]]>,
    alsoKeys?: Iterable<Key>
  ): Promise<readonly Outcome[]>
  /** Replaces what an owner wants by what it has already; nothing is compared now. */
  keep(owner: string, objects: readonly KernelObject[]): void
  /** Removes what others might stand on, and so would stay when nobody wants it any more. */
  discard(objects: readonly KernelObject[]): Promise<readonly Outcome[]>
  readonly observed: State
}

/** What pods need to know of the node. */
export type PodNode = Pick<Node, 'identity' | 'ipv6' | 'subnet'>

/** What is known once this node holds a subnet. */
export type PodPlace = {
  readonly node: PodNode
  /** Bytes, as the backend leaves them to pods. */
  readonly mtu: number
  readonly clusterNetworks: PerFamily<Prefix>
}

/** Parts of a verb whose time is measured. `host` holds the links and rules of the host, `inside` those of the container. */
export type Step = 'total' | 'queue' | 'sandbox' | 'reserve' | 'host' | 'inside'

export type Verb = 'ADD' | 'CHECK' | 'DEL' | 'GC' | 'STATUS' | 'VERSION'

export type PodContext = {
  readonly kernel: Pick<Kernel, 'sandbox' | 'runs' | 'routeTo'>
  readonly host: HostState
  readonly attachments: Attachments
  readonly networks: Networks
  readonly health: Pick<Health, 'blockers' | 'raise' | 'clear'>
  /** `undefined` until this node holds a subnet. */
  readonly place: () => PodPlace | undefined
  /** What is known before: enough for attachments that are not of the node's subnet. */
  readonly self: Pick<Node, 'identity' | 'ipv6'>
  /** The mode for pods whose configuration leaves it open and whose bridge does not exist yet. */
  readonly defaultMode: Mode
  /** What else the host needs for this pod: masquerade, host ports. */
  readonly rules: (attachment: Attachment, addresses: readonly InterfaceAddress[]) => readonly KernelObject[]
  /** After a subnet was added to those whose packets pass: resolves when other programs' chains have been answered for it. */
  readonly answerForeignDrops: () => Promise<void>
  readonly log: Log
  /** Milliseconds of the monotonic clock. */
  readonly now: () => number
  readonly timings: (verb: Verb, step: Step, seconds: number) => void
}

export type VethAttachment = Attachment & { readonly interface: Veth }
export type MacvlanAttachment = Attachment & { readonly interface: Macvlan }
export type ChainedAttachment = Attachment & { readonly interface: Existing }

/** Runs one step of a verb and tells how long it took. */
export async function timed<T>(context: PodContext, verb: Verb, step: Step, work: () => Promise<T>): Promise<T> {
  const begun = context.now()
  try {
    return await work()
  } finally {
    context.timings(verb, step, (context.now() - begun) / 1000)
  }
}

/** Conditions that only an attempt can end: an ADD is tried although they hold. */
const endedByTrying: readonly ConditionCode[] = ['POOL_EXHAUSTED', 'STATE_UNWRITABLE']

/** Where we are, unless a condition forbids an ADD; its words are the error's. */
export function placeForAdd(context: PodContext, attachment: Attachment): PodPlace {
  if (attachment.isStandalone) return placeOf(context, attachment)
  const blocking = context.health.blockers('add').find(({ code }) => !endedByTrying.includes(code))
  if (blocking !== undefined) throw new WeftError(blocking.code, `${blocking.title}: ${blocking.detail}`, blocking.cure)
  return placeOf(context, attachment)
}

/** Bytes of a link for which nobody says a size: the kernel's own choice for Ethernet. */
const DEFAULT_MTU = 1500

export function placeOf(context: PodContext, attachment: Attachment): PodPlace {
  if (attachment.isStandalone) return { node: { ...context.self, subnet: {} }, mtu: DEFAULT_MTU, clusterNetworks: {} }
  const place = context.place()
  if (place === undefined)
    throw new WeftError('STARTING', 'weftd is starting: this node holds no subnet yet', 'wait; the runtime tries again')
  return place
}

/** The range sets of an attachment: its own, else this node's subnets. Errors: RANGE_INVALID. */
export function poolsOf(attachment: Attachment, { node }: PodPlace): readonly RangeSet[] {
  const { ipam } = attachment
  if (ipam === undefined) return []
  try {
    return rangeSets(ipam.ranges.length > 0 ? ipam.ranges : perFamily(node.subnet).map(([, subnet]) => [{ subnet }]))
  } catch (error) {
    if (!(error instanceof RangeRuleError)) throw error
    throw invalidRange(attachment.network, error)
  }
}

const invalidRange = (network: string, cause: RangeRuleError): WeftError =>
  new WeftError(
    'RANGE_INVALID',
    `the address ranges of network ${network} are not valid: ${cause.message}`,
    'correct ipam.ranges in the CNI configuration',
    { cause }
  )

/** Mode and MTU for this attachment. An existing bridge of that name keeps bridge mode, so that a node taken over from flannel goes on as it was. */
export function wiringOf(context: PodContext, attachment: VethAttachment, place: PodPlace): Wiring {
  const link = context.host.observed.get(`link ${attachment.interface.bridge}` as Key)
  const bridge = link?.kind === 'link' && link.form?.type === 'bridge' ? link : undefined
  const mode = attachment.interface.mode ?? (bridge === undefined ? context.defaultMode : 'bridge')
  return {
    mode,
    mtu: attachment.interface.mtu ?? place.mtu,
    clusterNetworks: perFamily(place.clusterNetworks).map(([, network]) => network),
    ...(nodeMasquerades(context.host.observed) ? { masquerades: true as const } : {}),
    ...(mode === 'bridge' && bridge !== undefined ? { bridge } : {})
  }
}

export const linkNamed = (state: State, name: string): Link | undefined => {
  const link = state.get(`link ${name}` as Key)
  return link?.kind === 'link' ? link : undefined
}

export const put = (object: KernelObject): Change => ({ do: 'put', object })

/** The first error among outcomes, with the change it is about. */
export const failureIn = (
  outcomes: readonly Outcome[]
): { readonly change: Change; readonly error: Error } | undefined => {
  for (const { change, error } of outcomes) if (error !== undefined) return { change, error }
  return undefined
}
