// Asks the other nodes whether packets get through, by every way that pods' packets take: sends the probes that are
// due, notes what is answered and heard, and keeps a verdict for each way to each peer.
import type { Family } from '../../ipam/address.ts'
import { TRIAL_TOS } from '../backend/direct.ts'
import type { Place } from '../node/place.ts'
import type { Route } from '../state/object.ts'
import { isBad, type Verdict } from './judge.ts'
import { PathSizes } from './path-sizes.ts'
import { digestOf, endsOf } from './probe-ends.ts'
import { ProbeLeases } from './probe-leases.ts'
import { type Look, lookOf, Refusals } from './probe-look.ts'
import { LANES, markOf, readReceived, WAYS, type Way } from './probe-packet.ts'
import { ProbeRecord } from './probe-record.ts'
import { interval, isMany, lostInterval, MISSES, patience, phase } from './probe-schedule.ts'
import { ProbeSender } from './probe-sender.ts'
import { ProbeSlots } from './probe-slots.ts'
import { type Arrival, ProbeSockets } from './probe-sockets.ts'
import type { ProberDeps } from './prober-deps.ts'
import { Turns } from './turns.ts'

/**
 * Milliseconds between two turns while more is to be done; at least, and at least where there are so many peers that some
 * are due at any time; and at most.
 */
const TICK = 500
const LEAST_PAUSE = 250
const LEAST_OF_MANY = 2_000
const MOST_PAUSE = 5_000
/** Milliseconds that what has arrived waits to be read, at most; and for which a turn waits for what follows it. */
const READ_WITHIN = 2_500
const GATHER = 100
/**
 * Tenths of a second: who is due so soon is asked with those that are due now, as each turn has its cost, which for the
 * code and data that the processor has forgotten since the last is larger than that of the probes.
 */
const SOON = 10
const SOON_OF_MANY = 20
/** Peers that are asked in a turn. */
const AT_ONCE = 32
/** Tenths of a second between probes that a peer in trouble asks for. */
const ASKED_BACK = 10
/** Bytes of a small probe with any IP header. */
const SMALL_PACKET = 104

export class Prober implements Disposable {
  readonly #deps: ProberDeps
  readonly #record = new ProbeRecord()
  readonly #slots = new ProbeSlots()
  readonly #sockets: ProbeSockets
  readonly #leases: ProbeLeases
  readonly #sender: ProbeSender
  readonly #began: number
  readonly #refusals = new Refusals()
  readonly #sizes = new PathSizes()
  /** When answers on the pods' way were seen before the firewall, and when they came behind it. */
  readonly #passedAt = { 4: 0, 6: 0 }
  readonly #answeredAt = { 4: 0, 6: 0 }
  /** Slots whose plain route is tried. */
  readonly #plain = new Set<number>()
  #next = 0
  #lost = 0
  #isDirty = false
  #refusesPlain = false
  readonly #turns = new Turns(() => this.tick())
  readonly #wake = () => this.#turns.within(GATHER)

  constructor(deps: ProberDeps) {
    this.#deps = deps
    this.#began = deps.now()
    const mark = markOf(deps.mac)
    const received = (packet: Uint8Array, arrival: Arrival) => this.#received(packet, arrival)
    const refused = (tag: number, name: string) => this.#refusals.note(tag, name)
    this.#sockets = new ProbeSockets(deps, TRIAL_TOS, received, mark, refused)
    const { mac } = deps
    const known = { slots: this.#slots, record: this.#record, refusals: this.#refusals, sizes: this.#sizes }
    this.#sender = new ProbeSender({ ...known, sockets: this.#sockets, plain: this.#plain, mac, mark })
    this.#leases = new ProbeLeases({
      ...{ peers: deps.peers, reconciler: deps.reconciler, place: deps.place },
      ...{ slots: this.#slots, record: this.#record },
      renewed: (slot, now) => {
        this.#sizes.forget(slot)
        this.#judge(slot, now)
      },
      removed: (slot) => this.#forget(slot)
    })
    deps.peers.onWanted = (keys) => {
      this.#leases.touch(keys)
      this.#turns.within(TICK)
    }
  }

  /** Until the signal, and rejects with it. */
  follow(signal: AbortSignal): Promise<void> {
    this.#leases.touch(this.#deps.peers.leases.keys())
    return this.#turns.follow(signal)
  }

  [Symbol.dispose](): void {
    this.#sockets[Symbol.dispose]()
  }

  /** Bytes of the arrays that grow with the number of peers. */
  get bytes(): number {
    return this.#record.bytes + this.#slots.bytes
  }

  /** Asks who is due. Milliseconds until the next turn. */
  tick(): number {
    const place = this.#deps.place()
    if (place === undefined) return TICK
    // What has arrived is no miss.
    this.#sockets.drain()
    const now = this.#tenths()
    this.#sockets.tidy(now)
    this.#leases.sync(now)
    this.#refuse(now)
    // Its own condition says that nothing gets out.
    const isDown = this.#deps.health.has('LINK_DOWN')
    if (!isDown && this.#slots.firstDue() <= now) this.#askDue(place, now)
    this.#sockets.flush()
    if (this.#isDirty) {
      this.#isDirty = false
      this.#deps.changed?.()
    }
    const pause = isDown || this.#leases.isBehind ? TICK : this.#pause()
    // What arrives is read in the next turn, if that is soon: to wake up for each packet costs more than all else.
    if (pause > READ_WITHIN) this.#sockets.watch(this.#wake)
    return pause
  }

  /**
   * A trial of a plain route ends in the INPUT chain, and packets of pods cross FORWARD: while a firewall drops them
   * there, the answers to a trial prove nothing. Peers hear so at once.
   */
  #refuse(now: number): void {
    const refuses = this.#deps.plainDrop() !== undefined
    if (refuses === this.#refusesPlain) return
    this.#refusesPlain = refuses
    this.#slots.forEach((_key, slot) => {
      if (!this.#slots.isWaiting(slot)) this.#slots.setDue(slot, now)
    })
  }

  /** The leases of nodes that refuse plain routes to them. */
  refused(): Iterable<string> {
    return this.#slots.refused()
  }

  #pause(): number {
    const due = this.#began + (this.#slots.firstDue() - 1) * 100 - this.#deps.now()
    const [least, most] = isMany(this.#slots.peers) ? [LEAST_OF_MANY, READ_WITHIN] : [LEAST_PAUSE, MOST_PAUSE]
    return due <= 0 ? TICK : Math.min(most, Math.max(least, Math.ceil(due) + 1))
  }

  #askDue(place: NonNullable<ReturnType<ProberDeps['place']>>, now: number): void {
    const { top, peers } = this.#slots
    const soon = now + (isMany(peers) ? SOON_OF_MANY : SOON)
    let left = AT_ONCE
    const begin = Math.min(this.#next, top)
    for (const [from, end] of [
      [begin, top],
      [0, begin]
    ] as const) {
      for (let slot = from; left > 0; slot++) {
        slot = this.#slots.nextDue(slot, end, soon)
        if (slot >= end) break
        this.#next = slot + 1
        if (this.#slots.isWaiting(slot) && this.#slots.due(slot) > now) continue
        if (this.#turn(slot, now, place)) left--
      }
    }
  }

  /** Tenths of a second since this began, from 1. */
  #tenths(ms = this.#deps.now()): number {
    return Math.floor((ms - this.#began) / 100) + 1
  }

  /** Looks at the answers of a peer, or asks it. Whether anything was sent. */
  #turn(slot: number, now: number, place: NonNullable<ReturnType<ProberDeps['place']>>): boolean {
    const [slots, record] = [this.#slots, this.#record]
    if (slots.isWaiting(slot)) {
      const misses = record.settle(slot)
      if (misses > 0) this.#capture(slot, now, place)
      this.#judge(slot, now)
      if (misses === 0 || misses >= MISSES) {
        this.#rest(slot, misses > 0)
        return false
      }
    }
    return this.#ask(slot, now, place)
  }

  #rest(slot: number, isLost: boolean): void {
    const [slots, pair] = [this.#slots, this.#slots.pair(slot)]
    const usual = interval(slots.peers, pair)
    const pause = isLost ? lostInterval(this.#lost) : slots.isFirst(slot) ? patience(0) + phase(pair, usual) : usual
    slots.rest(slot)
    slots.setDue(slot, slots.askedAt(slot) + pause)
  }

  #ask(slot: number, now: number, { node, backend, mtu }: NonNullable<ReturnType<ProberDeps['place']>>): boolean {
    const [slots, record] = [this.#slots, this.#record]
    const family = slots.family(slot)
    const lease = this.#deps.peers.leases.get(slots.key(slot) ?? '')
    const ends = lease === undefined ? undefined : endsOf(lease, node, backend, family)
    // Asked again soon, for a socket that could not be opened.
    slots.setDue(slot, now + ASKED_BACK)
    if (ends === undefined) return false
    const sent = this.#deps.now()
    const asking = {
      ...{ ends, mtu, sent, now: this.#tenths(sent), isTrouble: record.settle(slot) > 0 },
      isPlain: this.routeTo(slots.key(slot) ?? '', family)?.device === node.device,
      isPlainRefused: this.#refusesPlain,
      sender: this.#leases.ownDigests(node)[family]
    }
    slots.asked(slot, now, record.answeredAt(slot, 'pods') === 0)
    const isSent = this.#sender.send(slot, asking)
    if (!isSent) slots.rest(slot)
    else if (slots.isWaiting(slot))
      slots.setDue(slot, now + (record.misses(slot) >= MISSES ? patience(0) : patience(record.misses(slot))))
    return isSent
  }

  /** What the firewall of this node drops is no fault of the underlay. */
  #capture(slot: number, now: number, { node }: Pick<Place, 'node'>): void {
    const family = this.#slots.family(slot)
    const device = this.routeTo(this.#slots.key(slot) ?? '', family)?.device
    // On the node's own link every packet of the host would be looked at.
    if (device !== undefined && device !== node.device) this.#sockets.capture(device, family, now)
  }

  #received(packet: Uint8Array, { family, ago, isCaptured, length, source }: Arrival): void {
    const received = readReceived(packet, family, this.#deps.mac, length, source)
    if (received === undefined) return
    const at = this.#deps.now() - ago
    const now = this.#tenths(at)
    if (received.kind === 'heard') this.#heard(received, family, now)
    else {
      const slot = this.#slots.slotOf(received.slot)
      if (slot === undefined || this.#slots.family(slot) !== family) return
      if (isCaptured) this.#passed({ ...received, slot }, family, now)
      else this.#answered({ ...received, slot }, family, at)
    }
  }

  /** Seen before the firewall: if it is not dropped, it comes once more. */
  #passed({ slot, lane }: { readonly slot: number; readonly lane: number }, family: Family, now: number): void {
    this.#record.passed(slot, lane, now)
    this.#passedAt[family] = now
    if (isBad(this.#slots.verdict(slot, 'pods'))) this.#judge(slot, now)
  }

  #answered(
    { slot, lane, sent, size }: Extract<ReturnType<typeof readReceived>, { kind: 'answer' }>,
    family: Family,
    arrivedAt: number
  ): void {
    const [slots, record] = [this.#slots, this.#record]
    if (lane === 0 && size > SMALL_PACKET) {
      if (this.#sizes.answered(slot, size)) this.#isDirty = true
      return
    }
    const ms = Math.max(0, arrivedAt - sent)
    record.answered(slot, lane, this.#tenths(sent), Math.round(ms * 1_000))
    if (lane === 0) this.#deps.measured?.(ms / 1_000)
    if (LANES[lane]?.way === 'pods') this.#answeredAt[family] = this.#tenths()
    const way = LANES[lane]?.way
    if (way !== undefined && slots.verdict(slot, way) !== 'whole') this.#judge(slot, this.#tenths())
    // No turn is needed to find out that nothing is missing.
    if (slots.isWaiting(slot) && record.isAnswered(slot)) this.#rest(slot, false)
  }

  #heard(heard: Extract<ReturnType<typeof readReceived>, { kind: 'heard' }>, family: Family, now: number): void {
    const [slots, record] = [this.#slots, this.#record]
    const slot = record.slotOf(heard.sender)
    const way = LANES[heard.lane]?.way
    if (slot === undefined || way === undefined || !this.#leases.sends(slots.key(slot), family, way, heard.source))
      return
    record.heard(slot, heard.lane, heard.heardAgo, now)
    // A pod's packet to a node's address may come with that of its own node, so no plain route is decided
    // by it; at worst the direction of a loss is wrong.
    if (way !== 'nodes') slots.setPlainThere(slot, heard.isPlain, heard.isPlainRefused)
    if (way === 'plain') this.#deps.plainHeard?.(slots.key(slot) ?? '')
    // It misses our answers: what we send tells it the direction, and it tells us.
    if (heard.isTrouble && !slots.isWaiting(slot) && now - slots.askedAt(slot) >= ASKED_BACK) {
      slots.setDue(slot, now)
      this.#turns.within(TICK)
    }
    if (isBad(slots.verdict(slot, 'pods'))) this.#judge(slot, now)
  }

  #judge(slot: number, now: number): void {
    for (const way of WAYS) {
      const [before, verdict] = [this.#slots.verdict(slot, way), this.#verdict(slot, way, now)]
      if (before === verdict) continue
      if (way === 'pods') this.#lost += Number(isBad(verdict)) - Number(isBad(before))
      this.#slots.setVerdict(slot, way, verdict, now)
      this.#isDirty = true
    }
  }

  /** A path that was never answered counts as lost only where something must answer by now. */
  #verdict(slot: number, way: Way, now: number): Verdict {
    const { verdict } = this.#record.judge(slot, way)
    if (!isBad(verdict) || this.#record.answeredAt(slot, way) > 0) return verdict
    if (now < this.#slots.graceEnd(slot)) return 'not-asked'
    const isWhole = this.#slots.verdict(slot, 'pods') === 'whole'
    // Many networks drop ICMP between node addresses; pods do not depend on it.
    if (way === 'nodes' && isWhole) return 'not-asked'
    // A flanneld without pods has no address in its subnet.
    const mayLack = this.#deps.place()?.backend.heldByAll === false && this.#record.heardAt(slot) === 0
    return way === 'pods' && mayLack ? 'not-asked' : verdict
  }

  /** Asks by the plain route as well, or no longer. */
  tryPlain(key: string, isTried: boolean): void {
    const slot = this.#record.slotOf(digestOf(key, 4))
    if (slot === undefined) return
    if (!isTried) {
      this.#plain.delete(slot)
      this.#record.forgetPlain(slot)
    } else {
      this.#plain.add(slot)
      this.#record.resetAsked(slot, 'plain')
      this.#slots.rest(slot)
      this.#slots.setDue(slot, this.#tenths())
      this.#turns.within(TICK)
    }
    this.#judge(slot, this.#tenths())
  }

  #forget(slot: number): void {
    this.#plain.delete(slot)
    if (isBad(this.#slots.verdict(slot, 'pods'))) this.#lost--
    this.#refusals.forget(slot)
    this.#sizes.forget(slot)
    this.#isDirty = true
  }

  /** What is known of a way; `undefined`: the lease is not used, or does not have this family. */
  look(key: string, family: Family, way: Way): Look | undefined {
    const slot = this.#record.slotOf(digestOf(key, family))
    return slot === undefined ? undefined : this.lookAt(slot, way)
  }

  /** The slots of this family by lease key, for a look at all of them. */
  slotsOf(family: Family): ReadonlyMap<string, number> {
    return this.#slots.ofFamily(family)
  }

  lookAt(slot: number, way: Way): Look {
    const family = this.#slots.family(slot)
    const refused = this.#refusals.of(slot, way)
    const closed = this.#sockets.reason(way, family)
    return {
      ...lookOf(slot, way, { slots: this.#slots, record: this.#record, now: this.#tenths() }),
      ...(refused !== undefined && { refused }),
      ...(closed !== undefined && { closed }),
      dropsHere: this.#passedAt[family] > this.#answeredAt[family] + ASKED_BACK
    }
  }

  /** Calls for each way that is asked of each peer. */
  forEach(callback: (key: string, family: Family, way: Way, verdict: Verdict) => void): void {
    this.#slots.forEach((key, slot) => {
      for (const way of ['pods', 'nodes'] as const)
        callback(key, this.#slots.family(slot), way, this.#slots.verdict(slot, way))
    })
  }

  /** Bytes of the largest packet that passes on a way that loses larger ones; `undefined`: not known. */
  carried(key: string, family: Family): number | undefined {
    const slot = this.#record.slotOf(digestOf(key, family))
    return slot === undefined ? undefined : this.#sizes.of(slot)
  }

  /** The route by which packets to the pods of this lease's node leave; `undefined`: the lease is not used. */
  routeTo(key: string, family: Family): Route | undefined {
    return this.#leases.routeTo(key, family)
  }
}
