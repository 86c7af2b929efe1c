// One thing after another: a queue of asynchronous work, for sockets and for the thread pool's sake.

/** Runs work in the order in which it was given, one at a time. */
export class Turns {
  #last: Promise<unknown> = Promise.resolve()
  #waiting = 0

  get idle(): boolean {
    return this.#waiting === 0
  }

  async take<T>(work: () => Promise<T>): Promise<T> {
    const before = this.#last
    this.#waiting++
    const result = before.then(work)
    this.#last = result.catch(() => undefined)
    try {
      return await result
    } finally {
      this.#waiting--
    }
  }
}

/**
 * Calls into the kernel may wait for the rtnl lock, and libuv's pool has few threads for everything. The lock lets one in at a time anyway, so all ordinary
 * requests share one lane and hold one thread. A deletion holds the lock for a millisecond and its caller for 25 (see remove-links.ts), so several may wait
 * side by side. main.ts makes the pool large enough for all of them and what else needs a thread.
 */
export const ordinaryLane = new Turns()
export const removalLanes: readonly Turns[] = Array.from({ length: 4 }, () => new Turns())
