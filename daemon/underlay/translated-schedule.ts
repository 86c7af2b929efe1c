// When each peer is asked next by a translated packet: once a day, each at a time of its own. Times are in tenths of a
// second.
import { phase } from './probe-schedule.ts'

export const DAY = 864_000
/** Peers that become whole together are asked so far apart, on average: 5,000 of them within six hours. */
const APART = 40
/** After the first attempt of which nothing follows; twice as long after each further one. */
const AGAIN = 50

/**
 * When each peer is asked next, and whether its last answer was whole: a number each, as nearly all of thousands of peers
 * need no more.
 */
export class NextQuestions {
  readonly #next = new Map<string, number>()

  set(key: string, dueAt: number, isWhole: boolean): void {
    this.#next.set(key, 2 * dueAt + Number(isWhole))
  }

  dueAt(key: string): number | undefined {
    const next = this.#next.get(key)
    return next === undefined ? undefined : next >> 1
  }

  /** When it was asked last, if its answer was whole. */
  wholeAt(key: string): number | undefined {
    const next = this.#next.get(key) ?? 0
    return (next & 1) === 1 ? (next >> 1) - DAY : undefined
  }

  /** Forgets peers whose leases are gone. */
  keep(leases: ReadonlyMap<string, unknown>): void {
    for (const key of this.#next.keys()) if (!leases.has(key)) this.#next.delete(key)
  }
}

/** When a peer is asked first that became whole now. `pair`: another number for each peer. */
export const firstDue = (peers: number, pair: number, now: number): number =>
  now + phase(pair, Math.min(DAY, peers * APART))

/** When it is asked again. `undecided`: attempts in a row, this one included, of which nothing follows yet. */
export const nextDue = (askedAt: number, undecided: number): number =>
  askedAt + (undecided === 0 ? DAY : Math.min(DAY, AGAIN * 2 ** (undecided - 1)))
