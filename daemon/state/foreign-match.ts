// Judges one drop of another program's chain: whether it may match packets of pods, and which accepts of Weft may be
// before it.
import { contains, type Prefix, samePrefix } from '../../ipam/address.ts'
import type { ForeignBranch, ForeignCondition, PodSide } from './foreign-chain.ts'
import type { ForeignAccept } from './object.ts'

export type AcceptMatch = ForeignAccept['match']
export const ACCEPT_MATCHES = ['pair', 'source', 'destination'] as const satisfies readonly AcceptMatch[]

/** The conditions on the way to a verdict, as bits: chains are judged once for each combination. */
export type Bits = number

/** A condition names addresses of pods. */
const NAMES_ADDRESSES = 1
/** A condition names devices behind which pods are. */
const NAMES_DEVICES = 1024
const DELIBERATE = 2
const BROKEN = 4
/** Not every packet. */
const NARROWED = 8
/** Not even the first packet of a connection is certain to be matched: an accept or a RETURN does not end the walk. */
export const SOMETIMES = 16
const ENTERS = 32
const LEAVES = 64
/** The packets that accepts of this kind are for never match. */
export const MISSES: Readonly<Record<AcceptMatch, Bits>> = { pair: 128, source: 256, destination: 512 }

/** Bits of all conditions together; `undefined` if they can't apply to packets of the prefix's family. */
export function bitsOf(
  { conditions }: Pick<ForeignBranch, 'conditions'>,
  prefix: Prefix,
  side: PodSide
): Bits | undefined {
  let bits = 0
  for (const condition of conditions) {
    if (condition.kind === 'family') {
      if (condition.family !== prefix.ip.family) return undefined
    } else bits |= SOMETIMES | bitsOfOne(condition, prefix, side)
  }
  return bits
}

function bitsOfOne(condition: ForeignCondition, prefix: Prefix, side: PodSide): Bits {
  switch (condition.kind) {
    case 'address':
      return addressBits(condition, prefix)
    case 'interface':
      return interfaceBits(condition, side)
    case 'deliberate':
      return DELIBERATE
    case 'broken':
      return BROKEN
    case 'other':
      return NARROWED
    case 'new':
    case 'family':
      return 0
  }
}

type Address = Extract<ForeignCondition, { readonly kind: 'address' }>

/**
 * A prefix inside the pod network, or the network itself, names pods; one around it (10.0.0.0/8) does not. `0.0.0.0/0`
 * is no condition.
 */
function addressBits({ prefixes, negated, side }: Address, pods: Prefix): Bits {
  if (prefixes.some((prefix) => contains(pods, prefix))) return NAMES_ADDRESSES | NARROWED
  const isAround = prefixes.some((prefix) => contains(prefix, pods))
  if (isAround === negated) return NARROWED | MISSES.pair | (side === undefined ? 0 : MISSES[side])
  return !negated && prefixes.some(({ length }) => length === 0) ? 0 : NARROWED
}

type Interface = Extract<ForeignCondition, { readonly kind: 'interface' }>

/** A packet to a pod leaves by a device that a route of the pod network names; by which it enters is not as certain. */
function interfaceBits({ names, negated, side }: Interface, { devices, carriers }: PodSide): Bits {
  const isOneOf = (some: readonly string[]): boolean =>
    names.some((name) => some.some((device) => mayBeSame(name, device)))
  if (isOneOf(devices)) return NAMES_DEVICES | NARROWED | (negated ? 0 : side === 'in' ? ENTERS : LEAVES)
  if (negated) return NARROWED
  if (names.includes('*')) return 0
  return side === 'out' && carriers !== undefined && !isOneOf(carriers) ? NARROWED | MISSES.pair : NARROWED
}

/** Whether two names, each of which may end with `*`, can be those of one device. */
export function mayBeSame(a: string, b: string): boolean {
  const [anyA, anyB] = [a.endsWith('*'), b.endsWith('*')]
  const [startA, startB] = [anyA ? a.slice(0, -1) : a, anyB ? b.slice(0, -1) : b]
  if (startA === '') return false
  if (anyA && startB.startsWith(startA)) return true
  if (anyB && startA.startsWith(startB)) return true
  return !anyA && !anyB && a === b
}

/**
 * What a rule asks of one kind of accept: not to be before it (`weak`: unless the same rule also drops everything;
 * `closed`: although it also drops everything); to be before it; to be before it if no barrier follows.
 */
export type Effect = 'closed' | 'barrier' | 'stop' | 'weak' | 'reason' | undefined

const rank: readonly Effect[] = ['closed', 'barrier', 'stop', 'weak', 'reason', undefined]

/** What two verdicts of one rule ask together. */
export function together(a: Effect, b: Effect): Effect {
  const [first, second] = rank.indexOf(a) < rank.indexOf(b) ? [a, b] : [b, a]
  return first === 'barrier' && second === 'stop' ? 'closed' : first
}

/**
 * Whose chain drops. Docker's own rules name its bridges without meaning pods, which may be behind one: pods of other
 * nodes are to reach those, but what is kept apart between two containers of this host stays so. `docker isolation`: at
 * most one of the bridges that are kept apart has pods behind it.
 */
export type Owner = 'anybody' | 'docker' | 'docker isolation'

export function effectOfDrop(bits: Bits, match: AcceptMatch, owner: Owner): Effect {
  const isBetweenTheirs = owner === 'docker' && (bits & ENTERS) !== 0 && (bits & LEAVES) !== 0
  const namesDevices = owner === 'anybody' ? (bits & NAMES_DEVICES) !== 0 : isBetweenTheirs
  if (namesDevices || bits & NAMES_ADDRESSES) return 'barrier'
  if (bits & MISSES[match]) return undefined
  // Without pods behind Docker's bridges, what it isolates are no packets of pods.
  if (owner === 'docker isolation' && (bits & NAMES_DEVICES) === 0) return undefined
  if (bits & DELIBERATE) return 'barrier'
  if (bits & BROKEN) return match === 'pair' ? undefined : 'weak'
  if (bits & NARROWED) return match === 'pair' ? 'reason' : 'barrier'
  return 'stop'
}

/** Whether all packets that such an accept is for match: the rule names no more than addresses around the pods'. */
export const coversAll = (conditions: readonly ForeignCondition[], match: AcceptMatch, pods: Prefix): boolean =>
  conditions.every(
    (condition) =>
      condition.kind === 'family' ||
      (condition.kind === 'address' &&
        !condition.negated &&
        (match === 'pair' ? condition.side !== undefined : condition.side === match) &&
        condition.prefixes.some((prefix) => contains(prefix, pods)))
  )

/** Whether a rule by itself drops all packets of pods by naming them: nothing may be done, and no pod is reached. */
export function cutsOff({ conditions, verdict }: ForeignBranch, prefix: Prefix, side: PodSide): boolean {
  const [only, ...rest] = conditions.filter(({ kind }) => kind !== 'family')
  if (verdict.kind !== 'drop' || only === undefined || rest.length > 0) return false
  if (only.kind === 'address') return !only.negated && only.prefixes.some((one) => samePrefix(one, prefix))
  return only.kind === 'interface' && !only.negated && (interfaceBits(only, side) & NAMES_DEVICES) !== 0
}
