// Compares objects again later: refused ones, repairs that have to wait, links whose notifications may still arrive.
// One timer for all of them.
import type { Key } from '../state/object.ts'

/**
 * Calls `work` after so many milliseconds, and after what had arrived on sockets by then: in a turn of the event loop
 * timers come before sockets, and notifications are processed one turn later (kernel/observer.ts). Otherwise a wait for
 * notifications would end before them when the event loop was busy for as long.
 */
export const afterArrivals = (milliseconds: number, work: () => void): NodeJS.Timeout =>
  setTimeout(() => setImmediate(() => setImmediate(work)), milliseconds)

export class Requeue {
  readonly #now: () => number
  readonly #compare: (keys: readonly Key[]) => void
  readonly #waiting = new Set<Key>()
  #next: { readonly timer: NodeJS.Timeout; readonly at: number } | undefined
  #ended = false

  /** `now` in milliseconds of the monotonic clock; `compare` is called with all waiting keys when the first is due. */
  constructor(now: () => number, compare: (keys: readonly Key[]) => void) {
    this.#now = now
    this.#compare = compare
  }

  /** Compares this object after `pause` milliseconds at the latest. */
  add(key: Key, pause: number): void {
    if (this.#ended) return
    this.#waiting.add(key)
    const at = this.#now() + pause
    if (this.#next !== undefined && this.#next.at <= at) return
    clearTimeout(this.#next?.timer)
    const timer = afterArrivals(pause, () => {
      this.#next = undefined
      if (this.#ended) return
      const waiting = [...this.#waiting]
      this.#waiting.clear()
      this.#compare(waiting)
    })
    this.#next = { timer, at }
  }

  /** Nothing is compared any more. */
  end(): void {
    clearTimeout(this.#next?.timer)
    this.#ended = true
  }
}
