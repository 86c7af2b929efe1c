// Goes through all leases in rounds of equal shares, so that one look at all of them takes no long time at once.

/** Number of rounds for all, and the minimum per round. */
const ROUNDS = 10
const AT_LEAST = 100

export class Rounds {
  readonly #keys: () => Iterable<string>
  /** Still to be looked at in this pass. */
  #left: string[] = []
  #share = 0

  /** `keys`: all of them, read again at each pass. */
  constructor(keys: () => Iterable<string>) {
    this.#keys = keys
  }

  /** The next share; what has gone since the pass began may be among it. */
  next(): readonly string[] {
    if (this.#left.length === 0) {
      this.#left = [...this.#keys()]
      this.#share = Math.max(AT_LEAST, Math.ceil(this.#left.length / ROUNDS))
    }
    return this.#left.splice(0, this.#share)
  }
}
