// What a prober knows of one way, as views and conditions ask for it.
import { type Judgement, WHOLE } from './judge.ts'
import { LANES, type Way } from './probe-packet.ts'
import type { ProbeRecord } from './probe-record.ts'
import { interval } from './probe-schedule.ts'
import type { ProbeSlots } from './probe-slots.ts'

/** Tenths of a second for which a peer's probes by the plain route count as proof of that direction. */
const PROOF = 600
/** For so many of its turns to ask this node, what a peer has said of its routes counts. */
const TURNS = 3

/** What is known of a way. */
export type Look = {
  readonly judgement: Judgement
  /** Of the first look that gave this verdict. */
  readonly sinceMsAgo: number
  readonly answeredMsAgo?: number
  readonly roundTripUs?: number
  /** The name of the error when the kernel did not send the last probe. */
  readonly refused?: string
  /** Why there is no socket. */
  readonly closed?: string
  /** The lease is so new that its node may be setting up. */
  readonly isNew: boolean
  /** Whether probes of the peer of both sizes came by this way lately, or must have. */
  readonly isHeardWhole: boolean
  /** Whether a probe of the peer has ever arrived, on any way. */
  readonly isHeard: boolean
  /** This node's own firewall drops answers that have arrived. */
  readonly dropsHere: boolean
}

type Known = { readonly slots: ProbeSlots; readonly record: ProbeRecord; readonly now: number }

/** What the record and the slots know of a way; `now` in tenths of a second, as theirs. */
export function lookOf(slot: number, way: Way, { slots, record, now }: Known): Omit<Look, 'dropsHere'> {
  const ago = (tenths: number) => (now - tenths) * 100
  const answeredAt = record.answeredAt(slot, way)
  const verdict = slots.verdict(slot, way)
  const kept = Math.max(PROOF, TURNS * interval(slots.peers, slots.pair(slot)))
  const isPlainThere = slots.isPlainThere(slot) && record.heardAt(slot) > 0 && now - record.heardAt(slot) <= kept
  return {
    judgement: verdict === 'whole' ? WHOLE : { ...record.judge(slot, way), verdict },
    sinceMsAgo: ago(slots.since(slot, way)),
    ...(answeredAt > 0 && { answeredMsAgo: ago(answeredAt), roundTripUs: record.roundTrip(slot, way) }),
    // Answers of a peer that takes its plain route itself have come by it.
    isHeardWhole: isPlainThere || record.isHeard(slot, way, PROOF, now),
    isNew: now < slots.graceEnd(slot),
    isHeard: record.heardAt(slot) > 0
  }
}

/** Why the kernel refused the last probe, by slot and lane; few, if any. */
export class Refusals {
  readonly #reasons = new Map<number, string>()

  /** By which a socket tells what it could not send. */
  tagOf(slot: number, lane: number): number {
    return slot * LANES.length + lane
  }

  /** It is being sent. */
  sends(tag: number): void {
    if (this.#reasons.size > 0) this.#reasons.delete(tag)
  }

  note(tag: number, reason: string): void {
    if (tag >= 0) this.#reasons.set(tag, reason)
  }

  of(slot: number, way: Way): string | undefined {
    if (this.#reasons.size === 0) return undefined
    const lane = LANES.findIndex((each, at) => each.way === way && this.#reasons.has(this.tagOf(slot, at)))
    return this.#reasons.get(this.tagOf(slot, lane))
  }

  forget(slot: number): void {
    for (const lane of LANES.keys()) this.#reasons.delete(this.tagOf(slot, lane))
  }
}
