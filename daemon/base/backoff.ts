// Pauses between attempts that grow and are never the same on two nodes, so that a store that returns is not met by all of them at once.
import { setTimeout as sleep } from 'node:timers/promises'

/** The first pause and the longest, in milliseconds. */
const FIRST = 100
const LONGEST = 15_000

type Wait = (milliseconds: number, signal: AbortSignal) => Promise<void>

export class Backoff {
  readonly #wait: Wait
  #next = FIRST

  constructor(wait: Wait = (milliseconds, signal) => sleep(milliseconds, undefined, { signal })) {
    this.#wait = wait
  }

  /** Back to the first pause: the last attempt succeeded. */
  reset(): void {
    this.#next = FIRST
  }

  /** Waits between half the present pause and all of it, and doubles it. Rejects when the signal aborts. */
  async pause(signal: AbortSignal): Promise<void> {
    const pause = this.#next * (0.5 + Math.random() / 2)
    this.#next = Math.min(this.#next * 2, LONGEST)
    await this.#wait(pause, signal)
  }
}
