// What is known of the ways to each peer: some bytes each in typed arrays. Times are in tenths of a second since the
// record began; 0 is never.
import { judge, type LaneFacts } from './judge.ts'
import { type Digest, LANES, NODE_LANE, PLAIN_LANES, POD_LANES, type Way } from './probe-packet.ts'
import { MISSES } from './probe-schedule.ts'

/** Slots are added by so many. */
const GROWTH = 256
/** Of a row: the lanes that are always asked. Those of the plain way have a row of their own while it is tried. */
const ROW_LANES = LANES.length - PLAIN_LANES.length
const ROW_WAYS = 2
/** Index of what has no row: reads nothing, and what is written there is lost. */
const NOWHERE = -1
/** Plain rows until those that are not needed any more are looked for, in tenths of a second since they were heard. */
const PLAIN_ROWS = 64
const PLAIN_KEPT = 600
/** Entries of the table for each slot, at least; and which share of the slots may have a stale entry as well. */
const LOAD = 1.5
const STALE_SHARE = 8
/** Of the repetitions of large probes alone that are missed, one in so many, the first among them. */
const ALONE = 4
/** For times that two nodes measured, each to a tenth of a second. */
const BLUR = 3
/** What arrives together is noted within it. */
const TOGETHER = 5

export const WAY_INDEX = { pods: 0, nodes: 1 } as const
const LANES_OF: Readonly<Record<Way, readonly [small: number, large: number | undefined]>> = {
  pods: POD_LANES,
  nodes: [NODE_LANE, undefined],
  plain: PLAIN_LANES
}

/** Arrays with an entry for each lane of each row. A slot is the number of its peer's row. */
type Lanes = {
  /** Time of sending of the latest probe, of the first that was not answered, of the latest that was. */
  asked: Uint32Array
  missed: Uint32Array
  answered: Uint32Array
  /** When the peer's probe was heard, and when it last heard ours by its own account. */
  heard: Uint32Array
  outHeard: Uint32Array
  misses: Uint8Array
  /** 1 while the latest probe is neither answered nor counted as missed. */
  open: Uint8Array
}

export class ProbeRecord {
  #capacity = 0
  #free: number[] = []
  #size = 0
  /** One more than the highest row ever in use. */
  #rows = 0
  /** Rows of plain ways by slot. */
  readonly #plain = new Map<number, number>()
  #lanes: Lanes = lanesFor(0)
  /** Microseconds, by way. */
  #roundTrip = new Uint32Array(0)
  /** When anything was heard of it, which says what it heard of us. */
  #heardAny = new Uint32Array(0)
  #digests = new Uint32Array(0)
  /** Open addressing by the low half of the digest: slot + 1. */
  #table = new Uint32Array(0)
  #stale = 0

  /** Peers that are in it. */
  get size(): number {
    return this.#size
  }

  /** Bytes of the arrays. */
  get bytes(): number {
    const arrays = [...Object.values(this.#lanes), this.#roundTrip, this.#heardAny]
    return [...arrays, this.#digests, this.#table].reduce((sum, { byteLength }) => sum + byteLength, 0)
  }

  /** A slot for the peer of this digest. */
  add(digest: Digest): number {
    const slot = this.#take()
    this.#size++
    this.#digests[2 * slot] = digest.high
    this.#digests[2 * slot + 1] = digest.low
    this.#enter(slot)
    return slot
  }

  /** Its entry in the table stays, and matches no digest any more. */
  remove(slot: number): void {
    this.reset(slot)
    this.#digests.fill(0, 2 * slot, 2 * slot + 2)
    this.#free.push(slot)
    this.#size--
    if (++this.#stale > this.#capacity / STALE_SHARE) this.#index()
  }

  /** Forgets what is known of the peer, as when its address changed. */
  reset(slot: number): void {
    this.#clear(slot)
    this.forgetPlain(slot)
    this.#heardAny[slot] = 0
  }

  /** The plain way is not tried any more. */
  forgetPlain(slot: number): void {
    const row = this.#plain.get(slot)
    if (row === undefined) return
    this.#plain.delete(slot)
    this.#clear(row)
    this.#free.push(row)
  }

  #clear(row: number): void {
    for (const array of Object.values(this.#lanes)) array.fill(0, row * ROW_LANES, (row + 1) * ROW_LANES)
    this.#roundTrip.fill(0, row * ROW_WAYS, (row + 1) * ROW_WAYS)
  }

  #take(): number {
    const row = this.#free.pop() ?? this.#rows++
    if (row >= this.#capacity) this.#grow()
    return row
  }

  #at(slot: number, lane: number): number {
    if (lane < ROW_LANES) return slot * ROW_LANES + lane
    const row = this.#plain.get(slot)
    return row === undefined ? NOWHERE : row * ROW_LANES + lane - ROW_LANES
  }

  #roundTripAt(slot: number, way: Way): number {
    if (way !== 'plain') return slot * ROW_WAYS + WAY_INDEX[way]
    const row = this.#plain.get(slot)
    return row === undefined ? NOWHERE : row * ROW_WAYS
  }

  /** A row for the plain way, where this lane is of that. */
  #need(slot: number, lane: number, now: number): void {
    if (lane < ROW_LANES || this.#plain.has(slot)) return
    if (this.#plain.size % PLAIN_ROWS === PLAIN_ROWS - 1) this.#forgetUnheard(now)
    this.#plain.set(slot, this.#take())
  }

  /** Peers that tried their plain route to this node while this node does not try its own. */
  #forgetUnheard(now: number): void {
    const { asked, heard } = this.#lanes
    for (const slot of this.#plain.keys()) {
      const isNeeded = PLAIN_LANES.some((lane) => {
        const at = this.#at(slot, lane)
        return asked[at] !== 0 || (heard[at] ?? 0) + PLAIN_KEPT >= now
      })
      if (!isNeeded) this.forgetPlain(slot)
    }
  }

  /** As before the first probe of ours by this way. */
  resetAsked(slot: number, way: Way): void {
    const { asked, missed, answered, misses, open } = this.#lanes
    for (const lane of LANES_OF[way])
      if (lane !== undefined)
        for (const array of [asked, missed, answered, misses, open]) array[this.#at(slot, lane)] = 0
    this.#roundTrip[this.#roundTripAt(slot, way)] = 0
  }

  slotOf({ high, low }: Digest): number | undefined {
    const mask = this.#table.length - 1
    if (mask < 0) return undefined
    for (let at = low & mask; ; at = (at + 1) & mask) {
      const entry = this.#table[at] ?? 0
      if (entry === 0) return undefined
      if (this.#digests[2 * entry - 1] === low && this.#digests[2 * entry - 2] === high) return entry - 1
    }
  }

  lowDigest(slot: number): number {
    return this.#digests[2 * slot + 1] ?? 0
  }

  asked(slot: number, lane: number, now: number): void {
    this.#need(slot, lane, now)
    const at = this.#at(slot, lane)
    // The one before is counted at the latest now.
    this.#miss(at)
    this.#lanes.asked[at] = now
    this.#lanes.open[at] = 1
  }

  /** `sent`: as the probe says. */
  answered(slot: number, lane: number, sent: number, roundTripUs: number): void {
    const at = this.#at(slot, lane)
    const { answered, asked, misses, missed, open } = this.#lanes
    if (sent < (answered[at] ?? 0) || sent > (asked[at] ?? 0)) return
    if (sent === asked[at]) open[at] = 0
    answered[at] = sent
    misses[at] = 0
    missed[at] = 0
    const way = LANES[lane]
    if (way !== undefined && !way.isLarge)
      this.#roundTrip[this.#roundTripAt(slot, way.way)] = Math.max(1, Math.min(roundTripUs, 0xffff_ffff))
  }

  /** An answer came as far as this node's firewall: both directions carry packets. */
  passed(slot: number, lane: number, now: number): void {
    const at = this.#at(slot, lane)
    this.#lanes.heard[at] = now
    this.#lanes.outHeard[at] = now
  }

  heard(slot: number, lane: number, heardAgo: readonly (number | undefined)[], now: number): void {
    this.#need(slot, lane, now)
    const { heard, outHeard } = this.#lanes
    heard[this.#at(slot, lane)] = now
    this.#heardAny[slot] = now
    for (const [each, ago] of heardAgo.entries())
      if (ago !== undefined) outHeard[this.#at(slot, each)] = Math.max(1, now - ago)
  }

  /** For each lane, how long ago the peer's last probe was heard. */
  heardAgo(slot: number, now: number): readonly (number | undefined)[] {
    return LANES.map((_, lane) => {
      const at = this.#lanes.heard[this.#at(slot, lane)] ?? 0
      return at === 0 ? undefined : now - at
    })
  }

  /** Counts what was not answered until now; returns the most misses of the lanes of pods' packets. */
  settle(slot: number): number {
    for (let lane = 0; lane < LANES.length; lane++) this.#miss(this.#at(slot, lane))
    return this.misses(slot)
  }

  misses(slot: number): number {
    const { misses } = this.#lanes
    const [small, large] = POD_LANES
    return Math.max(misses[this.#at(slot, small)] ?? 0, misses[this.#at(slot, large)] ?? 0)
  }

  /**
   * Whether the next probe is the large one by itself. A peer that answers one echo a second, by a limit in its
   * firewall, loses the large one each time that it comes behind a small one.
   */
  asksLargeAlone(slot: number): boolean {
    const { misses } = this.#lanes
    const [small, large] = POD_LANES.map((lane) => misses[this.#at(slot, lane)] ?? 0)
    return small === 0 && (large ?? 0) % ALONE === 1
  }

  /** Whether the latest probes of all lanes that are asked were answered. */
  isAnswered(slot: number): boolean {
    for (let lane = 0; lane < LANES.length; lane++) if (this.#lanes.open[this.#at(slot, lane)]) return false
    return this.misses(slot) === 0
  }

  /** Of the last answer to a small probe on this way; 0: none. */
  answeredAt(slot: number, way: Way): number {
    return this.#lanes.answered[this.#at(slot, LANES_OF[way][0])] ?? 0
  }

  /** Microseconds of the last small probe that was answered; 0: none. */
  roundTrip(slot: number, way: Way): number {
    return this.#roundTrip[this.#roundTripAt(slot, way)] ?? 0
  }

  /** Whether probes of the peer of all sizes came by this way within so many tenths of a second. */
  isHeard(slot: number, way: Way, within: number, now: number): boolean {
    return LANES_OF[way].every((lane) => {
      const at = lane === undefined ? now : (this.#lanes.heard[this.#at(slot, lane)] ?? 0)
      return at > 0 && now - at <= within
    })
  }

  /** When anything of the peer was heard; 0: never. */
  heardAt(slot: number): number {
    return this.#heardAny[slot] ?? 0
  }

  judge(slot: number, way: Way): ReturnType<typeof judge> {
    const [small, large] = LANES_OF[way]
    return judge({ small: this.#facts(slot, small), large: large === undefined ? large : this.#facts(slot, large) })
  }

  #facts(slot: number, lane: number): LaneFacts {
    const at = this.#at(slot, lane)
    const { missed, answered, misses, heard, outHeard } = this.#lanes
    const [since, left] = [missed[at] ?? 0, misses[at] ?? 0]
    if (left < MISSES) {
      const isKnown = (answered[at] ?? 0) > 0
      return { state: isKnown ? 'answered' : 'open', out: isKnown || undefined, back: isKnown || undefined }
    }
    const heardThere = outHeard[at] ?? 0
    const isOut = heardThere > 0 && heardThere >= since - BLUR
    const isBack = (heard[at] ?? 0) >= since
    // It has spoken since: what it does not say of this lane, or not by it, is lost.
    const hasSpoken = (this.#heardAny[slot] ?? 0) >= since + TOGETHER
    return {
      state: 'missed',
      out: isOut || (hasSpoken ? false : undefined),
      back: isBack || (hasSpoken ? false : undefined)
    }
  }

  #miss(at: number): void {
    const { asked, missed, misses, open } = this.#lanes
    if (!open[at]) return
    open[at] = 0
    if (misses[at] === 0) missed[at] = asked[at] ?? 0
    misses[at] = Math.min(255, (misses[at] ?? 0) + 1)
  }

  #grow(): void {
    this.#capacity += GROWTH
    const lanes = this.#capacity * ROW_LANES
    const longer = lanesFor(lanes)
    for (const [name, array] of Object.entries(this.#lanes)) longer[name as keyof Lanes].set(array)
    this.#lanes = longer
    this.#roundTrip = grown(this.#roundTrip, this.#capacity * ROW_WAYS)
    this.#heardAny = grown(this.#heardAny, this.#capacity)
    this.#digests = grown(this.#digests, this.#capacity * 2)
    this.#index()
  }

  /** Fills the table anew: after it grew, and when many entries are stale. */
  #index(): void {
    this.#stale = 0
    const length = 2 ** Math.ceil(Math.log2(this.#capacity * LOAD))
    if (this.#table.length === length) this.#table.fill(0)
    else this.#table = new Uint32Array(length)
    const others = new Set([...this.#free, ...this.#plain.values()])
    for (let slot = 0; slot < this.#rows; slot++) if (!others.has(slot)) this.#enter(slot)
  }

  #enter(slot: number): void {
    const mask = this.#table.length - 1
    let at = this.lowDigest(slot) & mask
    while (this.#table[at] !== 0 && this.#table[at] !== slot + 1) at = (at + 1) & mask
    this.#table[at] = slot + 1
  }
}

const lanesFor = (length: number): Lanes => ({
  asked: new Uint32Array(length),
  missed: new Uint32Array(length),
  answered: new Uint32Array(length),
  heard: new Uint32Array(length),
  outHeard: new Uint32Array(length),
  misses: new Uint8Array(length),
  open: new Uint8Array(length)
})

function grown(array: Uint32Array, length: number): Uint32Array<ArrayBuffer> {
  const longer = new Uint32Array(length)
  longer.set(array)
  return longer
}
