// Runs asynchronous work one at a time, in order.

/** First in, first out. Work that fails does not stop what is queued behind it. */
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
