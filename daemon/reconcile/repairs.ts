// Decides what becomes of keys whose objects may differ from the desired state: repaired now, compared again later
// because notifications of our own change may be on their way, or paused because another program keeps undoing repairs.
import { setImmediate as turn } from 'node:timers/promises'
import type { Log } from '../base/log.ts'
import type { Change } from '../state/difference.ts'
import type { Kernel, Sender } from '../state/kernel.ts'
import { type Key, keyOf } from '../state/object.ts'
import { ECHO } from './ack-order.ts'
import { Drift, type DriftReport } from './drift.ts'
import { Recent } from './recent.ts'
import { afterArrivals, Requeue } from './requeue.ts'
import type { Retries } from './retries.ts'

/**
 * Objects compared in one turn of the event loop: a few milliseconds. A check of a large cluster must not delay a pod
 * or a lease.
 */
const COMPARED_TOGETHER = 1_000

export type RepairsDeps = {
  readonly kernel: Pick<Kernel, 'exists' | 'indexOf'>
  readonly log: Log
  /** Milliseconds of the monotonic clock. */
  readonly now: () => number
  readonly refusals: Retries
  /** What differs of these keys, as far as weftd may change it. */
  readonly divergences: (keys: readonly Key[]) => readonly Change[]
  /** Whether a change of ours for this key has not been acknowledged yet. */
  readonly isInFlight: (key: Key) => boolean
  /** Applies what differs of these keys. */
  readonly sync: (keys: readonly Key[]) => Promise<unknown>
}

export class Repairs {
  readonly #deps: RepairsDeps
  readonly #drift: Drift
  readonly #requeue: Requeue
  /**
   * Links that we have just changed, or made anew with what is on them. Creating one takes several steps, each with a
   * notification without a sender, which are read after the acknowledgement: for ECHO ms, and until what had arrived by
   * then is compared, what is incomplete or gone is not taken for another program's change.
   */
  readonly #touched = new Recent<true>((forget) => {
    // What arrived is observed by then; it is compared one turn later (schedule).
    afterArrivals(ECHO, () => setImmediate(forget)).unref()
  })
  #dirty = new Map<Key, Sender | undefined>()
  #isScheduled = false

  constructor(deps: RepairsDeps) {
    this.#deps = deps
    this.#drift = new Drift(deps.now)
    this.#requeue = new Requeue(deps.now, (keys) => this.schedule(keys, undefined))
  }

  /** Collects the keys of one turn of the event loop, to compare them in one batch. */
  schedule(keys: Iterable<Key>, by: Sender | undefined): void {
    for (const key of keys) this.#dirty.set(key, by ?? this.#dirty.get(key))
    if (this.#isScheduled) return
    this.#isScheduled = true
    // Not a microtask: each observation takes several of them, and a flushed table must be restored in one batch, its
    // maps before the rules that use them.
    setImmediate(() => {
      this.#isScheduled = false
      const dirty = this.#dirty
      this.#dirty = new Map()
      this.#repair(dirty).catch((error) => this.#deps.log.error({ err: error }, 'a repair failed'))
    })
  }

  /** Compares this key after so many milliseconds. */
  later(key: Key, pause: number): void {
    this.#requeue.add(key, pause)
  }

  /** Our change of a link, or of what is made anew with it, is sent or acknowledged. */
  touch(key: Key): void {
    this.#touched.set(key, true)
  }

  /** The kernel has made a change; returns a report if that repaired what another program did. */
  made(change: Change, isUnchanged: boolean): DriftReport | undefined {
    const key = keyOf(change.object)
    if (!isUnchanged) return this.#drift.repaired(key, change)
    this.#drift.settled(key)
    return undefined
  }

  /** The kernel has acknowledged or refused a change. */
  answered({ object }: Change): void {
    const key = keyOf(object)
    if (object.kind === 'link' || object.kind === 'vlans' || this.#touched.has(key)) this.touch(key)
  }

  /** Nothing is compared any more. */
  end(): void {
    this.#requeue.end()
  }

  async #repair(dirty: ReadonlyMap<Key, Sender | undefined>): Promise<void> {
    const { refusals, isInFlight } = this.#deps
    const due: Key[] = []
    const right = new Set([...dirty.keys()].filter((key) => refusals.has(key)))
    for await (const change of this.#divergences([...dirty.keys()])) {
      const key = keyOf(change.object)
      right.delete(key)
      const by = dirty.get(key)
      const foreign = by !== undefined && !by.self
      const isOurs = isInFlight(key) || (!foreign && this.#touched.has(key))
      if (isOurs || this.#isLate(change)) this.#requeue.add(key, ECHO)
      else if (refusals.has(key)) due.push(key)
      else {
        const pause = this.#drift.seen(key, change, by)
        if (pause === 0) due.push(key)
        else this.#requeue.add(key, pause)
      }
    }
    refusals.clear([...right])
    await this.#deps.sync(due)
  }

  /** The notification was of an earlier link of this name: the one that is there now has its own on the way. */
  #isLate({ object, instead }: Change): boolean {
    if (object.kind !== 'link') return false
    if (instead?.kind !== 'link') return this.#deps.kernel.exists(object.name)
    const index = this.#deps.kernel.indexOf(object.name)
    return index !== undefined && instead.index !== undefined && index !== instead.index
  }

  async *#divergences(keys: readonly Key[]): AsyncGenerator<Change, void> {
    for (let at = 0; at < keys.length; at += COMPARED_TOGETHER) {
      if (at > 0) await turn()
      for (const change of this.#deps.divergences(keys.slice(at, at + COMPARED_TOGETHER))) yield change
    }
  }
}
