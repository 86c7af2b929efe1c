// The last repairs, in memory: what other programs changed, who, and how long until it was as desired again; and what
// weftd itself changed of a device because of what it measured.
import { shortened } from '../base/printable.ts'
import type { DriftReport } from './drift.ts'

/** An hour of a program that undoes one route every four seconds; about 300 KB. */
const MOST = 1_000
/** Characters of an object's text: an nftables rule may be long. */
const LONGEST = 300

export type RecentChange = {
  /** Milliseconds since 1970. */
  readonly at: number
  /** What weftd did, and the object. */
  readonly text: string
  /** weftd did it by itself. */
  readonly isOwn?: true
  /** `NAME (PID)` of the program that made it necessary. */
  readonly culprit: string | undefined
  /** Why there is no `culprit`. */
  readonly unnamed: string | undefined
  readonly tookMs?: number
}

export class RecentChanges {
  readonly #now: () => number
  /** A ring: `#next` is the place of the oldest once it is full. */
  readonly #ring: RecentChange[] = []
  #next = 0

  constructor(now: () => number) {
    this.#now = now
  }

  add({ what, object, by, unnamed, afterMs }: DriftReport): void {
    this.#put({
      at: this.#now(),
      text: `${done(what)} ${shortened(object, LONGEST)}`,
      culprit: by && `${by.name} (${by.pid})`,
      unnamed,
      tookMs: Math.round(afterMs * 10) / 10
    })
  }

  /** What weftd changed of a device by itself, because of what it measured. */
  note(text: string): void {
    this.#put({ at: this.#now(), text, isOwn: true, culprit: undefined, unnamed: undefined })
  }

  #put(change: RecentChange): void {
    this.#ring[this.#next] = change
    this.#next = (this.#next + 1) % MOST
  }

  /** The latest first. */
  list(): readonly RecentChange[] {
    return [...this.#ring.slice(this.#next), ...this.#ring.slice(0, this.#next)].toReversed()
  }
}

/** What weftd did about `removed`, `added`, `changed (mac)`. */
function done(what: string): string {
  if (what === 'removed') return 'put back'
  if (what === 'added') return 'removed'
  return what.replace('changed', 'changed back')
}
