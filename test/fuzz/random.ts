// Chance from a seed: the same seed makes the same cases on every machine, so that a failure can be made again.

/** Small fast counter, 32 bits (PractRand's sfc32), seeded by the text's FNV-1a hash. */
export class Random {
  #a = 0x9e37_79b9
  #b = 0x243f_6a88
  #c: number
  #counter = 1

  constructor(seed: string) {
    let hash = 0x811c_9dc5
    for (let at = 0; at < seed.length; at++) hash = Math.imul(hash ^ seed.charCodeAt(at), 0x0100_0193)
    this.#c = hash >>> 0
    // Seeds that differ in one character only differ everywhere after some rounds.
    for (let round = 0; round < 12; round++) this.word()
  }

  /** 32 bits. */
  word(): number {
    const sum = (this.#a + this.#b + this.#counter) | 0
    this.#counter = (this.#counter + 1) | 0
    this.#a = this.#b ^ (this.#b >>> 9)
    this.#b = (this.#c + (this.#c << 3)) | 0
    this.#c = ((this.#c << 21) | (this.#c >>> 11)) + sum
    return sum >>> 0
  }

  /** A whole number from 0 to `below` − 1. */
  below(below: number): number {
    return Math.floor((this.word() / 2 ** 32) * below)
  }

  /** A whole number from `least` to `most`, both included. */
  between(least: number, most: number): number {
    return least + this.below(most - least + 1)
  }

  /** True in `share` of all cases, 0 to 1. */
  chance(share: number): boolean {
    return this.word() / 2 ** 32 < share
  }

  pick<T>(list: readonly [T, ...T[]] | readonly T[]): T {
    return list[this.below(list.length)] as T
  }

  bytes(length: number): Buffer {
    return Buffer.from(Array.from({ length }, () => this.word() & 255))
  }
}
