// The reconciliation loop: compares desired and observed state and applies the difference. The only caller of
// kernel.apply for the host.
import type { Log } from '../base/log.ts'
import { type Change, difference, put } from '../state/difference.ts'
import type { Kernel, Observation, Outcome } from '../state/kernel.ts'
import { without } from '../state/merge.ts'
import {
  deviceOf,
  isSetting,
  type KernelObject,
  type Key,
  keyOf,
  type Link,
  linkNamed,
  type State
} from '../state/object.ts'
import { onRemadeLinks, order } from '../state/order.ts'
import { mayRemove, type Recognises, staysWhenUnwanted } from '../state/ownership.ts'
import { AckOrder } from './ack-order.ts'
import { logChanges } from './change-log.ts'
import { Desired } from './desired.ts'
import type { DriftReport } from './drift.ts'
import { Repairs } from './repairs.ts'
import { afterArrivals } from './requeue.ts'
import { Retries } from './retries.ts'

/** Milliseconds between two complete checks, in case a notification is missing. */
const CHECK_EVERY = 60_000
/** Kinds of which listeners get the observations. */
const LISTENED: ReadonlySet<KernelObject['kind']> = new Set(['link', 'address', 'route', 'sysctl'])

export type ReconcilerDeps = {
  readonly kernel: Kernel
  readonly log: Log
  /** Milliseconds of the monotonic clock. */
  readonly now: () => number
  /**
   * Called with the errors of all objects that the kernel keeps refusing and the first one's cure; with an empty list
   * when there are none.
   */
  readonly refused: (errors: readonly string[], cure?: string) => void
  readonly drift: (report: DriftReport) => void
  /** Which devices are a backend's. */
  readonly recognises: Recognises
  /**
   * Objects to observe besides Weft's and desired ones: links and addresses for the choice of interface, routes into
   * the network.
   */
  readonly interest: (object: KernelObject) => boolean
}

export class Reconciler {
  readonly #deps: ReconcilerDeps
  readonly #desired = new Desired()
  #observed = new Map<Key, KernelObject>()
  readonly #inFlight = new Map<Key, Promise<unknown>>()
  readonly #refusals: Retries
  readonly #ackOrder: AckOrder
  readonly #repairs: Repairs
  readonly #firstDump = Promise.withResolvers<void>()
  readonly #listeners = new Set<(changed: readonly KernelObject[] | 'everything') => void>()
  #trusted = false

  constructor(deps: ReconcilerDeps) {
    this.#deps = deps
    this.#refusals = new Retries(deps)
    this.#repairs = new Repairs({
      ...deps,
      refusals: this.#refusals,
      divergences: (keys) => this.#allowed(keys, false),
      isInFlight: (key) => this.#inFlight.has(key),
      sync: (keys) => this.#sync(keys)
    })
    this.#ackOrder = new AckOrder(
      { now: deps.now, after: (milliseconds, work) => void afterArrivals(milliseconds, work).unref() },
      (key, object) => this.#observe({ kind: 'changed', key, object, at: deps.now() })
    )
  }

  get desired(): State {
    return this.#desired.state
  }

  get observed(): State {
    return this.#observed
  }

  /** What `owner` wants on the host. */
  wantedBy(owner: string): readonly KernelObject[] {
    return this.#desired.wantedBy(owner)
  }

  get trusts(): boolean {
    return this.#trusted
  }

  /** From now on objects of Weft that are not desired are removed. Called once the store has listed everything. */
  async trust(): Promise<void> {
    if (this.#trusted) return
    this.#trusted = true
    await this.#sync([...this.#observed.keys()])
  }

  /** Calls `listener` after observations of links, addresses, routes or sysctls: for facts about the node. */
  onObserved(listener: (changed: readonly KernelObject[] | 'everything') => void): void {
    this.#listeners.add(listener)
  }

  /** Observes until the signal, and repairs what differs from the desired state. */
  async run(signal: AbortSignal): Promise<void> {
    const check = setInterval(() => this.#deps.kernel.recheck('slow check'), CHECK_EVERY)
    try {
      const observations = this.#deps.kernel.observe(
        (object) => this.#interest(object),
        signal,
        (key) => this.#desired.state.get(key)
      )
      for await (const observation of observations) this.#observe(observation)
    } finally {
      clearInterval(check)
      this.#repairs.end()
    }
  }

  /** Resolves after the first dump. */
  get observing(): Promise<void> {
    return this.#firstDump.promise
  }

  /**
   * Replaces what `owner` wants on the host and resolves with the kernel's outcomes. `alsoKeys` are compared too, to
   * remove what an earlier process created for this owner. An object of several owners stays until the last no longer
   * wants it; what this one wants otherwise than an earlier one is an outcome with the error WANTED_OTHERWISE.
   */
  want(owner: string, objects: readonly KernelObject[], alsoKeys: Iterable<Key> = []): Promise<readonly Outcome[]> {
    return this.wantAll([[owner, objects]], alsoKeys)
  }

  /** `want` for many owners in one batch. */
  async wantAll(
    entries: Iterable<readonly [string, readonly KernelObject[]]>,
    alsoKeys: Iterable<Key> = []
  ): Promise<readonly Outcome[]> {
    const keys = new Set<Key>(alsoKeys)
    const refused: Outcome[] = []
    for (const [owner, objects] of entries) {
      for (const key of this.#desired.replace(owner, objects)) keys.add(key)
      for (const { object, error } of this.#desired.refusedTo(owner)) refused.push({ change: put(object), error })
    }
    const unwanted = [...keys].filter((key) => !this.#desired.state.has(key))
    // A pod that failed is its caller's error, not this node's condition.
    this.#refusals.clear(unwanted)
    // Nothing announces what becomes of a setting: once it is wanted again it is read again.
    for (const key of unwanted) {
      const object = this.#observed.get(key)
      if (object !== undefined && isSetting(object)) this.#observed.delete(key)
    }
    await this.#firstDump.promise
    return [...(await this.#sync([...keys], true)), ...refused]
  }

  /** Replaces what `owner` wants by what exists already: nothing is compared until the next observation. */
  keep(owner: string, objects: readonly KernelObject[]): void {
    this.#desired.replace(owner, objects)
  }

  /** Removes objects that otherwise stay for others that may depend on them; `evenDesired` ends what wants them. */
  async discard(objects: readonly KernelObject[], evenDesired = false): Promise<readonly Outcome[]> {
    const keys = objects.map(keyOf)
    if (evenDesired) this.#desired.forget(objects)
    for (let busy = this.#busy(keys); busy.size > 0; busy = this.#busy(keys)) await Promise.allSettled(busy)
    const unwanted = objects.filter((object) => !this.#desired.state.has(keyOf(object)))
    return this.#apply(unwanted.map((object): Change => ({ do: 'remove', object })))
  }

  /** Sets these fields of an existing link although the kernel shows them so: having been set is a state of its own. */
  async impose(link: Link): Promise<readonly Outcome[]> {
    const keys = [keyOf(link)]
    for (let busy = this.#busy(keys); busy.size > 0; busy = this.#busy(keys)) await Promise.allSettled(busy)
    const have = linkNamed(this.#observed, link.name)
    return have === undefined ? [] : this.#apply([{ do: 'put', object: link, instead: without(have, link) }])
  }

  /**
   * Removes all desired objects and what else is owned by Weft, except what `stays` accepts: Weft leaves this host.
   * `removeTables` follows.
   */
  leave(stays: (object: KernelObject) => boolean): Promise<readonly Outcome[]> {
    const kept = [...this.#desired.state.values()].filter(stays)
    const ours = [...this.#observed].flatMap(([key, object]) =>
      this.#mayRemove(object) && !stays(object) ? [key] : []
    )
    const owners = [...this.#desired.owners()].map((owner): readonly [string, readonly KernelObject[]] => [owner, []])
    return this.wantAll([['what stays', kept], ...owners], ours)
  }

  /** Removes Weft's nftables tables, as the last step; resolves with the kernel's complaints. */
  removeTables(): Promise<readonly string[]> {
    return this.#deps.kernel.removeTables()
  }

  /** All changes that would be made now without pauses: for `weftctl diff`. */
  differences(): readonly Change[] {
    return order(
      difference(this.#desired.state, this.#observed).filter(
        (change) => change.do === 'put' || this.#mayRemove(change.object)
      )
    )
  }

  #mayRemove(object: KernelObject): boolean {
    return mayRemove(object, this.#deps.recognises, (device) => this.#desired.state.has(`link ${device}` as Key))
  }

  #interest(object: KernelObject): boolean {
    return this.#mayRemove(object) || this.#desired.state.has(keyOf(object)) || this.#deps.interest(object)
  }

  #observe(observation: Observation): void {
    if (observation.kind === 'everything') {
      this.#observed = new Map(observation.state)
      const since = this.#ackOrder.dumped(observation, this.#inFlight.keys())
      for (const [key, object] of since) this.#setObserved(key, object)
      for (const key of this.#refusals.keys()) this.#refusals.allow(key)
      for (const listener of this.#listeners) listener('everything')
      this.#firstDump.resolve()
      this.#repairs.schedule([...new Set([...this.#desired.state.keys(), ...this.#observed.keys()])], undefined)
      return
    }
    const { key, object, by } = observation
    if (this.#isOfRemovedLink(key, object)) return
    const before = this.#observed.get(key)
    this.#ackOrder.notified(key, object, this.#inFlight.has(key))
    this.#setObserved(key, object)
    const subject = object ?? before
    if (subject !== undefined && LISTENED.has(subject.kind)) {
      if (subject.kind === 'link' || subject.kind === 'address')
        this.#resetBackoff(subject.kind === 'link' ? subject.name : deviceOf(subject))
      for (const listener of this.#listeners) listener([subject])
    }
    this.#repairs.schedule([key], by)
  }

  /**
   * Notifications of a link arrive after its removal was acknowledged, which is when it leaves the kernel's lists: the
   * next ADD must not find it.
   */
  #isOfRemovedLink(key: Key, object: KernelObject | undefined): boolean {
    return (
      object?.kind === 'link' && this.#ackOrder.hasRemoved(key) && this.#deps.kernel.indexOf(object.name) === undefined
    )
  }

  /** The device has changed: refused objects that depend on it are retried. */
  #resetBackoff(device: string | undefined): void {
    for (const key of this.#refusals.keys()) {
      const object = this.#desired.state.get(key)
      if (object !== undefined && (deviceOf(object) === device || object.kind === 'link')) {
        this.#refusals.allow(key)
        this.#repairs.schedule([key], undefined)
      }
    }
  }

  #allowed(keys: readonly Key[], requested: boolean): readonly Change[] {
    return difference(this.#desired.state, this.#observed, keys, requested).filter(
      ({ do: what, object }) =>
        what === 'put' ||
        (requested ? !staysWhenUnwanted(object, this.#deps.recognises) : this.#trusted && this.#mayRemove(object))
    )
  }

  /** Applies the difference for these keys, after changes in flight for any of them have been acknowledged. */
  async #sync(keys: readonly Key[], requested = false): Promise<readonly Outcome[]> {
    const all = [...new Set([...keys, ...onRemadeLinks(keys, this.#desired.state, this.#observed)])]
    for (let busy = this.#busy(all); busy.size > 0; busy = this.#busy(all)) await Promise.allSettled(busy)
    const due = all.filter((key) => requested || this.#due(key))
    for (const key of onRemadeLinks(due, this.#desired.state, this.#observed)) {
      this.#observed.delete(key)
      this.#repairs.touch(key)
    }
    return this.#apply(order(this.#allowed(due, requested)))
  }

  /**
   * Changes in flight for any of these keys. When there are none, #apply must follow in the same turn, or two would
   * create one object.
   */
  #busy(keys: readonly Key[]): ReadonlySet<Promise<unknown>> {
    return new Set(keys.flatMap((key) => this.#inFlight.get(key) ?? []))
  }

  async #apply(changes: readonly Change[]): Promise<readonly Outcome[]> {
    if (changes.length === 0) return []
    const applied = this.#deps.kernel.apply(changes)
    for (const { object } of changes) this.#inFlight.set(keyOf(object), applied)
    try {
      const outcomes = await applied
      this.#record(outcomes)
      return outcomes
    } finally {
      for (const { object } of changes) this.#inFlight.delete(keyOf(object))
    }
  }

  /** A refused object is retried after its pause; until then it waits. */
  #due(key: Key): boolean {
    const left = this.#refusals.left(key)
    if (left > 0) this.#repairs.later(key, left)
    return left <= 0
  }

  /** An acknowledgement is an observation too, until a notification says otherwise. */
  #record(outcomes: readonly Outcome[]): void {
    const done: Change[] = []
    for (const { change, error, unchanged } of outcomes) {
      const key = keyOf(change.object)
      this.#repairs.answered(change)
      if (error !== undefined) {
        if (change.do === 'remove' || this.#desired.state.has(key))
          this.#repairs.later(key, this.#refusals.add(key, change, error))
        continue
      }
      this.#refusals.drop([key])
      this.#setObserved(key, this.#ackOrder.acknowledged(change))
      const report = this.#repairs.made(change, unchanged === true)
      if (report !== undefined) this.#deps.drift(report)
      else if (unchanged !== true) done.push(change)
    }
    // The caller need not wait for the log lines.
    if (done.length > 0) setImmediate(() => logChanges(this.#deps.log, done))
    this.#refusals.report()
  }

  #setObserved(key: Key, object: KernelObject | undefined): void {
    const before = this.#observed.get(key)
    if (object === undefined) this.#observed.delete(key)
    else this.#observed.set(key, object)
    const { gone, waiting } = this.#desired.silentChanges(before, object)
    for (const each of gone) this.#observed.delete(each)
    if (gone.length > 0) this.#repairs.schedule(gone, undefined)
    const due = [...waiting, ...this.#desired.followers(before, object)]
    if (due.length > 0)
      this.#sync(due).catch((error) => this.#deps.log.error({ err: error }, 'what waited for a link failed'))
  }
}
