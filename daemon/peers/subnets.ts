// Index of leases by prefixes: finds leases that share addresses. Two prefixes overlap only if one contains the other,
// so a look-up per prefix length in use is enough.
import { type Family, formatPrefix, network, type Prefix } from '../../ipam/address.ts'
import type { Lease } from '../lease/lease.ts'

export class Subnets {
  readonly #byFamily: Readonly<Record<Family, Level>> = { 4: new Level(), 6: new Level() }

  add(lease: Lease, prefixes: readonly Prefix[]): void {
    for (const prefix of prefixes) this.#byFamily[prefix.ip.family].add(lease, prefix)
  }

  /** Prefixes that were not added do not matter. */
  remove(lease: Lease, prefixes: readonly Prefix[]): void {
    for (const prefix of prefixes) this.#byFamily[prefix.ip.family].remove(lease, prefix)
  }

  /** The other leases that share addresses with these prefixes of this one. */
  overlapping(lease: Lease, prefixes: readonly Prefix[]): ReadonlySet<Lease> {
    const found = new Set<Lease>()
    for (const prefix of prefixes) this.#byFamily[prefix.ip.family].collect(prefix, found)
    found.delete(lease)
    return found
  }
}

/** The leases of one family. */
class Level {
  /** Leases with exactly this prefix; a set only where there are several. */
  readonly #exact = new Map<string, Lease | Set<Lease>>()
  /** Leases with longer prefixes inside this one, for each length in use. */
  readonly #inside = new Map<string, Set<Lease>>()
  /** By prefix length: the prefixes of that length, by their text. */
  readonly #lengths = new Map<number, Map<string, Prefix>>()

  add(lease: Lease, prefix: Prefix): void {
    const text = textAt(prefix, prefix.length)
    const before = this.#exact.get(text)
    if (before === undefined) this.#exact.set(text, lease)
    else if (before !== lease)
      this.#exact.set(text, before instanceof Set ? before.add(lease) : new Set([before, lease]))
    const equals = this.#lengths.get(prefix.length)
    if (equals === undefined) {
      this.#lengths.set(prefix.length, new Map([[text, prefix]]))
      this.#enterBelow(prefix.length)
    } else equals.set(text, prefix)
    for (const length of this.#lengths.keys()) if (length < prefix.length) this.#enter(lease, prefix, length)
  }

  /** A length is in use for the first time: all longer prefixes are inside one of it. */
  #enterBelow(length: number): void {
    for (const [longer, prefixes] of this.#lengths)
      if (longer > length)
        for (const [text, prefix] of prefixes)
          for (const lease of this.#leasesAt(text)) this.#enter(lease, prefix, length)
  }

  #leasesAt(text: string): Iterable<Lease> {
    const found = this.#exact.get(text)
    return found instanceof Set ? found : found === undefined ? [] : [found]
  }

  #enter(lease: Lease, prefix: Prefix, length: number): void {
    const text = textAt(prefix, length)
    const inside = this.#inside.get(text)
    if (inside === undefined) this.#inside.set(text, new Set([lease]))
    else inside.add(lease)
  }

  remove(lease: Lease, prefix: Prefix): void {
    const text = textAt(prefix, prefix.length)
    const found = this.#exact.get(text)
    if (found instanceof Set) found.delete(lease)
    if (found === lease || (found instanceof Set && found.size === 0)) {
      this.#exact.delete(text)
      const equals = this.#lengths.get(prefix.length)
      equals?.delete(text)
      if (equals?.size === 0) this.#forget(prefix.length)
    }
    for (const length of this.#lengths.keys()) if (length < prefix.length) this.#leave(lease, prefix, length)
  }

  #leave(lease: Lease, prefix: Prefix, length: number): void {
    const text = textAt(prefix, length)
    const inside = this.#inside.get(text)
    inside?.delete(lease)
    if (inside?.size === 0) this.#inside.delete(text)
  }

  /** No lease has this length any more. */
  #forget(length: number): void {
    this.#lengths.delete(length)
    for (const [longer, prefixes] of this.#lengths)
      if (longer > length) for (const prefix of prefixes.values()) this.#inside.delete(textAt(prefix, length))
  }

  collect(prefix: Prefix, into: Set<Lease>): void {
    for (const length of this.#lengths.keys())
      if (length <= prefix.length) for (const lease of this.#leasesAt(textAt(prefix, length))) into.add(lease)
    for (const lease of this.#inside.get(textAt(prefix, prefix.length)) ?? []) into.add(lease)
  }
}

const textAt = ({ ip }: Prefix, length: number): string => formatPrefix(network({ ip, length }))
