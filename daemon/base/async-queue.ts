// A queue that somebody fills and somebody else reads as an AsyncIterable, from the moment it is made until a signal.

/** Values pushed before they are awaited wait. Ends quietly when the signal fires or `end` is called. */
export class AsyncQueue<T> implements AsyncIterable<T> {
  readonly #values: T[] = []
  readonly #onEnd: () => void
  #ended = false
  #wake: (() => void) | undefined

  constructor(signal: AbortSignal, onEnd: () => void) {
    this.#onEnd = onEnd
    if (signal.aborted) this.#ended = true
    else signal.addEventListener('abort', () => this.end(), { once: true })
  }

  push(value: T): void {
    if (this.#ended) return
    this.#values.push(value)
    this.#wake?.()
  }

  end(): void {
    if (this.#ended) return
    this.#ended = true
    this.#onEnd()
    this.#wake?.()
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T, void, void> {
    try {
      for (;;) {
        for (let value = this.#values.shift(); value !== undefined && !this.#ended; value = this.#values.shift())
          yield value
        if (this.#ended) return
        await new Promise<void>((resolve) => {
          this.#wake = resolve
        })
      }
    } finally {
      this.end()
    }
  }
}
