// One thing after another: a queue of asynchronous work, for sockets and for the thread pool's sake.

/** Runs work in the order in which it was given, one at a time. */
export class SerialQueue {
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

/** After a call on the event loop that took longer than the first, all go to the thread pool for as long as the second. Milliseconds. */
const WARY = { after: 50, for: 5_000 } as const

/**
 * Turns for calls of which most are so short that a thread costs more than it saves: an ADD's two requests take 2 ms in the kernel, and the way there and back
 * over a busy machine's scheduler another one (pod ADD 8.9 ms with the pool, 7.4 without; load 30, two processors). What makes them long is somebody
 * else who holds the rtnl lock: that is noticed, and for a while nothing waits on the event loop.
 */
export class Lane extends SerialQueue {
  readonly #now: () => number
  #waryUntil = Number.NEGATIVE_INFINITY

  /** `now` in milliseconds of the monotonic clock. */
  constructor(now: () => number = () => performance.now()) {
    super()
    this.#now = now
  }

  /** Does `here` at once when nothing else has its turn and all is quick, else `inPool` in its turn. */
  async takeShort<T>(here: () => T, inPool: () => Promise<T>): Promise<T> {
    const begun = this.#now()
    if (!this.idle || begun < this.#waryUntil) return this.take(inPool)
    try {
      return here()
    } finally {
      const ended = this.#now()
      if (ended - begun > WARY.after) this.#waryUntil = ended + WARY.for
    }
  }
}

/**
 * Calls into the kernel may wait for the rtnl lock, and libuv's pool has few threads for everything. The lock lets one in at a time anyway, so all ordinary
 * requests share one lane and hold one thread at most. A deletion holds the lock for a millisecond and its caller for 25 (see kernel/delete-links.ts), so several may wait
 * side by side. main.ts makes the pool large enough for all of them and what else needs a thread.
 */
export const ordinaryLane = new Lane()
export const removalLanes: readonly SerialQueue[] = Array.from({ length: 4 }, () => new SerialQueue())
