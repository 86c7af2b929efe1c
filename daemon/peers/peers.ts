// All other nodes' leases, as the store reports them: desires their kernel objects.
import { setImmediate as turn } from 'node:timers/promises'
import { formatIp, type Ip, type PerFamily, perFamily } from '../../ipam/address.ts'
import type { Registry } from '../backend/registry.ts'
import { AsyncQueue } from '../base/async-queue.ts'
import { reasonOf } from '../base/error.ts'
import type { Log } from '../base/log.ts'
import type { Health } from '../health/health.ts'
import { type Lease, leaseKey } from '../lease/lease.ts'
import { isOurs, isOursUnderOurKey, type Us } from '../lease/own-lease.ts'
import type { LeaseEvent } from '../lease/store.ts'
import type { Reconciler } from '../reconcile/reconciler.ts'
import type { Kernel } from '../state/kernel.ts'
import type { KernelObject } from '../state/object.ts'
import type { Recognises } from '../state/ownership.ts'
import { conflictRules } from './conflict-rules.ts'
import { areOfTwoNodes, Conflicts } from './conflicts.ts'
import { giveBack } from './give-back.ts'
import { concernedBy, observedHost } from './host-addresses.ts'
import { onHostChanged } from './host-changes.ts'
import { type HostView, samePrefixes } from './host-networks.ts'
import { ListDoubt, type Withdrawal } from './list-doubt.ts'
import { type LocalView, type PeerResult, peerObjects, sameNetworks, withMtus } from './peer-objects.ts'
import { RouteLookups } from './route-lookups.ts'
import { reportSkipped, type SkippedDeps } from './skipped.ts'

export type PeersDeps = SkippedDeps & {
  readonly reconciler: Reconciler
  readonly health: Health
  readonly log: Log
  /** The bridge of pods. */
  readonly bridge?: string
  /** What a lease claims for its node alone, by its backend. */
  readonly claims: Registry['claims']
  /** Devices of a backend; without it no address belongs to one. */
  readonly recognises?: Recognises
  /** The type of the store, for cures. */
  readonly store?: string
  /** Milliseconds for which most leases must be missing before that is believed. */
  readonly doubtMs: number
  /** Called for each event. */
  readonly counted: (what: 'put' | 'gone' | 'list' | 'malformed') => void
  /** Asked for the routes to public addresses, for backends that depend on them. */
  readonly kernel: Pick<Kernel, 'routesTo'>
  /** Milliseconds since 1970. */
  readonly now: () => number
}

/** The owner of the objects for the lease of this key. */
export const leaseOwnerOf = (key: string): string => `lease ${key}`

export class Peers {
  readonly #deps: PeersDeps
  /** Called with the keys of leases whose objects may have changed, once they are desired. */
  onWanted: (keys: readonly string[]) => void = () => undefined
  /** MTUs of the routes to this lease's pods, where the path to its node carries less than pods send. */
  mtusOf: (key: string) => PerFamily<number> = () => ({})
  readonly #leases = new Map<string, Lease>()
  readonly #since = new Map<string, number>()
  readonly #skipped = new Map<string, string>()
  /** Those of the skipped ones that this backend can't reach, with the cure: no fault of the lease. */
  readonly #offLink = new Map<string, string>()
  /** Why a valid lease is not used although it can be: another node's claim to the same comes first. */
  readonly #refused = new Map<string, string>()
  readonly #conflicts: Conflicts
  /** The kernel's routes to the nodes, and what probes found of plain ones. */
  readonly routes: RouteLookups
  readonly #doubt: ListDoubt
  #listed = false
  #view: LocalView | undefined
  /** The key of our own lease, kept because it is compared with each of thousands. */
  #ownKey: string | undefined
  #us: Us | undefined

  constructor(deps: PeersDeps) {
    this.#deps = deps
    const isOwn = (lease: Lease) => this.isOwn(leaseKey(lease), lease)
    const rules = conflictRules(() => this.#view, isOwn)
    this.#conflicts = new Conflicts(deps.claims, { ...rules, store: deps.store })
    const viewed = () => this.#view && this.#hostView(this.#view)
    onHostChanged(deps, viewed, () => this.#useHost())
    const confirmed = (keys: readonly string[]) => this.#removeMissing(keys)
    this.#doubt = new ListDoubt({ ...deps, others: () => this.others, confirmed })
    this.routes = new RouteLookups({ ...deps, observed: () => deps.reconciler.observed })
  }

  /** The valid leases of all nodes, including ours. */
  get leases(): ReadonlyMap<string, Lease> {
    return this.#leases
  }

  /** Why a lease is skipped, by its key; also for records that can't be parsed at all. */
  get skipped(): ReadonlyMap<string, string> {
    return this.#refused.size === 0 ? this.#skipped : new Map([...this.#skipped, ...this.#refused])
  }

  /** Whether the store has sent its first complete list. */
  get isListed(): boolean {
    return this.#listed
  }

  /** When this daemon first saw the lease, in milliseconds since 1970. */
  since(key: string): number | undefined {
    return this.#since.get(key)
  }

  /** Whether the lease of this key is this node's own. */
  isOwn(key: string, lease = this.#leases.get(key)): boolean {
    const us = this.#us
    if (lease === undefined || us === undefined) return false
    if (key !== this.#ownKey) return isOurs(lease, us)
    return isOursUnderOurKey(lease, us, this.#deps.health.has('LEASE_LOST'))
  }

  /** Sets this node's view of the network; all peers are recomputed. Called again when it changes. */
  async settle(view: LocalView): Promise<void> {
    const before = this.#view
    this.#ownKey = leaseKey(view.node)
    const areTwo: Us['areOfTwoNodes'] = (a, b) => areOfTwoNodes(a, b, this.#deps.claims)
    this.#us = { publicIp: view.node.publicIp, lease: view.lease, areOfTwoNodes: areTwo }
    this.#view = { ...view, ...observedHost(this.#deps.reconciler.observed, this.#hostView(view)) }
    // Which public addresses lie inside the network is known only now.
    if (!sameNetworks(before?.networks, view.networks))
      for (const lease of this.#leases.values()) this.#conflicts.replace(lease, lease)
    const keys = [...this.#leases.keys()]
    // By another interface the nodes are reached otherwise.
    if (view.backend.asksRoutes) await this.routes.ask(this.#publicIpsOf(keys))
    await this.#want(keys, before !== undefined && before.backend !== view.backend)
    await giveBack(this.#deps, this.#hostView(view))
    this.#report()
    await this.#trustIfPlausible()
  }

  #hostView({ node, networks }: LocalView): HostView {
    const { recognises = () => undefined } = this.#deps
    return { networks, device: node.device, subnet: node.subnet, recognises, bridge: this.#deps.bridge }
  }

  /** An address or a network of the host came or went: leases that claim it are refused, and used again without it. */
  async #useHost(): Promise<void> {
    const view = this.#view
    if (view === undefined) return
    const host = this.#hostView(view)
    const now = { ...view, ...observedHost(this.#deps.reconciler.observed, host) }
    const isSame = samePrefixes(now.occupied, view.occupied ?? [])
    const keys = isSame ? concernedBy(this.#leases, view, now) : [...this.#leases.keys()]
    this.#view = now
    if (keys.length === 0) return
    await this.#want(keys)
    await giveBack(this.#deps, host)
    this.#report()
  }

  /** Follows the store until its events end. Events that came together are answered with one batch. */
  async follow(events: AsyncIterable<LeaseEvent>): Promise<void> {
    try {
      // A batch is taken a turn later: events of one message or one look at a file come one microtask after the other,
      // and how many went together says whether to doubt.
      for await (const batch of AsyncQueue.of(events).batches(turn)) await this.#take(batch)
    } finally {
      this.#doubt.end()
    }
  }

  async #take(events: readonly LeaseEvent[]): Promise<void> {
    const touched = new Set<string>()
    const gone = new Set<string>()
    for (const event of events) {
      if (event.kind !== 'malformed') this.#deps.counted(event.kind)
      if (event.kind === 'list') {
        for (const key of this.#list(event.leases, touched)) touched.add(key)
        this.#listed = true
        gone.clear()
      } else if (event.kind === 'put') {
        touched.add(this.#put(event.lease, touched))
        gone.delete(leaseKey(event.lease))
      } else if (event.kind === 'gone') gone.add(event.key)
      else this.#skip(event.key, reasonOf(event.error))
    }
    for (const key of this.#withdraw([...gone], 'events', touched)) touched.add(key)
    await this.#want([...touched])
    this.#report()
    await this.#trustIfPlausible()
  }

  /** `touched` gets the keys of other leases that may be used from now on, or no longer. */
  #put(lease: Lease, touched: Set<string>): string {
    const key = leaseKey(lease)
    if (!this.#leases.has(key)) this.#since.set(key, this.#deps.now())
    for (const other of this.#conflicts.replace(this.#leases.get(key), lease)) touched.add(leaseKey(other))
    this.#leases.set(key, lease)
    this.#doubt.forget(key)
    this.#unskip(key)
    return key
  }

  #gone(key: string, touched: Set<string>): string {
    const lease = this.#leases.get(key)
    for (const other of this.#conflicts.replace(lease, undefined)) touched.add(leaseKey(other))
    this.#refused.delete(key)
    if (lease !== undefined) this.routes.forget(lease.publicIp)
    this.#leases.delete(key)
    this.#since.delete(key)
    this.#unskip(key)
    this.#doubt.forget(key)
    return key
  }

  /**
   * Takes a complete list; returns the keys it touched. Missing leases are removed at once when they are few, and later
   * when they are most.
   */
  #list(leases: readonly Lease[], touched: Set<string>): Iterable<string> {
    const listed = new Map(leases.map((lease) => [leaseKey(lease), lease]))
    const missing = [...this.#leases.keys()].filter((key) => !listed.has(key) && !this.isOwn(key))
    // Then the store has lost data: which leases are back already depends only on which node was faster.
    const isWithoutUs = this.#ownKey !== undefined && this.#leases.has(this.#ownKey) && !listed.has(this.#ownKey)
    for (const lease of leases) this.#put(lease, touched)
    for (const key of this.#skipped.keys()) if (!listed.has(key)) this.#unskip(key)
    return [...listed.keys(), ...this.#withdraw(missing, isWithoutUs ? 'a list without us' : 'a list', touched)]
  }

  /**
   * Removes leases that are no longer in the store, except those that are kept while the list is doubted. Returns the
   * keys of the removed ones.
   */
  #withdraw(keys: readonly string[], by: Withdrawal, touched: Set<string>): readonly string[] {
    const missing = keys.filter((key) => this.#leases.has(key) && !this.isOwn(key))
    const kept = this.#doubt.kept(missing, by)
    const gone = keys.filter((key) => !kept.has(key))
    for (const key of gone) this.#gone(key, touched)
    return gone
  }

  async #removeMissing(keys: readonly string[]): Promise<void> {
    const touched = new Set(keys)
    for (const key of keys) this.#gone(key, touched)
    this.#report()
    await this.#want([...touched])
    await this.#trustIfPlausible()
  }

  #trustIfPlausible(): Promise<void> {
    return this.#doubt.trustIfPlausible(this.#listed ? this.#view : undefined)
  }

  /** How many leases other nodes hold. */
  get others(): number {
    let count = 0
    for (const [key, lease] of this.#leases) if (!this.isOwn(key, lease)) count++
    return count
  }

  /** `isOther`: by another backend than before. */
  async #want(keys: readonly string[], isOther = false): Promise<void> {
    if (this.#view === undefined || keys.length === 0) return
    if (this.#view.backend.asksRoutes) await this.routes.learn(this.#publicIpsOf(keys))
    await this.#deps.reconciler.wantAll(keys.flatMap((key) => this.#wantedFor(key, isOther)))
    this.onWanted(keys)
  }

  /** Asks the kernel for its routes to these nodes, where they are not known yet. */
  learnRoutes(leases: readonly Lease[]): Promise<void> {
    return this.routes.learn(leases.flatMap(({ publicIp }) => perFamily(publicIp).map(([, ip]) => ip)))
  }

  /** What these leases need besides what they say themselves has changed. */
  wantAgain(keys: readonly string[]): Promise<void> {
    return this.#want(keys)
  }

  /**
   * The host's routes to these nodes may have changed: asks the kernel again, for backends that depend on them, also
   * for those where it gave no answer, and replaces the objects of the leases for which the answer differs.
   */
  async reroute(keys: readonly string[]): Promise<void> {
    if (this.#view?.backend.asksRoutes !== true) return
    const changed = await this.routes.ask([...this.#publicIpsOf(keys), ...this.routes.unanswered])
    if (changed.size === 0) return
    const isAffected = (key: string) =>
      perFamily(this.#leases.get(key)?.publicIp ?? {}).some(([, ip]) => changed.has(formatIp(ip)))
    await this.#want([...this.#leases.keys()].filter(isAffected))
    this.#report()
  }

  #publicIpsOf(keys: readonly string[]): readonly Ip[] {
    return keys.flatMap((key) => {
      const lease = this.#leases.get(key)
      return lease === undefined || this.isOwn(key, lease) ? [] : perFamily(lease.publicIp).map(([, ip]) => ip)
    })
  }

  /**
   * The objects for one lease. No entry at all, not even a removal, when it is invalid or of another backend: what it
   * had stays, unless that was on a device of a backend that is not in use any more.
   */
  #wantedFor(key: string, isOther: boolean): readonly (readonly [string, readonly KernelObject[]])[] {
    const lease = this.#leases.get(key)
    const view = this.#view
    this.#refused.delete(key)
    if (view === undefined || lease === undefined || this.isOwn(key, lease)) return [[leaseOwnerOf(key), []]]
    const result = this.#resultFor(lease, view)
    switch (result.kind) {
      case 'refused':
        this.#skip(key, result.reason)
        return [[leaseOwnerOf(key), []]]
      case 'conflict':
        this.#unskip(key)
        this.#refused.set(key, result.reason)
        return [[leaseOwnerOf(key), []]]
      case 'objects':
        this.#unskip(key)
        return [[leaseOwnerOf(key), withMtus(result.objects, this.mtusOf(key))]]
      case 'foreign':
        this.#deps.log.debug({ lease: key, backend: lease.backendType }, 'lease of another backend ignored')
        return isOther ? [[leaseOwnerOf(key), []]] : []
      case 'skipped':
        this.#skip(key, result.reason)
        return isOther ? [[leaseOwnerOf(key), []]] : []
      case 'off-link':
        if (this.#skipped.get(key) !== result.reason)
          this.#deps.log.warn({ lease: key, reason: result.reason }, 'node not reachable by this backend')
        this.#skipped.set(key, result.reason)
        this.#offLink.set(key, result.cure)
        return [[leaseOwnerOf(key), []]]
    }
  }

  #resultFor(lease: Lease, view: LocalView): PeerResult {
    const result = peerObjects(lease, view, view.backend.asksRoutes ? this.routes.of(lease.publicIp) : {})
    const older = result.kind === 'objects' ? this.#conflicts.older(lease) : undefined
    if (older === undefined) return result
    const whose = older.lease.node ?? `lease ${leaseKey(older.lease)}`
    return { kind: 'conflict', reason: `lease ${leaseKey(lease)} is younger than ${whose}, which keeps ${older.keeps}` }
  }

  #unskip(key: string): void {
    this.#skipped.delete(key)
    this.#offLink.delete(key)
  }

  #skip(key: string, reason: string): void {
    if (this.#skipped.get(key) === reason) return
    this.#skipped.set(key, reason)
    this.#offLink.delete(key)
    this.#deps.counted('malformed')
    this.#deps.log.warn({ lease: key, reason }, 'lease skipped')
  }

  #report(): void {
    this.#conflicts.report(this.#deps.health)
    reportSkipped(this.#deps, this.#skipped, this.#offLink, { leases: this.#leases, view: this.#view })
  }
}
