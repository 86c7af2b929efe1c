// Queue between callbacks and a `for await` loop: one side pushes at any time, the other iterates.
import { Wakeup } from './wakeup.ts'

/** Unbounded, with one reader. Values pushed before the reader starts are kept. */
export class AsyncQueue<T> implements AsyncIterable<T> {
  readonly #changed = new Wakeup()
  readonly #signal: AbortSignal | undefined
  readonly #onEnd: () => void
  readonly #stop = () => this.close()
  #values: T[] = []
  #ended = false
  #closed = false
  #failure: { readonly error: unknown } | undefined

  /**
   * Closed by the signal. `onEnd` is called once, when no further value is taken; for a signal that has aborted already
   * after the constructor, when the caller has the queue.
   */
  constructor(signal?: AbortSignal, onEnd: () => void = () => undefined) {
    this.#signal = signal
    this.#onEnd = onEnd
    if (signal?.aborted) {
      this.#ended = this.#closed = true
      void Promise.resolve().then(onEnd)
    } else signal?.addEventListener('abort', this.#stop)
  }

  /**
   * All that `source` yields; ends or fails as it does. It is read as fast as it yields, also when the reader has left:
   * its own signal has to stop it.
   */
  static of<T>(...sources: readonly AsyncIterable<T>[]): AsyncQueue<T> {
    const queue = new AsyncQueue<T>()
    let running = sources.length
    const read = async (source: AsyncIterable<T>) => {
      for await (const value of source) queue.push(value)
      if (--running === 0) queue.end()
    }
    for (const source of sources) read(source).catch((error) => queue.fail(error))
    return queue
  }

  /** Whether no further value is taken. */
  get ended(): boolean {
    return this.#ended
  }

  /** Ignored after the end. */
  push(value: T): void {
    if (this.#ended) return
    this.#values.push(value)
    this.#changed.notify()
  }

  /** The reader still gets what was pushed before. */
  end(): void {
    if (this.#ended) return
    this.#ended = true
    this.#signal?.removeEventListener('abort', this.#stop)
    this.#onEnd()
    this.#changed.notify()
  }

  /** As `end`, after which the reader gets this error. */
  fail(error: unknown): void {
    if (this.#ended) return
    this.#failure = { error }
    this.end()
  }

  /** Ends at once: the reader gets no value any more, and no error. */
  close(): void {
    this.#closed = true
    this.end()
  }

  /** Waits until there are values; false once there will be none any more. */
  async #ready(): Promise<boolean> {
    for (;;) {
      if (this.#closed) return false
      if (this.#values.length > 0) return true
      if (this.#failure !== undefined) throw this.#failure.error
      if (this.#ended) return false
      await this.#changed.next()
    }
  }

  /** In batches, since shift() of a long array moves all that is behind it. */
  #take(): readonly T[] {
    const values = this.#values
    this.#values = []
    return values
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T, void, void> {
    for await (const batch of this.batches())
      for (const value of batch) {
        if (this.#closed) return
        yield value
      }
  }

  /** All that is there, together. `gather` is awaited before it is taken, so that more can come. */
  async *batches(gather: () => Promise<unknown> = async () => undefined): AsyncGenerator<readonly T[], void, void> {
    try {
      while (await this.#ready()) {
        await gather()
        if (!this.#closed) yield this.#take()
      }
    } finally {
      this.close()
    }
  }
}
