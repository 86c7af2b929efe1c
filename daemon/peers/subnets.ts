// Index of leases by subnet: finds leases that share addresses. Two prefixes overlap only if one contains the other, so
// a look-up per prefix length in use is enough.
import { FAMILIES, type Family, formatPrefix, network, type Prefix, perFamily } from '../../ipam/address.ts'
import type { Lease } from '../lease/lease.ts'

export class Subnets {
  readonly #byFamily: Readonly<Record<Family, Level>> = { 4: new Level(), 6: new Level() }

  add(lease: Lease): void {
    for (const [family, prefix] of perFamily(lease.subnet)) this.#byFamily[family].add(lease, prefix)
  }

  remove(lease: Lease): void {
    for (const [family, prefix] of perFamily(lease.subnet)) this.#byFamily[family].remove(lease, prefix)
  }

  /** The other leases that share addresses with this one. */
  overlapping(lease: Lease): ReadonlySet<Lease> {
    const found = new Set<Lease>()
    for (const family of FAMILIES) {
      const prefix = lease.subnet[family]
      if (prefix !== undefined) this.#byFamily[family].collect(prefix, found)
    }
    found.delete(lease)
    return found
  }
}

/** The leases of one family. */
class Level {
  /** Leases of exactly this prefix. */
  readonly #exact = new Map<string, Lease | Set<Lease>>()
  /** Leases with longer prefixes inside this one, for each length in use. */
  readonly #inside = new Map<string, Set<Lease>>()
  /** By prefix length: the leases that have it, with their prefixes. */
  readonly #lengths = new Map<number, Map<Lease, Prefix>>()

  add(lease: Lease, prefix: Prefix): void {
    const text = formatPrefix(prefix)
    const before = this.#exact.get(text)
    if (before === undefined) this.#exact.set(text, lease)
    else this.#exact.set(text, before instanceof Set ? before.add(lease) : new Set([before, lease]))
    const equals = this.#lengths.get(prefix.length)
    if (equals === undefined) {
      this.#lengths.set(prefix.length, new Map([[lease, prefix]]))
      this.#enterBelow(prefix.length)
    } else equals.set(lease, prefix)
    for (const length of this.#lengths.keys()) if (length < prefix.length) this.#enter(lease, prefix, length)
  }

  /** A length is in use for the first time: all longer prefixes are inside one of it. */
  #enterBelow(length: number): void {
    for (const [longer, leases] of this.#lengths)
      if (longer > length) for (const [lease, prefix] of leases) this.#enter(lease, prefix, length)
  }

  #enter(lease: Lease, prefix: Prefix, length: number): void {
    const text = textAt(prefix, length)
    const inside = this.#inside.get(text)
    if (inside === undefined) this.#inside.set(text, new Set([lease]))
    else inside.add(lease)
  }

  remove(lease: Lease, prefix: Prefix): void {
    const text = formatPrefix(prefix)
    const found = this.#exact.get(text)
    if (found === lease) this.#exact.delete(text)
    else if (found instanceof Set) {
      found.delete(lease)
      if (found.size === 0) this.#exact.delete(text)
    }
    for (const length of this.#lengths.keys()) if (length < prefix.length) this.#leave(lease, prefix, length)
    const equals = this.#lengths.get(prefix.length)
    equals?.delete(lease)
    if (equals?.size === 0) this.#forget(prefix.length)
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
    for (const [longer, leases] of this.#lengths)
      if (longer > length) for (const prefix of leases.values()) this.#inside.delete(textAt(prefix, length))
  }

  collect(prefix: Prefix, into: Set<Lease>): void {
    for (const length of this.#lengths.keys()) {
      if (length > prefix.length) continue
      const found = this.#exact.get(textAt(prefix, length))
      if (found instanceof Set) for (const lease of found) into.add(lease)
      else if (found !== undefined) into.add(found)
    }
    for (const lease of this.#inside.get(formatPrefix(prefix)) ?? []) into.add(lease)
  }
}

const textAt = ({ ip }: Prefix, length: number): string => formatPrefix(network({ ip, length }))
