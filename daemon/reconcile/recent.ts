// A map that forgets by itself: two generations, so that forgetting needs no search.
import type { Key } from '../state/object.ts'

export class Recent<Value> {
  readonly #later: (work: () => void) => void
  #generations: readonly [recent: Map<Key, Value>, older: Map<Key, Value>] = [new Map(), new Map()]
  #isForgetting = false

  /** `later` calls once, when a generation ends: an entry is kept for one to two of them. */
  constructor(later: (work: () => void) => void) {
    this.#later = later
  }

  set(key: Key, value: Value): void {
    this.#generations[0].set(key, value)
    this.#forgetLater()
  }

  has(key: Key): boolean {
    return this.#generations.some((generation) => generation.has(key))
  }

  get(key: Key): Value | undefined {
    return this.#generations.find((generation) => generation.has(key))?.get(key)
  }

  clear(): void {
    this.#generations = [new Map(), new Map()]
  }

  /** Of a key that was set again, the earlier value may come too, before the later one. */
  *[Symbol.iterator](): Generator<[Key, Value], void> {
    for (const generation of this.#generations.toReversed()) yield* generation
  }

  #forgetLater(): void {
    if (this.#isForgetting) return
    this.#isForgetting = true
    this.#later(() => {
      this.#isForgetting = false
      const [recent] = this.#generations
      this.#generations = [new Map(), recent]
      if (recent.size > 0) this.#forgetLater()
    })
  }
}
