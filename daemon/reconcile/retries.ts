// What the kernel has refused: when each object is tried again, and which refusals are worth telling.
import { reasonOf, WeftError } from '../base/error.ts'
import type { Log } from '../base/log.ts'
import type { Change } from '../state/difference.ts'
import type { Key } from '../state/object.ts'
import { textOf } from '../state/text.ts'

/** Milliseconds before a refused object is tried again: doubled each time, up to the second value. */
const RETRY = { first: 250, most: 30_000 } as const
/** Milliseconds that an object must have been refused for: less may be a race, when a device went and the news of what hung on it came before its own. */
const TOLD_AFTER = 200

type Refusal = {
  readonly error: string
  readonly cure: string | undefined
  readonly since: number
  readonly isTold: boolean
  readonly pause: number
  readonly until: number
}

export type RetriesDeps = {
  readonly log: Log
  /** Milliseconds of the monotonic clock. */
  readonly now: () => number
  /** Told of every object the kernel keeps refusing, with the cure of the first, and, with an empty list, of none. */
  readonly refused: (errors: readonly string[], cure?: string) => void
}

export class Retries {
  readonly #deps: RetriesDeps
  readonly #refusals = new Map<Key, Refusal>()

  constructor(deps: RetriesDeps) {
    this.#deps = deps
  }

  keys(): Iterable<Key> {
    return this.#refusals.keys()
  }

  has(key: Key): boolean {
    return this.#refusals.has(key)
  }

  /** Milliseconds for which the object has to wait; not above 0 when it may be tried. */
  left(key: Key): number {
    return (this.#refusals.get(key)?.until ?? 0) - this.#deps.now()
  }

  /** Notes a refusal; returns the milliseconds until the next try. */
  add(key: Key, change: Change, error: Error): number {
    const before = this.#refusals.get(key)
    const pause = before === undefined ? RETRY.first : Math.min(before.pause * 2, RETRY.most)
    const now = this.#deps.now()
    const since = before?.since ?? now
    const isTold = now - since >= TOLD_AFTER
    const text = `${change.do} ${textOf(change.object)}: ${reasonOf(error)}`
    const cure = error instanceof WeftError ? error.cure : undefined
    this.#refusals.set(key, { error: text, cure, since, isTold, pause, until: now + pause })
    const fields = { object: textOf(change.object), because: change.object.because, err: error }
    if (!isTold) this.#deps.log.debug(fields, 'the kernel refused a change; it is tried again')
    else if (before?.isTold !== true || before.error !== text)
      this.#deps.log.warn(fields, 'the kernel refused a change')
    return pause
  }

  /** What has changed around the object may let it pass: it is tried at once. */
  allow(key: Key): void {
    const before = this.#refusals.get(key)
    if (before !== undefined) this.#refusals.set(key, { ...before, pause: RETRY.first, until: 0 })
  }

  /** These objects are as they should be, or nobody wants them any more. */
  drop(keys: Iterable<Key>): void {
    for (const key of keys) this.#refusals.delete(key)
  }

  tell(): void {
    const told = [...this.#refusals.values()].filter(({ isTold }) => isTold)
    this.#deps.refused(
      told.map(({ error }) => error),
      told[0]?.cure
    )
  }
}
