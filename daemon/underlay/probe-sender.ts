// Writes the probes to one peer, one for each lane that is asked, and hands them to the sockets of their ways.
import { type Family, ipBytes } from '../../ipam/address.ts'
import type { Place } from '../node/place.ts'
import { type PathSizes, sizesBelow } from './path-sizes.ts'
import type { endsOf } from './probe-ends.ts'
import type { Refusals } from './probe-look.ts'
import { ProbeMessage } from './probe-message.ts'
import { type Digest, LANES, type Mac, NODE_LANE, POD_LANES, type Probe } from './probe-packet.ts'
import type { ProbeRecord } from './probe-record.ts'
import type { ProbeSlots } from './probe-slots.ts'
import type { ProbeSocket, ProbeSockets } from './probe-sockets.ts'

const ALL_LANES = [...LANES.keys()]
const USUAL_LANES = [...POD_LANES, NODE_LANE]
const LARGE_ALONE = [POD_LANES[1]]
/** Of messages whose refusal says nothing of a lane. */
const NO_TAG = -1

export type ProbeSenderDeps = {
  readonly record: ProbeRecord
  readonly slots: ProbeSlots
  readonly sockets: ProbeSockets
  readonly refusals: Refusals
  readonly sizes: PathSizes
  /** Slots whose plain route is tried. */
  readonly plain: ReadonlySet<number>
  readonly mac: Mac
  readonly mark: number
}

/** What is the same for all probes to a peer. */
export type Asking = {
  readonly ends: NonNullable<ReturnType<typeof endsOf>>
  readonly sender: Digest
  readonly isTrouble: boolean
  readonly isPlain: boolean
  readonly isPlainRefused: boolean
  readonly mtu: Place['mtu']
  /** Milliseconds, and tenths of a second of the record. */
  readonly sent: number
  readonly now: number
}

export class ProbeSender {
  readonly #deps: ProbeSenderDeps
  readonly #message: ProbeMessage

  constructor(deps: ProbeSenderDeps) {
    this.#deps = deps
    this.#message = new ProbeMessage(deps.mac)
  }

  /** Hands all that this peer is asked now to the sockets, which send it when they are flushed. Whether there is any. */
  send(slot: number, { ends, ...asking }: Asking): boolean {
    const { record, slots, sockets, refusals, mark } = this.#deps
    const { now } = asking
    const family: Family = slots.family(slot)
    const of = { ...asking, family, heardAgo: record.heardAgo(slot, now), mark }
    const id = slots.id(slot)
    const podsTo = ipBytes(ends.pods.to)
    let isSent = false
    for (const lane of this.#lanesOf(slot)) {
      const way = LANES[lane]?.way ?? 'pods'
      const socket = sockets.get(way, ends[way === 'nodes' ? way : 'pods'].source, now)
      if (socket === undefined) continue
      const probe: Probe = { ...of, slot: id, lane }
      const to = way === 'nodes' ? ipBytes(ends.nodes.to) : podsTo
      record.asked(slot, lane, now)
      const tag = refusals.tagOf(slot, lane)
      refusals.sends(tag)
      socket.send(to, this.#message.write(probe), tag)
      isSent = true
      if (lane === 0) this.#search(slot, probe, socket, { to, now })
    }
    return isSent
  }

  /** What is asked of a peer now. */
  #lanesOf(slot: number): readonly number[] {
    if (this.#deps.record.asksLargeAlone(slot)) return LARGE_ALONE
    return this.#deps.plain.has(slot) ? ALL_LANES : USUAL_LANES
  }

  /** Probes of other sizes are heard and answered as small ones, for which they are no loss. */
  #search(
    slot: number,
    probe: Probe,
    socket: ProbeSocket,
    at: { readonly to: Uint8Array; readonly now: number }
  ): void {
    const { slots, sizes } = this.#deps
    if (slots.verdict(slot, 'pods') !== 'large-lost' || !sizes.isDue(slot, at.now)) return
    for (const size of sizesBelow(probe.mtu, probe.family))
      socket.send(at.to, this.#message.write({ ...probe, size }), NO_TAG)
  }
}
