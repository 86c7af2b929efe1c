// Runs work whenever it is due, with one timer that sleeps in between: a process that wakes up for nothing twice a
// second costs more than all probes of a small network.

export class Turns {
  readonly #work: () => number
  #timer: NodeJS.Timeout | undefined
  /** Milliseconds of the monotonic clock; absent while it does not run. */
  #next: number | undefined
  #fail: (error: unknown) => void = () => undefined

  /** `work`: returns the milliseconds until it is due again. */
  constructor(work: () => number) {
    this.#work = work
  }

  /** Until the signal, and rejects with it, or with what `work` throws. */
  follow(signal: AbortSignal): Promise<never> {
    const { promise, reject } = Promise.withResolvers<never>()
    this.#fail = (error) => {
      clearTimeout(this.#timer)
      this.#next = undefined
      reject(error)
    }
    const stop = () => this.#fail(signal.reason)
    if (signal.aborted) stop()
    else {
      signal.addEventListener('abort', stop, { once: true })
      this.#sleep(0)
    }
    return promise
  }

  /** It is due within so many milliseconds, if not sooner. */
  within(milliseconds: number): void {
    if (this.#next !== undefined && this.#next > performance.now() + milliseconds) this.#sleep(milliseconds)
  }

  #sleep(milliseconds: number): void {
    clearTimeout(this.#timer)
    this.#next = performance.now() + milliseconds
    this.#timer = setTimeout(() => this.#run(), milliseconds).unref()
  }

  #run(): void {
    try {
      this.#sleep(this.#work())
    } catch (error) {
      this.#fail(error)
    }
  }
}
