// Changes that the kernel has refused: when each is retried, and which refusals are reported.
import { reasonOf, WeftError } from '../base/error.ts'
import type { Log } from '../base/log.ts'
import type { Change } from '../state/difference.ts'
import type { Key } from '../state/object.ts'
import { textOf } from '../state/text.ts'

/** Milliseconds before a refused object is retried: doubled each time, up to the second value. */
const RETRY = { first: 250, most: 30_000 } as const
/**
 * Milliseconds for which an object must have been refused: less may be a race, when a device was deleted and its
 * objects' notifications came before its own.
 */
const REPORTED_AFTER = 200

type Refusal = {
  readonly error: string
  readonly cure: string | undefined
  readonly since: number
  readonly isReported: boolean
  readonly pause: number
  readonly until: number
}

export type RetriesDeps = {
  readonly log: Log
  /** Milliseconds of the monotonic clock. */
  readonly now: () => number
  /**
   * Called with the errors of all objects that the kernel keeps refusing and the first one's cure; with an empty list
   * when there are none.
   */
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

  /** Milliseconds for which the object has to wait; 0 or less when it may be retried. */
  left(key: Key): number {
    return (this.#refusals.get(key)?.until ?? 0) - this.#deps.now()
  }

  /** Records a refusal; returns the milliseconds until the retry. */
  add(key: Key, change: Change, error: Error): number {
    const before = this.#refusals.get(key)
    const pause = before === undefined ? RETRY.first : Math.min(before.pause * 2, RETRY.most)
    const now = this.#deps.now()
    const since = before?.since ?? now
    const isReported = now - since >= REPORTED_AFTER
    const text = `${change.do} ${textOf(change.object)}: ${reasonOf(error)}`
    const cure = error instanceof WeftError ? error.cure : undefined
    this.#refusals.set(key, { error: text, cure, since, isReported, pause, until: now + pause })
    const fields = { object: textOf(change.object), because: change.object.because, err: error }
    if (!isReported) this.#deps.log.debug(fields, 'the kernel refused a change; it will be retried')
    else if (before?.isReported !== true || before.error !== text)
      this.#deps.log.warn(fields, 'the kernel refused a change')
    return pause
  }

  /** Something about the object's device has changed: it is retried at once. */
  allow(key: Key): void {
    const before = this.#refusals.get(key)
    if (before !== undefined) this.#refusals.set(key, { ...before, pause: RETRY.first, until: 0 })
  }

  /** These objects are as desired, or no longer desired. */
  drop(keys: Iterable<Key>): void {
    for (const key of keys) this.#refusals.delete(key)
  }

  /** The same; what is reported changes with it. */
  clear(keys: readonly Key[]): void {
    if (!keys.some((key) => this.#refusals.has(key))) return
    this.drop(keys)
    this.report()
  }

  report(): void {
    const reported = [...this.#refusals.values()].filter(({ isReported }) => isReported)
    this.#deps.refused(
      reported.map(({ error }) => error),
      reported[0]?.cure
    )
  }
}
