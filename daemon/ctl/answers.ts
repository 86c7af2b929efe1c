// What weftd answers to weftctl: plain JSON made from the daemon's own values, and read back with care, since both may be of different versions.
import { formatIp, formatPrefix, type PerFamily, type Prefix, perFamily } from '../../ipam/address.ts'
import { WeftError } from '../error.ts'
import { type Condition, sentence } from '../health.ts'
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
