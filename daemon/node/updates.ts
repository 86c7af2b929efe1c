// Updates this node's membership after changes of the host or the configuration: soon, once for all that changes
// together, and never twice at a time.
import { setTimeout as sleep } from 'node:timers/promises'
import type { Log } from '../base/log.ts'

/** Milliseconds for which changes are collected. */
const SETTLE = 50

export class Updates {
  readonly #update: (signal: AbortSignal) => Promise<void>
  readonly #log: Log
  /** Until when updates are made; before it is set there are none. */
  #signal: AbortSignal | undefined
  #updating = false
  #changed = false
  #attempt: AbortController | undefined

  constructor(update: (signal: AbortSignal) => Promise<void>, log: Log) {
    this.#update = update
    this.#log = log
  }

  /** From now on, until the signal. */
  begin(signal: AbortSignal): void {
    this.#signal = signal
    this.soon()
  }

  /** The update in progress; aborted, it ends, and another follows if something has changed. */
  get attempt(): AbortController | undefined {
    return this.#attempt
  }

  soon(): void {
    const signal = this.#signal
    this.#changed = true
    if (this.#updating || signal === undefined) return
    this.#updating = true
    this.#untilQuiet(signal)
      .catch((error) => {
        if (!signal.aborted) this.#log.error({ err: error }, 'updating after a change failed')
      })
      .finally(() => {
        this.#updating = false
      })
  }

  async #untilQuiet(signal: AbortSignal): Promise<void> {
    while (this.#changed) {
      this.#changed = false
      await sleep(SETTLE, undefined, { signal, ref: false })
      const attempt = new AbortController()
      this.#attempt = attempt
      try {
        await this.#update(AbortSignal.any([signal, attempt.signal]))
      } catch (error) {
        if (!attempt.signal.aborted || signal.aborted) throw error
      }
    }
  }
}
