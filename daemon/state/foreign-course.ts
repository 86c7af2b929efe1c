// Finds between which rules of another program each accept of Weft belongs.
//
// An administrator's drop stays in force: no accept is before a drop that names pods' addresses or devices; before one
// that is narrowed otherwise (an interface, a source outside) only packets from pod network to pod network are
// accepted; wide accepts come directly before what drops everything. That is so for the whole way of a packet, as if
// what drops everything were not there: where a called chain drops everything and rules behind its call are to see the
// packets, those RETURN before the drop and are accepted behind these rules.
import { formatPrefix, type Prefix } from '../../ipam/address.ts'
import type { ForeignChain, ForeignTable, OurAccept, PodSide } from './foreign-chain.ts'
import { ACCEPT_MATCHES, type AcceptMatch } from './foreign-match.ts'
import { DOCKER_USER, type PerMatch, type Place, perMatch, type Step, Walk } from './foreign-walk.ts'
import type { ForeignAccept } from './object.ts'

/** An accept, or a RETURN, that is needed. */
export type Insert = Pick<ForeignAccept, 'match' | 'verdict'> & {
  /** The places for it, the best one last. */
  readonly places: readonly Place[]
}

/** What a base chain does with packets of pods. */
export type Course = {
  /** The rules, or the policy, that drop what an accept of this kind is for. */
  readonly drops: PerMatch<readonly Place[]>
  /** The first of them all that packets meet. */
  readonly firstDrop: Place | undefined
  /** Those of them that no accept may be before, since a rule that is to stay in force comes later. */
  readonly unanswered: PerMatch<readonly Place[]>
  /** Rules that drop all packets of pods by naming them. */
  readonly cutOff: readonly Place[]
  readonly inserts: readonly Insert[]
  /** Whether an accept counts that is the rule at `place`; `undefined` if packets do not get there. */
  counts(accept: OurAccept, place: Place): boolean | undefined
}

/** The course of packets from or to `prefix` through a base chain of `table`. */
export function courseIn(table: ForeignTable, base: string, prefix: Prefix, side: PodSide): Course {
  const walk = new Walk(table, prefix, side)
  walk.base(base)
  const { steps, cutOff } = walk
  const plans = plansOf(walk)
  const placesOf = (some: readonly number[]): readonly Place[] => some.flatMap((at) => steps[at] ?? []).map(placeOf)
  return {
    drops: perMatch((match) => placesOf(plans[match].drops)),
    firstDrop: placesOf(ACCEPT_MATCHES.flatMap((match) => plans[match].drops).sort((a, b) => a - b))[0],
    unanswered: perMatch((match) => placesOf(plans[match].drops.filter((at) => !plans[match].isAnswered(at)))),
    cutOff,
    inserts: ACCEPT_MATCHES.flatMap((match) => insertsOf(walk, plans[match], match)),
    counts({ match, verdict }, { chain, index }) {
      const at = steps.findIndex((step) => step.chain === chain && step.index === index)
      const step = steps[at]
      if (step === undefined) return undefined
      const { returns, range, isMet } = plans[match]
      if (verdict === 'return') return returns.some((candidates) => candidates.includes(at))
      const { from, to } = range ?? { from: lastBarrier(steps, match) + 1, to: steps.length }
      return at >= from && at <= to && (!step.isLeft[match] || !isMet)
    }
  }
}

const placeOf = ({ chain, index }: Place): Place => ({ chain, index })

type StepRange = { readonly from: number; readonly to: number }

/** What is to be done about one kind of packets; numbers are those of steps. */
type Plan = {
  readonly drops: readonly number[]
  readonly isAnswered: (drop: number) => boolean
  /** For each drop before the last barrier the places for a RETURN, the best one first. */
  readonly returns: readonly (readonly number[])[]
  /** Before which steps an accept may be; `undefined` if none is needed, or none would be met. */
  readonly range: StepRange | undefined
  /** Whether all packets meet the accept in one of the places. */
  readonly isMet: boolean
}

const lastBarrier = (steps: readonly Step[], match: AcceptMatch): number => steps.findLastIndex(isBarrier(match))

const isBarrier =
  (match: AcceptMatch) =>
  ({ effects }: Step): boolean =>
    effects[match] === 'closed' || effects[match] === 'barrier' || effects[match] === 'weak'

const isStop =
  (match: AcceptMatch) =>
  ({ effects }: Step): boolean =>
    effects[match] === 'closed' || effects[match] === 'stop'

const indexesOf = (steps: readonly Step[], is: (step: Step) => boolean): readonly number[] =>
  steps.flatMap((step, at) => (is(step) ? [at] : []))

function plansOf(walk: Walk): PerMatch<Plan> {
  const [source, destination] = [widePlan(walk, 'source'), widePlan(walk, 'destination')]
  return { source, destination, pair: pairPlan(walk, source, destination) }
}

/** A wide accept answers what drops everything. */
function widePlan(walk: Walk, match: 'source' | 'destination'): Plan {
  const { steps } = walk
  const drops = indexesOf(steps, isStop(match))
  const last = lastBarrier(steps, match)
  const early = drops.filter((at) => at <= last)
  const found = early.map((at) => returnsFor(walk, at, match))
  const isOpen = found.every((candidates) => candidates.length > 0)
  const to = drops.find((at) => at > last && (isOpen || steps[at]?.isBehind[match] === false))
  const range = to === undefined ? undefined : { from: last + 1, to }
  const isMet = isMetIn(walk, range, match)
  return {
    ...{ drops, range, isMet, returns: isOpen ? found : [] },
    isAnswered: (at) => (isOpen && at <= last) || (isMet && range !== undefined && at >= range.from)
  }
}

/**
 * An accept for pairs answers what a narrowed drop may match, and what drops everything if both wide ones don't. Where
 * a RETURN is, pairs take it, too, so that their accept comes later.
 */
function pairPlan(walk: Walk, source: Plan, destination: Plan): Plan {
  const { steps } = walk
  const isOpened = (at: number): boolean => source.isAnswered(at) || destination.isAnswered(at)
  const stops = indexesOf(steps, isStop('pair')).filter((at) => !isOpened(at))
  const drops = [...stops, ...indexesOf(steps, ({ effects }) => effects.pair === 'reason')].sort((a, b) => a - b)
  const last = lastBarrier(steps, 'pair')
  const isClosed = stops.some((at) => at <= last)
  const to = drops.find((at) => at > last && !(isClosed && steps[at]?.isBehind.pair))
  const returned = [...source.returns, ...destination.returns].flat()
  const from = returned.reduce((most, at) => (to !== undefined && at < to ? Math.max(most, at + 1) : most), last + 1)
  const range = to === undefined ? undefined : { from, to }
  const isMet = isMetIn(walk, range, 'pair')
  return {
    ...{ drops, range, isMet, returns: [] },
    isAnswered: (at) => isMet && range !== undefined && at >= range.from
  }
}

/**
 * The steps before which a RETURN lets packets past `drop` and skips no barrier: directly before the drop, or before
 * the call of its chain.
 */
function returnsFor({ steps, mayInsert, isBase }: Walk, drop: number, match: AcceptMatch): readonly number[] {
  const found: number[] = []
  for (let at = drop; at >= 0; at--) {
    const step = steps[at]
    if (step === undefined || isBarrier(match)(step)) break
    const { end } = step.scope
    if (end === undefined || end <= drop || isBase(step.chain) || !mayInsert(step.chain)) continue
    if (!steps.slice(drop, end).some(isBarrier(match))) found.push(at)
  }
  return found
}

const placesIn = ({ steps, mayInsert }: Walk, range: StepRange | undefined): readonly Step[] =>
  range === undefined ? [] : steps.slice(range.from, range.to + 1).filter(({ chain }) => mayInsert(chain))

const isMetIn = (walk: Walk, range: StepRange | undefined, match: AcceptMatch): boolean =>
  placesIn(walk, range).some(({ isLeft }) => !isLeft[match])

/**
 * The latest place is the best: directly before what drops; in DOCKER-USER if that has one; where packets may have
 * returned before only if there is no other.
 */
function insertsOf(walk: Walk, { range, returns }: Plan, match: AcceptMatch): readonly Insert[] {
  const rankOf = ({ chain, isLeft }: Step): number =>
    (isLeft[match] ? 0 : 3) + (chain === DOCKER_USER ? 2 : walk.isBase(chain) ? 1 : 0)
  const places = placesIn(walk, range).toSorted((a, b) => rankOf(a) - rankOf(b))
  const best = returns.flatMap(([at]) => (at === undefined ? [] : (walk.steps[at] ?? [])))
  const firstOfChain = best.filter((step, at) => best.findIndex(({ chain }) => chain === step.chain) === at)
  return [
    ...firstOfChain.map((step) => ({ match, verdict: 'return' as const, places: [placeOf(step)] })),
    ...(places.length === 0 ? [] : [{ match, places: places.map(placeOf) }])
  ]
}

const baseChains = ({ chains }: ForeignTable): readonly ForeignChain[] =>
  [...chains.values()].filter(({ policy }) => policy !== undefined)

/** Before which rule of its chain an accept belongs; `undefined` if it has no place there. */
export function placeFor(table: ForeignTable, accept: ForeignAccept, side: PodSide): number | undefined {
  for (const { name } of baseChains(table)) {
    for (const { match, verdict, places } of courseIn(table, name, accept.prefix, side).inserts) {
      const place = places.findLast(({ chain }) => chain === accept.chain)
      if (match === accept.match && verdict === accept.verdict && place !== undefined) return place.index
    }
  }
  return undefined
}

/** Judges accepts that exist in a table: whether each has an effect and precedes nothing that is to stay in force. */
export function judgeAccepts(table: ForeignTable, side: PodSide): (at: Place, accept: OurAccept) => boolean {
  const courses = new Map<string, readonly Course[]>()
  return (at, accept) => {
    const { prefix } = accept
    const key = formatPrefix(prefix)
    const known = courses.get(key) ?? baseChains(table).map(({ name }) => courseIn(table, name, prefix, side))
    courses.set(key, known)
    const judged = known.map((course) => course.counts(accept, at)).filter((counts) => counts !== undefined)
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
