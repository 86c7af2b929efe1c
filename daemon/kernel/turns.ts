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
 * Calls into the kernel may wait for the rtnl lock, and libuv's pool has four threads for everything. The lock lets one in at a time anyway,
 * so all sockets share one lane and hold one thread; deletions, which hold the lock for 20 ms, have the other one.
 */
export const ordinaryLane = new Turns()
export const removalLane = new Turns()
