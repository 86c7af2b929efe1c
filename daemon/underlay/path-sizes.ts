// Which size passes on a path that loses packets of pods' full size: probes of many sizes at once, few times.
import type { Family } from '../../ipam/address.ts'

/** Bytes less than the largest packet, and sizes by themselves: what links and tunnels between nodes usually take. */
const LESS = [8, 20, 28, 40, 50, 60, 80, 100, 150, 200, 300, 400]
const USUAL = [1_450, 1_430, 1_400, 1_350]
/** The least MTU of a link: RFC 8200; of IPv4 what every host takes (RFC 791). */
const LEAST: Readonly<Record<Family, number>> = { 4: 576, 6: 1_280 }
/** Tries until the size is known, as one packet may be lost by chance. */
const TRIES = 3
/** Tenths of a second until it is asked again, where a size is known and where none is. */
const AGAIN = 600
const SOONER = 150

/** Sizes of packets to try below `mtu`. */
export const sizesBelow = (mtu: number, family: Family): readonly number[] =>
  [...new Set([...LESS.map((less) => mtu - less), ...USUAL, LEAST[family]])].filter(
    (size) => size < mtu && size >= LEAST[family]
  )

type Found = { tries: number; began: number; best: number; readonly before: number }

/** By slot; few, if any. Times in tenths of a second. */
export class PathSizes {
  readonly #found = new Map<number, Found>()

  /** Whether to try now; counts as a try. */
  isDue(slot: number, now: number): boolean {
    const found = this.#found.get(slot)
    if (found !== undefined && found.tries < TRIES) {
      found.tries++
      return true
    }
    if (found !== undefined && now - found.began < (found.best > 0 ? AGAIN : SOONER)) return false
    this.#found.set(slot, { tries: 1, began: now, best: 0, before: found?.best ?? 0 })
    return true
  }

  /** A packet of this size was answered. Whether more is known than before. */
  answered(slot: number, size: number): boolean {
    const found = this.#found.get(slot)
    if (found === undefined || found.best >= size) return false
    found.best = size
    return true
  }

  /** The largest size that passed; `undefined`: not known. */
  of(slot: number): number | undefined {
    const found = this.#found.get(slot)
    return found && (found.best || found.before || undefined)
  }

  forget(slot: number): void {
    this.#found.delete(slot)
  }
}
