// The loop that makes the kernel hold what is desired: the only caller of kernel.apply, for start, lease events, pods and repairs alike.
import { setImmediate as turn } from 'node:timers/promises'
import type { Log } from '../base/log.ts'
import { type Change, difference } from '../state/difference.ts'
import type { Kernel, Observation, Outcome, Sender } from '../state/kernel.ts'
import { deviceOf, type KernelObject, type Key, keyOf, type Link, type State } from '../state/object.ts'
import { order } from '../state/order.ts'
import { mayRemove, type Recognises, staysWhenUnwanted } from '../state/ownership.ts'
import { AckOrder, ECHO } from './ack-order.ts'
import { logChanges } from './change-log.ts'
import { Desired } from './desired.ts'
import { Drift, type DriftReport } from './drift.ts'
import { Requeue } from './requeue.ts'
import { Retries } from './retries.ts'

/** Milliseconds between two complete checks, the net behind the notifications. */
const CHECK_EVERY = 60_000
/** Objects compared in one turn of the event loop: a few milliseconds. A check of a large cluster must not hold up a pod or a lease. */
const COMPARED_TOGETHER = 1_000

export type ReconcilerDeps = {
  readonly kernel: Kernel
  readonly log: Log
  /** Milliseconds of the monotonic clock. */
  readonly now: () => number
  /** Told of every object the kernel keeps refusing, with the cure of the first, and, with an empty list, of none. */
  readonly refused: (errors: readonly string[], cure?: string) => void
  readonly drift: (report: DriftReport) => void
  /** Which devices are a backend's. */
  readonly recognises: Recognises
  /** What else of the host is worth observing, besides what is ours or desired: links and addresses for the choice of interface, routes into the network. */
  readonly interest: (object: KernelObject) => boolean
}

export class Reconciler {
  readonly #deps: ReconcilerDeps
  readonly #desired = new Desired()
  #observed = new Map<Key, KernelObject>()
  readonly #inFlight = new Map<Key, Promise<unknown>>()
  readonly #refusals: Retries
  readonly #ackOrder: AckOrder
  readonly #drift: Drift
  readonly #firstDump = Promise.withResolvers<void>()
  readonly #listeners = new Set<(changed: readonly KernelObject[] | 'everything') => void>()
  /**
   * When a link was last changed by us. Making one takes several steps, each with a notification that names nobody, and they are read after the
   * acknowledgement: for a while a link that looks unfinished is not taken for somebody's doing.
   */
  readonly #linkTouched = new Map<Key, number>()
  #trusted = false
  #dirty = new Map<Key, Sender | undefined>()
  #answering = false
  readonly #later: Requeue

  constructor(deps: ReconcilerDeps) {
    this.#deps = deps
    this.#drift = new Drift(deps.now)
    this.#refusals = new Retries(deps)
    this.#later = new Requeue(deps.now, (keys) => this.#lookAgain(keys))
    this.#ackOrder = new AckOrder(
      { now: deps.now, after: (milliseconds, work) => void setTimeout(work, milliseconds).unref() },
      (key, object) => this.#observe({ kind: 'changed', key, object, at: deps.now() })
    )
  }

  get desired(): State {
    return this.#desired.state
  }

  get observed(): State {
    return this.#observed
  }

  /** What `owner` asks for on the host. */
  wantedBy(owner: string): readonly KernelObject[] {
    return this.#desired.wantedBy(owner)
  }

  get trusts(): boolean {
    return this.#trusted
  }

  /** From now on objects that are ours and that nobody desires are removed. Said once the store has listed everything. */
  async trust(): Promise<void> {
    if (this.#trusted) return
    this.#trusted = true
    await this.#settle([...this.#observed.keys()])
  }

  /** Calls back after observations that concern links, addresses or routes: for facts about the node. */
  onObserved(listener: (changed: readonly KernelObject[] | 'everything') => void): void {
    this.#listeners.add(listener)
  }

  /** Observes until the signal; every observation that disagrees with what is desired is answered. */
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
      this.#later.end()
    }
  }

  /** Resolves when the kernel has been looked at for the first time. */
  get observing(): Promise<void> {
    return this.#firstDump.promise
  }

  /**
   * Replaces what `owner` wants on the host and resolves with what the kernel answered. `alsoKeys` are compared too, so that what an earlier
   * process made for this owner goes as well. What shares a key with another owner stays until the last has gone.
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
    for (const [owner, objects] of entries) for (const key of this.#desired.replace(owner, objects)) keys.add(key)
    this.#settled([...keys].filter((key) => !this.#desired.state.has(key)))
    await this.#firstDump.promise
    return this.#settle([...keys], true)
  }

  /** Replaces what `owner` wants by what it has already: nothing is compared until the kernel says something. */
  keep(owner: string, objects: readonly KernelObject[]): void {
    this.#desired.replace(owner, objects)
  }

  /** Removes what nobody wants, also what would stay because others may stand on it: somebody has decided that it must give way. */
  async discard(objects: readonly KernelObject[]): Promise<readonly Outcome[]> {
    const keys = objects.map(keyOf)
    for (let busy = this.#busy(keys); busy.size > 0; busy = this.#busy(keys)) await Promise.allSettled(busy)
    return this.#apply(
      objects
        .filter((object) => !this.#desired.state.has(keyOf(object)))
        .map((object): Change => ({ do: 'remove', object }))
    )
  }

  /**
   * Removes all desired objects and what else is owned by Weft, nftables tables last, except what `stays` accepts: Weft leaves this host. `complaints` are the
   * kernel's about the tables.
   */
  async leave(
    stays: (object: KernelObject) => boolean
  ): Promise<{ readonly outcomes: readonly Outcome[]; readonly complaints: readonly string[] }> {
    const kept = [...this.#desired.state.values()].filter(stays)
    const ours = [...this.#observed].flatMap(([key, object]) =>
      this.#mayRemove(object) && !stays(object) ? [key] : []
    )
    const owners = [...this.#desired.owners()].map((owner): readonly [string, readonly KernelObject[]] => [owner, []])
    const outcomes = await this.wantAll([['what stays', kept], ...owners], ours)
    return { outcomes, complaints: await this.#deps.kernel.removeTables() }
  }

  /** What is as it should be, or nobody asks for any more, is no refusal: a pod that could not be set up is its own error, not this node's condition. */
  #settled(keys: readonly Key[]): void {
    if (!keys.some((key) => this.#refusals.has(key))) return
    this.#refusals.drop(keys)
    this.#refusals.tell()
  }

  /** What would be done now if nothing were held back: for `weftctl diff`. */
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
      const since = this.#ackOrder.dumped(observation.state, observation.at, this.#inFlight.keys())
      for (const [key, object] of since) this.#know(key, object)
      for (const key of this.#refusals.keys()) this.#refusals.allow(key)
      for (const listener of this.#listeners) listener('everything')
      this.#firstDump.resolve()
      this.#answer([...new Set([...this.#desired.state.keys(), ...this.#observed.keys()])], undefined)
      return
    }
    const { key, object, by } = observation
    const before = this.#observed.get(key)
    this.#ackOrder.notified(key, object, this.#inFlight.has(key))
    this.#know(key, object)
    if (object?.kind === 'link') this.#greet(object, before)
    const subject = object ?? before
    if (subject !== undefined && (subject.kind === 'link' || subject.kind === 'address' || subject.kind === 'route')) {
      if (subject.kind !== 'route') this.#forgive(subject.kind === 'link' ? subject.name : deviceOf(subject))
      for (const listener of this.#listeners) listener([subject])
    }
    this.#answer([key], by)
  }

  /** Neighbour proxies wait for their bridge, on which they need no repair when it comes. Of other links pods make too many to look at all that is desired. */
  #greet({ name, form }: Link, before: KernelObject | undefined): void {
    if (form?.type !== 'bridge' || (before?.kind === 'link' && before.index !== undefined)) return
    const waiting = [...this.#desired.state].flatMap(([key, object]) =>
      object.kind === 'proxy' && object.device === name ? [key] : []
    )
    this.#settle(waiting).catch((error) => this.#deps.log.error({ err: error }, 'neighbour proxies failed'))
  }

  /** What was refused and has to do with this device is tried again: something about it has changed. */
  #forgive(device: string | undefined): void {
    for (const key of this.#refusals.keys()) {
      const object = this.#desired.state.get(key)
      if (object !== undefined && (deviceOf(object) === device || object.kind === 'link')) {
        this.#refusals.allow(key)
        this.#answer([key], undefined)
      }
    }
  }

  /** Collects what came in one turn of the event loop, so that it is answered in one batch. */
  #answer(keys: Iterable<Key>, by: Sender | undefined): void {
    for (const key of keys) this.#dirty.set(key, by ?? this.#dirty.get(key))
    if (this.#answering) return
    this.#answering = true
    // Not a microtask: observations reach us by several of them each, and a flushed table must come back whole, its maps before the rules that use them.
    setImmediate(() => {
      this.#answering = false
      const dirty = this.#dirty
      this.#dirty = new Map()
      this.#repair(dirty).catch((error) => this.#deps.log.error({ err: error }, 'a repair failed'))
    })
  }

  async #repair(dirty: ReadonlyMap<Key, Sender | undefined>): Promise<void> {
    const now: Key[] = []
    const right = new Set([...dirty.keys()].filter((key) => this.#refusals.has(key)))
    for await (const change of this.#wrong([...dirty.keys()])) {
      const key = keyOf(change.object)
      right.delete(key)
      const by = dirty.get(key)
      const foreign = by !== undefined && !by.self
      const touched = this.#linkTouched.get(key) ?? Number.NEGATIVE_INFINITY
      if (this.#inFlight.has(key) || (!foreign && this.#deps.now() - touched < ECHO)) this.#later.add(key, ECHO)
      else if (this.#refusals.has(key)) now.push(key)
      else {
        const pause = this.#drift.seen(key, change, by)
        if (pause === 0) now.push(key)
        else this.#later.add(key, pause)
      }
    }
    this.#settled([...right])
    await this.#settle(now)
  }

  async *#wrong(keys: readonly Key[]): AsyncGenerator<Change, void> {
    for (let at = 0; at < keys.length; at += COMPARED_TOGETHER) {
      if (at > 0) await turn()
      for (const change of this.#allowed(keys.slice(at, at + COMPARED_TOGETHER), false)) yield change
    }
  }

  #allowed(keys: readonly Key[], asked: boolean): readonly Change[] {
    return difference(this.#desired.state, this.#observed, keys).filter(
      ({ do: what, object }) =>
        what === 'put' ||
        (asked ? !staysWhenUnwanted(object, this.#deps.recognises) : this.#trusted && this.#mayRemove(object))
    )
  }

  /** Applies the difference for these keys, after whatever is on its way for any of them has been answered. */
  async #settle(keys: readonly Key[], asked = false): Promise<readonly Outcome[]> {
    for (let busy = this.#busy(keys); busy.size > 0; busy = this.#busy(keys)) await Promise.allSettled(busy)
    const due = keys.filter((key) => asked || this.#due(key))
    return this.#apply(order(this.#allowed(due, asked)))
  }

  /** What is on its way for any of these keys. Between the answer "nothing" and #apply no other turn may come, or two would make one object. */
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

  /** A refused object is tried again after its pause; until then it waits. */
  #due(key: Key): boolean {
    const left = this.#refusals.left(key)
    if (left > 0) this.#later.add(key, left)
    return left <= 0
  }

  /** An acknowledgement is an observation too: it tells what the kernel holds until a notification says otherwise. */
  #record(outcomes: readonly Outcome[]): void {
    const done: Change[] = []
    for (const { change, error } of outcomes) {
      const key = keyOf(change.object)
      if (change.object.kind === 'link') this.#linkTouched.set(key, this.#deps.now())
      if (error !== undefined) {
        if (change.do === 'remove' || this.#desired.state.has(key))
          this.#later.add(key, this.#refusals.add(key, change, error))
        continue
      }
      this.#refusals.drop([key])
      this.#know(key, this.#ackOrder.acknowledged(change))
      const report = this.#drift.repaired(key, change)
      if (report === undefined) done.push(change)
      else this.#deps.drift(report)
    }
    // Whoever waits for the change need not wait for its lines.
    if (done.length > 0) setImmediate(() => logChanges(this.#deps.log, done))
    this.#refusals.tell()
  }

  #know(key: Key, object: KernelObject | undefined): void {
    if (object === undefined) this.#observed.delete(key)
    else this.#observed.set(key, object)
  }

  #lookAgain(keys: readonly Key[]): void {
    for (const [link, at] of this.#linkTouched) if (this.#deps.now() - at >= ECHO) this.#linkTouched.delete(link)
    this.#answer(keys, undefined)
  }
}
