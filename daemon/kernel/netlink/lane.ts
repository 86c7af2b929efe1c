// Decides whether a request may run on the event loop, and limits how many threads of libuv's pool wait for the kernel.
import { SerialQueue } from '../../base/serial-queue.ts'

/**
 * After a call on the event loop that took longer than `after`, all calls go to the thread pool for `for`.
 * Milliseconds.
 */
const SLOW = { after: 50, for: 5_000 } as const

/**
 * For calls of which most are so short that a thread costs more than it saves: an ADD's two requests take 2 ms in the
 * kernel, and the way to a thread and back another one on a busy machine (pod ADD 8.9 ms with the pool, 7.4 without;
 * load 30, two processors). A call becomes long when another program holds the rtnl lock; after one such call nothing
 * waits on the event loop for a while.
 */
export class Lane extends SerialQueue {
  readonly #now: () => number
  #poolUntil = Number.NEGATIVE_INFINITY

  /** `now` in milliseconds of the monotonic clock. */
  constructor(now: () => number = () => performance.now()) {
    super()
    this.#now = now
  }

  /** Calls `here` at once when the lane is idle and the last calls were short, otherwise `inPool` in its turn. */
  async takeShort<T>(here: () => T, inPool: () => Promise<T>): Promise<T> {
    const start = this.#now()
    if (!this.idle || start < this.#poolUntil) return this.take(inPool)
    try {
      return here()
    } finally {
      const end = this.#now()
      if (end - start > SLOW.after) this.#poolUntil = end + SLOW.for
    }
  }
}

/**
 * The lanes of one kernel. Calls may wait for the rtnl lock, and libuv's pool has few threads. The lock lets one in at
 * a time anyway, so all ordinary requests share one lane and occupy one thread at most. A deletion holds the lock for a
 * millisecond but blocks its caller for 25 (kernel/delete-links.ts), so several run side by side. daemon/main.ts makes
 * the pool large enough for all lanes and for what else needs a thread.
 */
export class Lanes {
  readonly ordinary = new Lane()
  readonly removals: readonly [SerialQueue, ...SerialQueue[]] = [
    new SerialQueue(),
    new SerialQueue(),
    new SerialQueue(),
    new SerialQueue()
  ]
}
