// The answers of weftd to weftctl: plain JSON made from the daemon's values, and checked when read, since both may be
// of different versions.
import { formatIp, formatPrefix, type PerFamily, type Prefix, perFamily } from '../../ipam/address.ts'
import { WeftError } from '../base/error.ts'
import { shortened } from '../base/printable.ts'
import { type Condition, sentence } from '../health/conditions.ts'
import type { Change } from '../state/difference.ts'
import type { Node } from '../state/node.ts'
import { changeText } from '../state/text.ts'
import type { ProbeAnswer, WayAnswer } from './path-answers.ts'

export type StatusAnswer = {
  readonly version: string
  readonly ready: boolean
  /** ISO 8601. */
  readonly startedAt: string
  readonly node: string
  readonly store: string
  /** Empty until the configuration is known. */
  readonly backend: string
  /** One string per family, IPv4 first; empty until known. */
  readonly network: readonly string[]
  readonly subnet: readonly string[]
  readonly publicIp: readonly string[]
  readonly link?: { readonly name: string; readonly mtuBytes: number; readonly ips: readonly string[] }
  /** MTU of pods' interfaces; absent until known, and in answers of earlier versions. */
  readonly podMtuBytes?: number
  /** ISO 8601: when the lease ends unless weftd renews it; absent where it does not end or that is not known. */
  readonly leaseEnds?: string
  /** Leases of other nodes; until `subnet` is known, this node's own is among them. */
  readonly peers: number
  readonly pods: number
  readonly conditions: readonly {
    readonly code: string
    readonly severity: string
    readonly blocks: readonly string[]
    readonly since: string
    readonly sentence: string
  }[]
}

export type StatusFacts = {
  readonly version: string
  /** Milliseconds since 1970. */
  readonly startedAt: number
  readonly name: string
  readonly store: string
  readonly backend?: string
  readonly network?: PerFamily<{ readonly network: Prefix }>
  readonly node?: Node
  /** Bytes, for pods. */
  readonly mtu?: number
  /** Milliseconds since 1970. */
  readonly leaseEnds?: number
  /** Leases of other nodes. */
  readonly peers: number
  readonly pods: number
  readonly conditions: readonly Condition[]
}

/** The answer to `status`. */
export function statusAnswer(facts: StatusFacts): StatusAnswer {
  const { node } = facts
  const texts = <T>(values: PerFamily<T> | undefined, format: (value: T) => string) =>
    perFamily(values ?? {}).map(([, value]) => format(value))
  return {
    version: facts.version,
    ready: facts.conditions.every((condition) => !condition.blocks.includes('ready')),
    startedAt: new Date(facts.startedAt).toISOString(),
    node: facts.name,
    store: facts.store,
    backend: facts.backend ?? '',
    network: texts(facts.network, ({ network }) => formatPrefix(network)),
    subnet: texts(node?.subnet, formatPrefix),
    publicIp: texts(node?.publicIp, formatIp),
    ...(node && { link: { name: node.device, mtuBytes: node.deviceMtu, ips: texts(node.localIp, formatIp) } }),
    ...(facts.mtu !== undefined && { podMtuBytes: facts.mtu }),
    ...(facts.leaseEnds !== undefined && { leaseEnds: new Date(facts.leaseEnds).toISOString() }),
    peers: facts.peers,
    pods: facts.pods,
    conditions: facts.conditions.map((condition) => ({
      code: condition.code,
      severity: condition.severity,
      blocks: condition.blocks,
      since: new Date(condition.since).toISOString(),
      sentence: sentence(condition)
    }))
  }
}

export type DiffAnswer = {
  readonly changes: readonly {
    readonly do: 'put' | 'remove'
    /** A line with `+`, `-` or `~` and the object as `ip`, `bridge` and `nft` write it. */
    readonly text: string
    /** The lease or attachment it exists for. */
    readonly because?: string
  }[]
  /**
   * What weftd waits for before it decides what is stale: until then nothing in `changes` that is removed will be
   * removed. Absent once it has decided.
   */
  readonly waitsFor?: string
}

/** The answer to `diff`: what the reconciler would do now, or once it has what it waits for. */
export const diffAnswer = (changes: readonly Change[], waitsFor?: string): DiffAnswer => ({
  ...(waitsFor !== undefined && { waitsFor }),
  changes: changes.map((change) => ({
    do: change.do,
    text: changeText(change),
    ...(change.object.because !== undefined && { because: change.object.because })
  }))
})

/** How packets get to a lease's subnet. */
export type ReachAnswer = {
  /** `direct`: plain routes over a link that both nodes share; otherwise the encapsulation, such as `vxlan`. */
  readonly how: string
  readonly device: string
}

export type LeaseAnswer = {
  /** As in the store: `10.244.1.0-24`. */
  readonly key: string
  /** Empty if the store has no node names (etcd). */
  readonly node: string
  readonly isOwn: boolean
  readonly subnet: readonly string[]
  readonly publicIp: readonly string[]
  readonly backend: string
  /** One per family, IPv4 first; empty for this node's own lease and for skipped ones. */
  readonly reach: readonly ReachAnswer[]
  /** Whether all objects of the lease are in the kernel; for this node's own lease, the node's own objects. */
  readonly inKernel: boolean
  /**
   * What the kernel does with packets to the node's pods, if it does not use the lease's route although that is in the
   * kernel: a policy rule or another route takes them.
   */
  readonly shadowed?: string
  /** What probes found on the ways there; absent for this node's own lease and in answers of earlier versions. */
  readonly ways?: readonly ProbeAnswer[]
  /** ISO 8601: since when this weftd has known it. Absent if it could not be read. */
  readonly since?: string
  /** Why it is not used. */
  readonly skipped?: string
}

/** The answer to `nodes`. */
export type NodesAnswer = {
  readonly leases: readonly LeaseAnswer[]
  /** Whether the store has sent its first complete list; absent in answers of earlier versions. */
  readonly listed?: boolean
}

/** One desired object of this host's kernel, as `ip`, `bridge`, `nft` and `tc` print it. */
export type ObjectAnswer = {
  readonly text: string
  readonly state: 'there' | 'missing' | 'different'
  /** What the kernel has instead. */
  readonly instead?: string
}

export type HostPortAnswer = {
  readonly protocol: string
  readonly hostPort: number
  readonly containerPort: number
  /** The address of this host; absent: every one. */
  readonly hostIp?: string
}

export type PodAnswer = {
  /** `namespace/name`; empty where the runtime named no pod. */
  readonly pod: string
  readonly container: string
  /** Name inside the container. */
  readonly interface: string
  readonly network: string
  /** The link on the host. */
  readonly link: string
  readonly addresses: readonly string[]
  readonly hostPorts: readonly HostPortAnswer[]
  /** Bits per second, in the container's directions. */
  readonly bandwidth: { readonly ingress?: number; readonly egress?: number }
  /**
   * `gone`: the namespace is gone, and with it the link; the reservation stays until the runtime's DEL. `unknown`:
   * there is only a reservation, since another plugin made the interface, or the namespace went away without a DEL.
   */
  readonly netns: 'alive' | 'gone' | 'unknown'
}

/** The answer to `pods`. */
export type PodsAnswer = { readonly pods: readonly PodAnswer[] }

/** The outcome of one CNI call. */
export type CallAnswer = {
  readonly verb: string
  readonly plugin: string
  readonly network: string
  readonly container: string
  readonly interface: string
  /** ISO 8601. */
  readonly at: string
  readonly seconds: number
  /** The CNI error as the runtime got it. */
  readonly failure?: { readonly code: number; readonly sentence: string; readonly details: string }
  /** An ADD that failed where an earlier one had succeeded, with no DEL in between. */
  readonly isFurther?: true
}

/** The answer to `why pod NAME`. */
export type WhyPodAnswer = {
  readonly pod: string
  /** The last of each verb of each plugin, the latest first. */
  readonly calls: readonly CallAnswer[]
  readonly attachments: readonly (PodAnswer & { readonly objects: readonly ObjectAnswer[] })[]
  /** Conditions that block every pod on this node now. */
  readonly blocking: readonly string[]
  /** Pods of this node with similar names, when this one is unknown. */
  readonly near: readonly string[]
  /** ISO 8601: earlier calls are not remembered. */
  readonly rememberedSince: string
  /** From this host to the pod; absent without an address to send to, and in answers of earlier versions. */
  readonly way?: WayAnswer
}

/** The answer to `why node NAME`. */
export type WhyNodeAnswer = {
  readonly name: string
  readonly leases: readonly (LeaseAnswer & { readonly objects: readonly ObjectAnswer[] })[]
  /** Conditions of the store and of this node, since all leases depend on them. */
  readonly conditions: readonly string[]
  readonly near: readonly string[]
  /** From a pod of this node, or the node itself, to that node; absent for this node, and in earlier versions. */
  readonly way?: WayAnswer
}

/** One change that weftd made because the kernel differed, or that it saw somebody else make. */
export type ChangeAnswer = {
  /** ISO 8601. */
  readonly at: string
  /** `put back`, `removed`, …, and the object as `ip`, `bridge` and `nft` write it. */
  readonly text: string
  /** weftd did it by itself, because of what it measured: no other program changed anything. */
  readonly isOwn?: true
  /** The program that made the difference, with its process id, where the kernel says so. */
  readonly culprit?: string
  /** Why there is no culprit. */
  readonly unnamed?: string
  /** Milliseconds from the notification to the repair. */
  readonly tookMs?: number
}

/** The answer to `changes`: the latest first, at most 1,000. */
export type ChangesAnswer = { readonly changes: readonly ChangeAnswer[] }

/** The names of members that are not optional. */
type Needed<T> = { [K in keyof T]-?: Record<never, never> extends Pick<T, K> ? never : K }[keyof T] & string

/**
 * Checks an answer by the types of the members it must have. Errors: ANSWER_UNKNOWN when a member is missing or of
 * another type.
 */
export function readAnswer<T extends object>(answer: unknown, members: Readonly<Record<Needed<T>, string>>): T {
  const found = (typeof answer === 'object' && answer !== null ? answer : {}) as Record<string, unknown>
  for (const [member, kind] of Object.entries<string>(members)) {
    const value = found[member]
    if ((Array.isArray(value) ? 'array' : typeof value) !== kind) {
      throw new WeftError(
        'ANSWER_UNKNOWN',
        `weftd's answer cannot be read: ${member} is ${shortened(JSON.stringify(value) ?? 'missing')}, but must be of type ${kind}`,
        'use the weftctl of the same release as weftd; --json prints the answer as it is'
      )
    }
  }
  return found as T
}
