// Objects that are looked at again after a while: refused, held back in a fight, or links whose change may still echo. One timer for all of them.
import type { Key } from '../state/object.ts'

export class Requeue {
  readonly #now: () => number
  readonly #look: (keys: readonly Key[]) => void
  readonly #waiting = new Set<Key>()
  #next: { readonly timer: NodeJS.Timeout; readonly at: number } | undefined
  #ended = false

  /** `now` in milliseconds of the monotonic clock; `look` is called with all that waits when the first of it is due. */
  constructor(now: () => number, look: (keys: readonly Key[]) => void) {
    this.#now = now
    this.#look = look
  }

  /** Looks at this object after `pause` milliseconds at the latest. */
  add(key: Key, pause: number): void {
    if (this.#ended) return
    this.#waiting.add(key)
    const at = this.#now() + pause
    if (this.#next !== undefined && this.#next.at <= at) return
    clearTimeout(this.#next?.timer)
    const timer = setTimeout(() => {
      this.#next = undefined
      const waiting = [...this.#waiting]
      this.#waiting.clear()
      this.#look(waiting)
    }, pause)
    this.#next = { timer, at }
  }

  /** Nothing is looked at any more. */
  end(): void {
    clearTimeout(this.#next?.timer)
    this.#ended = true
  }
}
