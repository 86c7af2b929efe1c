// Answers and news cross: the kernel acknowledges a change on one socket and tells of it, and of what others did meanwhile, on another. Which came last is
// decided here, and where it can't be known, found out by waiting.
import type { Change } from '../state/difference.ts'
import { type KernelObject, type Key, keyOf, type State, sameObject } from '../state/object.ts'

/** Milliseconds after which a notification that is on its way has come. */
export const ECHO = 50
/** Milliseconds for which acknowledgements are remembered at least: a dump that was complete before must not undo them. */
const REMEMBERED = 5_000

/** What was seen of a key while a change of ours was under way; `undefined`: that it is not there. */
type Seen = { readonly object: KernelObject | undefined }
type Acknowledged = Seen & { readonly at: number }

export class AckOrder {
  readonly #now: () => number
  readonly #again: (key: Key, object: KernelObject | undefined) => void
  readonly #during = new Map<Key, Seen>()
  /** Two generations, so that none need be looked for to be forgotten. */
  #acknowledged: readonly [recent: Map<Key, Acknowledged>, older: Map<Key, Acknowledged>] = [new Map(), new Map()]
  #forgetting: NodeJS.Timeout | undefined
  /** Observations that disagree with a later acknowledgement and have not been overtaken. */
  #doubted: [Key, Seen][] = []

  /** `now` in milliseconds of the monotonic clock. `again` hears an observation once more that turned out to be the last word. */
  constructor(now: () => number, again: (key: Key, object: KernelObject | undefined) => void) {
    this.#now = now
    this.#again = again
  }

  /** A notification came. While a change of ours is under way, it may be of before it. */
  heard(key: Key, object: KernelObject | undefined, isInFlight: boolean): void {
    if (isInFlight) this.#during.set(key, { object })
    else this.#during.delete(key)
  }

  /**
   * A dump came that holds all that was acknowledged before `at`. Returns what was acknowledged since; it counts until nothing has contradicted the
   * dump for a while.
   */
  dumped(state: State, at: number, inFlight: Iterable<Key>): ReadonlyMap<Key, KernelObject | undefined> {
    this.#during.clear()
    for (const key of inFlight) this.#during.set(key, { object: state.get(key) })
    const since = new Map<Key, KernelObject | undefined>()
    for (const generation of this.#acknowledged.toReversed()) {
      for (const [key, known] of generation) {
        if (known.at < at) continue
        since.set(key, known.object)
        this.#doubt(key, known.object, { object: state.get(key) })
      }
    }
    this.#acknowledged = [new Map(), new Map()]
    return since
  }

  /** The kernel made this change; returns what it holds now. */
  acknowledged(change: Change): KernelObject | undefined {
    const key = keyOf(change.object)
    const object = change.do === 'remove' ? undefined : merged(change)
    const at = this.#now()
    this.#acknowledged[0].set(key, { object, at })
    this.#forgetting ??= setInterval(() => this.#forget(), REMEMBERED).unref()
    const seen = this.#during.get(key)
    if (seen !== undefined) this.#doubt(key, change.do === 'remove' ? undefined : change.object, seen)
    return object
  }

  /**
   * What was seen may be of before our change, and a notification of that follows; or somebody was quicker than the acknowledgement, and it is the last
   * word. When nothing has followed after a while, it is.
   */
  #doubt(key: Key, ours: KernelObject | undefined, seen: Seen): void {
    const agrees = ours === undefined ? seen.object === undefined : seen.object && sameObject(ours, seen.object)
    if (agrees) {
      this.#during.delete(key)
      return
    }
    this.#during.set(key, seen)
    this.#doubted.push([key, seen])
    if (this.#doubted.length === 1) setTimeout(() => this.#judge(), ECHO).unref()
  }

  #forget(): void {
    const [recent, older] = this.#acknowledged
    this.#acknowledged = [new Map(), recent]
    if (recent.size > 0 || older.size > 0) return
    clearInterval(this.#forgetting)
    this.#forgetting = undefined
  }

  #judge(): void {
    for (const [key, seen] of this.#doubted.splice(0)) {
      if (this.#during.get(key) !== seen) continue
      this.#during.delete(key)
      this.#again(key, seen.object)
    }
  }
}

/** What the kernel holds after a put: what was asked for, and what was there and not asked for. */
const merged = ({ object, instead }: Change): KernelObject =>
  instead === undefined ? object : ({ ...instead, ...object } as KernelObject)
