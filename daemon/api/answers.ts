// What weftd answers to weftctl: plain JSON made from the daemon's own values, and read back with care, since both may be of different versions.
import { formatIp, formatPrefix, type PerFamily, type Prefix, perFamily } from '../../ipam/address.ts'
import { WeftError } from '../base/error.ts'
import { type Condition, sentence } from '../health/conditions.ts'
import type { Change } from '../state/difference.ts'
import type { Node } from '../state/node.ts'
import { changeText } from '../state/text.ts'

export type StatusAnswer = {
  readonly version: string
  readonly ready: boolean
  /** ISO 8601. */
  readonly startedAt: string
  readonly node: string
  readonly store: string
  /** Empty until the configuration is known. */
  readonly backend: string
  /** One text per family, IPv4 first; empty until they are known. */
  readonly network: readonly string[]
  readonly subnet: readonly string[]
  readonly publicIp: readonly string[]
  readonly link?: { readonly name: string; readonly mtuBytes: number; readonly ips: readonly string[] }
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
    /** The lease or attachment that asks for it. */
    readonly because?: string
  }[]
}

/** The answer to `diff`: what the reconciler would do now. */
export const diffAnswer = (changes: readonly Change[]): DiffAnswer => ({
  changes: changes.map((change) => ({
    do: change.do,
    text: changeText(change),
    ...(change.object.because !== undefined && { because: change.object.because })
  }))
})

/** How packets get to a lease's subnet. */
export type ReachAnswer = {
  /** `direct`: plain routes on a link that both nodes are on; else what encapsulates, as `vxlan`. */
  readonly how: string
  readonly device: string
}

export type LeaseAnswer = {
  /** As in the store: `10.244.1.0-24`. */
  readonly key: string
  /** Empty where the store knows no names of nodes (etcd). */
  readonly node: string
  readonly isOwn: boolean
  readonly subnet: readonly string[]
  readonly publicIp: readonly string[]
  readonly backend: string
  /** One for each family, IPv4 first; empty for our own and for what is skipped. */
  readonly reach: readonly ReachAnswer[]
  /** Whether the kernel holds all that the lease asks for; of our own, what this node asks for itself. */
  readonly inKernel: boolean
  /** ISO 8601: since when this weftd has known it. Absent of what could not be read. */
  readonly since?: string
  /** Why nothing is made of it. */
  readonly skipped?: string
}

/** The answer to `nodes`. */
export type NodesAnswer = { readonly leases: readonly LeaseAnswer[] }

/** One object that is wanted in this host's kernel, as `ip`, `bridge`, `nft` and `tc` write it. */
export type ObjectAnswer = {
  readonly text: string
  readonly state: 'there' | 'missing' | 'different'
  /** What the kernel has in its place. */
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
  /** Bits a second, as the container sees the directions. */
  readonly bandwidth: { readonly ingress?: number; readonly egress?: number }
  /**
   * `gone`: the namespace, and with it the link; the reservation stays until the runtime's DEL. `unknown`: there is only a reservation, since another
   * plugin made the interface, or its namespace went without a DEL.
   */
  readonly netns: 'alive' | 'gone' | 'unknown'
}

/** The answer to `pods`. */
export type PodsAnswer = { readonly pods: readonly PodAnswer[] }

/** What became of one CNI call. */
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
  /** An ADD that failed where an earlier one had succeeded, which no DEL had taken back. */
  readonly isFurther?: true
}

/** The answer to `why pod NAME`. */
export type WhyPodAnswer = {
  readonly pod: string
  /** The last of each verb of each plugin, the latest first. */
  readonly calls: readonly CallAnswer[]
  readonly attachments: readonly (PodAnswer & { readonly objects: readonly ObjectAnswer[] })[]
  /** What keeps this node from setting up any pod now. */
  readonly blocking: readonly string[]
  /** Pods of this node with a name like it, when nothing is known of this one. */
  readonly near: readonly string[]
  /** ISO 8601: what was before is not remembered. */
  readonly rememberedSince: string
}

/** The answer to `why node NAME`. */
export type WhyNodeAnswer = {
  readonly name: string
  readonly leases: readonly (LeaseAnswer & { readonly objects: readonly ObjectAnswer[] })[]
  /** What is wrong with the store or with this node, since all leases depend on it. */
  readonly conditions: readonly string[]
  readonly near: readonly string[]
}

/** The names of members that are not optional. */
type Needed<T> = { [K in keyof T]-?: Record<never, never> extends Pick<T, K> ? never : K }[keyof T] & string

/** Reads an answer by the types of the members it must have. Errors: ANSWER_UNKNOWN when a member is missing or of another kind. */
export function readAnswer<T extends object>(answer: unknown, members: Readonly<Record<Needed<T>, string>>): T {
  const found = (typeof answer === 'object' && answer !== null ? answer : {}) as Record<string, unknown>
  for (const [member, kind] of Object.entries<string>(members)) {
    const value = found[member]
    if ((Array.isArray(value) ? 'array' : typeof value) !== kind) {
      throw new WeftError(
        'ANSWER_UNKNOWN',
        `weftd's answer is not understood: ${member} is ${JSON.stringify(value) ?? 'missing'}, but must be of type ${kind}`,
        'use the weftctl of the same release as weftd; --json prints the answer as it is'
      )
    }
  }
  return found as T
}
