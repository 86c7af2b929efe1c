// Orders acknowledgements and notifications, which arrive on different sockets; where the order can't be known, waits
// ECHO ms.
import type { Change } from '../state/difference.ts'
import type { Observation } from '../state/kernel.ts'
import { isAnnounced, type KernelObject, type Key, keyOf, sameObject } from '../state/object.ts'
import { Recent } from './recent.ts'

/** Milliseconds after which a notification that is on its way has arrived. */
export const ECHO = 50
/**
 * Milliseconds for which acknowledgements are remembered at least: a dump that was complete before them must not undo
 * them.
 */
const REMEMBERED = 5_000

export type Clock = {
  /** Milliseconds of the monotonic clock. */
  readonly now: () => number
  /** Calls `work` once, after so many milliseconds. Need not keep the process alive. */
  readonly after: (milliseconds: number, work: () => void) => void
}

/**
 * What a notification or a dump said of a key while a change of ours was in flight; `undefined`: the object does not
 * exist.
 */
type Observed = { readonly object: KernelObject | undefined }
type Acknowledged = Observed & { readonly at: number }
type Dump = Pick<Extract<Observation, { kind: 'everything' }>, 'state' | 'at' | 'unannouncedAt'>

export class AckOrder {
  readonly #clock: Clock
  readonly #replay: (key: Key, object: KernelObject | undefined) => void
  readonly #inFlight = new Map<Key, Observed>()
  readonly #acknowledged: Recent<Acknowledged>
  /** Observations that disagree with a later acknowledgement; either may be the newer one. */
  #undecided: [Key, Observed][] = []

  /** `replay` gets an observation again that turned out to be newer than the acknowledgement it disagrees with. */
  constructor(clock: Clock, replay: (key: Key, object: KernelObject | undefined) => void) {
    this.#clock = clock
    this.#acknowledged = new Recent((forget) => clock.after(REMEMBERED, forget))
    this.#replay = replay
  }

  /** A notification arrived. While a change of ours is in flight, it may describe the state before that change. */
  notified(key: Key, object: KernelObject | undefined, isInFlight: boolean): void {
    if (isInFlight) this.#inFlight.set(key, { object })
    else this.#inFlight.delete(key)
  }

  /**
   * A dump arrived. Returns what was acknowledged since it was complete; that counts until nothing has contradicted the
   * dump for ECHO ms, and for good where nothing ever would (`isAnnounced`).
   */
  dumped({ state, at, unannouncedAt }: Dump, inFlight: Iterable<Key>): ReadonlyMap<Key, KernelObject | undefined> {
    this.#inFlight.clear()
    for (const key of inFlight) if (isAnnounced(key)) this.#inFlight.set(key, { object: state.get(key) })
    const since = new Map<Key, KernelObject | undefined>()
    for (const [key, known] of this.#acknowledged) {
      const announced = isAnnounced(key)
      if (known.at < (announced ? at : unannouncedAt)) continue
      since.set(key, known.object)
      if (announced) this.#compare(key, known.object, { object: state.get(key) })
    }
    this.#acknowledged.clear()
    return since
  }

  /** The kernel made this change; returns the object as it is now. */
  acknowledged(change: Change): KernelObject | undefined {
    const key = keyOf(change.object)
    const object = change.do === 'remove' ? undefined : merged(change)
    this.#acknowledged.set(key, { object, at: this.#clock.now() })
    const observed = this.#inFlight.get(key)
    if (observed !== undefined) this.#compare(key, change.do === 'remove' ? undefined : change.object, observed)
    return object
  }

  /**
   * An observation that disagrees with our change describes the state before it, and a notification of the change
   * follows; or another program changed the object again before we read the acknowledgement. If nothing follows within
   * ECHO ms, it is the latter.
   */
  #compare(key: Key, ours: KernelObject | undefined, observed: Observed): void {
    const agrees =
      ours === undefined ? observed.object === undefined : observed.object && sameObject(ours, observed.object)
    if (agrees) {
      this.#inFlight.delete(key)
      return
    }
    this.#inFlight.set(key, observed)
    this.#undecided.push([key, observed])
    if (this.#undecided.length === 1) this.#clock.after(ECHO, () => this.#decide())
  }

  /** Whether the last that the kernel acknowledged for this key, within seconds, is our removal. */
  hasRemoved(key: Key): boolean {
    const last = this.#acknowledged.get(key)
    return last !== undefined && last.object === undefined
  }

  #decide(): void {
    for (const [key, observed] of this.#undecided.splice(0)) {
      if (this.#inFlight.get(key) !== observed) continue
      this.#inFlight.delete(key)
      this.#replay(key, observed.object)
    }
  }
}

/** The object after a put: the fields that were set, and those it had before. */
const merged = ({ object, instead }: Change): KernelObject =>
  instead === undefined ? object : ({ ...instead, ...object } as KernelObject)
