// Exponential backoff with jitter, and the retry loop that uses it.
import { setTimeout as sleep } from 'node:timers/promises'

/** Milliseconds of the first pause and of the longest. */
export type BackoffBounds = { readonly firstMs: number; readonly longestMs: number }

const USUAL: BackoffBounds = { firstMs: 100, longestMs: 15_000 }

type Wait = (milliseconds: number, signal: AbortSignal) => Promise<void>

const timer: Wait = (milliseconds, signal) => sleep(milliseconds, undefined, { signal })

export class Backoff {
  readonly #bounds: BackoffBounds
  readonly #wait: Wait
  readonly #least: number
  #next: number

  /** A pause lasts `least` times its length or up to half its length more, so that nodes do not retry in step. */
  constructor(bounds = USUAL, wait = timer, least = 0.5) {
    this.#bounds = bounds
    this.#wait = wait
    this.#least = least
    this.#next = bounds.firstMs
  }

  /**
   * Pauses that do not grow, of this length to half as much again: for what an administrator corrects, not for a server
   * under load.
   */
  static constant(milliseconds: number, wait = timer): Backoff {
    return new Backoff({ firstMs: milliseconds, longestMs: milliseconds }, wait, 1)
  }

  /** Back to the first pause: the last attempt succeeded. */
  reset(): void {
    this.#next = this.#bounds.firstMs
  }

  /**
   * Waits, and doubles the next pause. When the signal aborts, rejects with its reason and leaves the next pause as it
   * was.
   */
  async pause(signal: AbortSignal): Promise<void> {
    try {
      await this.#wait(this.#next * (this.#least + Math.random() / 2), signal)
    } catch (error) {
      // A timer rejects with an error of its own.
      signal.throwIfAborted()
      throw error
    }
    this.#next = Math.min(this.#next * 2, this.#bounds.longestMs)
  }
}

export type RetryOptions = {
  /** Ends the retries: `retry` rejects with its reason. */
  readonly signal: AbortSignal
  readonly backoff?: Pick<Backoff, 'pause'>
  /**
   * Called with the error of each attempt that failed. Throws it again where another attempt is pointless; may wait
   * before the pause. By default nothing is retried.
   */
  readonly onError?: (error: unknown) => void | Promise<void>
}

/**
 * Makes attempts with pauses in between until one returns a value; `undefined` and errors that `onError` accepts lead
 * to the next one.
 */
export async function retry<T extends NonNullable<unknown>>(
  attempt: () => T | undefined | Promise<T | undefined>,
  { signal, backoff = new Backoff(), onError }: RetryOptions
): Promise<T> {
  for (;;) {
    try {
      const result = await attempt()
      if (result !== undefined) return result
    } catch (error) {
      signal.throwIfAborted()
      if (onError === undefined) throw error
      await onError(error)
    }
    await backoff.pause(signal)
  }
}
