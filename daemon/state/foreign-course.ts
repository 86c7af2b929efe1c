// Finds between which rules of another program each accept of Weft belongs.
//
// An administrator's drop stays in force: no accept is before a drop that names pods' addresses or devices; before one
// that is narrowed otherwise (an interface, a source outside) only packets from pod network to pod network are
// accepted; wide accepts come directly before what drops everything.
import { formatPrefix, type Prefix } from '../../ipam/address.ts'
import type { ForeignChain, ForeignRule, ForeignTable, PodSide } from './foreign-chain.ts'
import type { AcceptMatch } from './foreign-match.ts'
import { DOCKER_USER, type PerMatch, type Place, perMatch, type Step, Walk } from './foreign-walk.ts'
import type { ForeignAccept } from './object.ts'

/** What a base chain does with packets of pods. */
export type Course = {
  /** The rules, or the policy, that drop what an accept of this kind is for. */
  readonly drops: PerMatch<readonly Place[]>
  /** Those of them that no accept may be before, since a rule that is to stay in force comes later. */
  readonly unanswered: PerMatch<readonly Place[]>
  /** Rules that drop all packets of pods by naming them. */
  readonly cutOff: readonly Place[]
  /** The places for an accept, the best one last; none if it is not needed. */
  readonly places: PerMatch<readonly Place[]>
  /** Whether an accept counts that is the rule at `place`; `undefined` if packets do not get there. */
  counts(match: AcceptMatch, place: Place): boolean | undefined
}

/** The course of packets from or to `prefix` through a base chain of `table`. */
export function courseIn(table: ForeignTable, base: string, prefix: Prefix, side: PodSide): Course {
  const walk = new Walk(table, prefix, side)
  walk.base(base)
  const { steps, cutOff } = walk
  const ranges = perMatch((match) => rangeOf(steps, match))
  const places = perMatch((match) => placesIn(walk, ranges[match], match))
  const isAnswered = (match: AcceptMatch): boolean => places[match].some(({ isLeft }) => !isLeft[match])
  return {
    drops: perMatch((match) => steps.filter((step) => isDrop(step, match)).map(placeOf)),
    unanswered: perMatch((match) => {
      const from = isAnswered(match) ? (ranges[match]?.from ?? 0) : steps.length
      return steps.filter((step, at) => isDrop(step, match) && at < from).map(placeOf)
    }),
    cutOff,
    places: perMatch((match) => places[match].map(placeOf)),
    counts(match, { chain, index }) {
      const at = steps.findIndex((step) => step.chain === chain && step.index === index)
      const step = steps[at]
      if (step === undefined) return undefined
      const range = ranges[match] ?? { from: lastBarrier(steps, match) + 1, to: steps.length }
      return at >= range.from && at <= range.to && (!step.isLeft[match] || !isAnswered(match))
    }
  }
}

const placeOf = ({ chain, index }: Place): Place => ({ chain, index })

/** A wide accept answers what drops everything, that for pairs what a narrowed drop may match. */
const isDrop = ({ effects }: Step, match: AcceptMatch): boolean =>
  effects[match] === (match === 'pair' ? 'reason' : 'stop')

type StepRange = { readonly from: number; readonly to: number }

const lastBarrier = (steps: readonly Step[], match: AcceptMatch): number =>
  steps.findLastIndex(({ effects }) => effects[match] === 'barrier' || effects[match] === 'weak')

/** The steps before which an accept may be; `undefined` if none is needed. */
function rangeOf(steps: readonly Step[], match: AcceptMatch): StepRange | undefined {
  const last = lastBarrier(steps, match)
  const to = steps.findIndex((step, at) => at > last && isDrop(step, match))
  return to < 0 ? undefined : { from: last + 1, to }
}

/**
 * The latest place is the best: directly before what drops; in DOCKER-USER if that has one; where packets may have
 * returned before only if there is no other.
 */
function placesIn(walk: Walk, range: StepRange | undefined, match: AcceptMatch): readonly Step[] {
  if (range === undefined) return []
  const places = walk.steps.slice(range.from, range.to + 1).filter(({ chain }) => walk.mayInsert(chain))
  const rankOf = ({ chain, isLeft }: Step): number =>
    (isLeft[match] ? 0 : 3) + (chain === DOCKER_USER ? 2 : walk.isBase(chain) ? 1 : 0)
  return places.toSorted((a, b) => rankOf(a) - rankOf(b))
}

const baseChains = ({ chains }: ForeignTable): readonly ForeignChain[] =>
  [...chains.values()].filter(({ policy }) => policy !== undefined)

/** Before which rule of its chain an accept belongs; `undefined` if it has no place there. */
export function placeFor(table: ForeignTable, accept: ForeignAccept, side: PodSide): number | undefined {
  for (const { name } of baseChains(table)) {
    const places = courseIn(table, name, accept.prefix, side).places[accept.match]
    const place = places.findLast(({ chain }) => chain === accept.chain)
    if (place !== undefined) return place.index
  }
  return undefined
}

/** Judges accepts that exist in a table: whether each has an effect and precedes nothing that is to stay in force. */
export function judgeAccepts(table: ForeignTable, side: PodSide): (at: Place, accept: OurAccept) => boolean {
  const courses = new Map<string, readonly Course[]>()
  return (at, { prefix, match }) => {
    const key = formatPrefix(prefix)
    const known = courses.get(key) ?? baseChains(table).map(({ name }) => courseIn(table, name, prefix, side))
    courses.set(key, known)
    const judged = known.map((course) => course.counts(match, at)).filter((counts) => counts !== undefined)
    return judged.length > 0 && judged.every(Boolean)
  }
}

/**
 * Whether the rule at `index` comes before every accept: Weft's, those of chains that have one, and anybody's of the
 * chain itself.
 */
export const precedesAccepts = (table: ForeignTable, { rules }: ForeignChain, index: number): boolean =>
  rules
    .slice(0, index)
    .every(
      ({ ours, branches }) =>
        ours === undefined &&
        branches.every(
          ({ verdict }) =>
            verdict.kind !== 'accept' &&
            !('chain' in verdict && table.chains.get(verdict.chain)?.rules.some((rule) => rule.ours !== undefined))
        )
    )

type OurAccept = NonNullable<ForeignRule['ours']>
