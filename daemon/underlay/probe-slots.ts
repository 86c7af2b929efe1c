// When each peer is asked next, and the verdict on each way to it: one entry for each slot of the record, in typed
// arrays. Times are in tenths of a second, as in the record.
import type { Family } from '../../ipam/address.ts'
import { SEVERITY, type Verdict } from './judge.ts'
import type { Way } from './probe-packet.ts'
import { WAY_INDEX } from './probe-record.ts'

const WAY_COUNT = 2
const NOT_ASKED = SEVERITY.indexOf('not-asked')
/** Of `isWaiting`. */
const FIRST = 2
/** Of `plain`. */
const [PLAIN, REFUSED] = [1, 2]
/** Of `due`, where a slot is free. */
const NEVER = 0xffff_ffff
/** A probe carries its slot with the slot's generation in the highest octet. */
const GENERATION = 0x100_0000
/** Slots are added by so many. */
const GROWTH = 256

export class ProbeSlots {
  readonly #keys: (string | undefined)[] = []
  readonly #count = { 4: 0, 6: 0 }
  #refused = 0
  #family = new Uint8Array(0)
  /** Counts the leases, addresses and routes that a slot had, so that answers to the probes before are known. */
  #generation = new Uint8Array(0)
  #due = new Uint32Array(0)
  #asked = new Uint32Array(0)
  #isWaiting = new Uint8Array(0)
  /** Until when a way that was never answered counts as not asked yet. */
  #graceEnd = new Uint32Array(0)
  #pair = new Uint32Array(0)
  /** Of what the lease says, and of the route to it, to find out whether they changed. */
  #print = new Uint32Array(0)
  #route = new Uint32Array(0)
  /** By the peer's own account: PLAIN where it takes its plain route to this node, REFUSED where none is to be taken to it. */
  #plain = new Uint8Array(0)
  #verdict = new Uint8Array(0)
  #since = new Uint32Array(0)
  /** Of plain ways that are tried: few at a time. */
  readonly #plainWays = new Map<number, { readonly verdict: Verdict; readonly since: number }>()

  get bytes(): number {
    const arrays = [
      this.#family,
      this.#generation,
      this.#due,
      this.#asked,
      this.#isWaiting,
      this.#graceEnd,
      this.#pair,
      this.#print,
      this.#route
    ]
    return [...arrays, this.#plain, this.#verdict, this.#since].reduce((sum, { byteLength }) => sum + byteLength, 0)
  }

  /** How many peers there are: one with both families counts once. */
  get peers(): number {
    return Math.max(this.#count[4], this.#count[6])
  }

  /** One more than the highest slot ever in use. */
  get top(): number {
    return this.#keys.length
  }

  add(
    slot: number,
    of: { readonly key: string; readonly family: Family; readonly pair: number; readonly now: number }
  ): void {
    while (slot >= this.#due.length) this.#grow()
    this.#keys[slot] = of.key
    this.#family[slot] = of.family
    this.#count[of.family]++
    this.#pair[slot] = of.pair
    this.#due[slot] = of.now
    this.#isWaiting[slot] = 0
    this.#print[slot] = 0
    this.#route[slot] = 0
    this.setPlainThere(slot, false, false)
    for (const way of ['pods', 'nodes', 'plain'] as const) this.setVerdict(slot, way, 'not-asked', of.now)
  }

  remove(slot: number): void {
    this.#count[this.family(slot)]--
    this.setPlainThere(slot, false, false)
    this.#keys[slot] = undefined
    this.#due[slot] = NEVER
    this.#plainWays.delete(slot)
  }

  /** The lease's key; `undefined`: the slot is free. */
  key(slot: number): string | undefined {
    return this.#keys[slot]
  }

  /** What probes of this slot carry. */
  id(slot: number): number {
    return (this.#generation[slot] ?? 0) * GENERATION + slot
  }

  /** `undefined`: of a slot that is free, or has started over. */
  slotOf(id: number): number | undefined {
    const slot = id % GENERATION
    return this.key(slot) !== undefined && this.id(slot) === id ? slot : undefined
  }

  /** Answers to probes until now are of another lease, address or route. */
  startOver(slot: number): void {
    this.#generation[slot] = (this.#generation[slot] ?? 0) + 1
  }

  family(slot: number): Family {
    return this.#family[slot] === 6 ? 6 : 4
  }

  pair(slot: number): number {
    return this.#pair[slot] ?? 0
  }

  /** Whether the print is another one than before, which it replaces. */
  renew(slot: number, print: number, graceEnd: number): boolean {
    if (this.#print[slot] === print) return false
    this.#print[slot] = print
    this.#graceEnd[slot] = graceEnd
    return true
  }

  /** Whether the print of the route is another one than before, which it replaces. */
  reroute(slot: number, print: number): boolean {
    const isOther = this.#route[slot] !== print
    this.#route[slot] = print
    return isOther
  }

  isPlainThere(slot: number): boolean {
    return this.#plain[slot] === PLAIN
  }

  isPlainRefused(slot: number): boolean {
    return this.#plain[slot] === REFUSED
  }

  setPlainThere(slot: number, isPlain: boolean, isRefused: boolean): void {
    const before = this.isPlainRefused(slot)
    this.#plain[slot] = isRefused ? REFUSED : isPlain ? PLAIN : 0
    this.#refused += Number(isRefused) - Number(before)
  }

  /** The keys of peers to which no plain route is to be taken. */
  *refused(): Generator<string> {
    if (this.#refused === 0) return
    for (const [slot, key] of this.#keys.entries()) if (key !== undefined && this.isPlainRefused(slot)) yield key
  }

  graceEnd(slot: number): number {
    return this.#graceEnd[slot] ?? 0
  }

  due(slot: number): number {
    return this.#due[slot] ?? 0
  }

  /** Those of this family by lease key. */
  ofFamily(family: Family): ReadonlyMap<string, number> {
    const found = new Map<string, number>()
    for (const [slot, key] of this.#keys.entries())
      if (key !== undefined && this.family(slot) === family) found.set(key, slot)
    return found
  }

  forEach(callback: (key: string, slot: number) => void): void {
    for (let slot = 0; slot < this.#keys.length; slot++) {
      const key = this.#keys[slot]
      if (key !== undefined) callback(key, slot)
    }
  }

  /** The earliest of all; Infinity: none. */
  firstDue(): number {
    const due = this.#due
    let first = NEVER
    for (let slot = 0; slot < due.length; slot++) if ((due[slot] ?? NEVER) < first) first = due[slot] ?? NEVER
    return first === NEVER ? Number.POSITIVE_INFINITY : first
  }

  /** The next slot from this one on, and before `end`, that is due by `at`; `end`: none. */
  nextDue(slot: number, end: number, at: number): number {
    const due = this.#due
    let next = slot
    while (next < end && (due[next] ?? NEVER) > at) next++
    return next
  }

  /** When it is asked, or looked at for answers. */
  setDue(slot: number, at: number): void {
    this.#due[slot] = at
  }

  /** Of the last probes. */
  askedAt(slot: number): number {
    return this.#asked[slot] ?? 0
  }

  isWaiting(slot: number): boolean {
    return this.#isWaiting[slot] !== 0
  }

  /** Whether it waits for its first answer. */
  isFirst(slot: number): boolean {
    return this.#isWaiting[slot] === FIRST
  }

  asked(slot: number, now: number, isFirst: boolean): void {
    this.#asked[slot] = now
    this.#isWaiting[slot] = isFirst ? FIRST : 1
  }

  /** Its answers have been looked at. */
  rest(slot: number): void {
    this.#isWaiting[slot] = 0
  }

  verdict(slot: number, way: Way): Verdict {
    if (way === 'plain') return this.#plainWays.get(slot)?.verdict ?? 'not-asked'
    return SEVERITY[this.#verdict[slot * WAY_COUNT + WAY_INDEX[way]] ?? NOT_ASKED] ?? 'not-asked'
  }

  since(slot: number, way: Way): number {
    if (way === 'plain') return this.#plainWays.get(slot)?.since ?? 0
    return this.#since[slot * WAY_COUNT + WAY_INDEX[way]] ?? 0
  }

  setVerdict(slot: number, way: Way, verdict: Verdict, now: number): void {
    if (way === 'plain') {
      if (verdict === 'not-asked') this.#plainWays.delete(slot)
      else this.#plainWays.set(slot, { verdict, since: now })
      return
    }
    this.#verdict[slot * WAY_COUNT + WAY_INDEX[way]] = SEVERITY.indexOf(verdict)
    this.#since[slot * WAY_COUNT + WAY_INDEX[way]] = now
  }

  #grow(): void {
    const length = this.#due.length + GROWTH
    this.#family = octets(this.#family, length)
    this.#generation = octets(this.#generation, length)
    this.#isWaiting = octets(this.#isWaiting, length)
    this.#plain = octets(this.#plain, length)
    this.#verdict = octets(this.#verdict, length * WAY_COUNT)
    const before = this.#due.length
    this.#due = words(this.#due, length).fill(NEVER, before)
    this.#asked = words(this.#asked, length)
    this.#graceEnd = words(this.#graceEnd, length)
    this.#pair = words(this.#pair, length)
    this.#print = words(this.#print, length)
    this.#route = words(this.#route, length)
    this.#since = words(this.#since, length * WAY_COUNT)
  }
}

function octets(array: Uint8Array, length: number): Uint8Array<ArrayBuffer> {
  const longer = new Uint8Array(length)
  longer.set(array)
  return longer
}

function words(array: Uint32Array, length: number): Uint32Array<ArrayBuffer> {
  const longer = new Uint32Array(length)
  longer.set(array)
  return longer
}
