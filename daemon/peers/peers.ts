// All other nodes' leases, as the store reports them: desires their kernel objects, and keeps routes for a while when
// most leases are suddenly missing.
import { setImmediate as turn } from 'node:timers/promises'
import { formatIp, type Ip, perFamily } from '../../ipam/address.ts'
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
import { areOfTwoNodes, Conflicts } from './conflicts.ts'
import { giveBack } from './give-back.ts'
import { concernedBy, observedHost } from './host-addresses.ts'
import { onHostChanged } from './host-changes.ts'
import { type HostView, samePrefixes } from './host-networks.ts'
import {
  conflictRules,
  type LocalView,
  type PeerResult,
  peerObjects,
  sameNetworks,
  staleRoutes
} from './peer-objects.ts'
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

/** Fewer missing leases than this are believed at once, unless no other node is left. */
const FEW = 4

/** The owner of the objects for the lease of this key. */
export const leaseOwnerOf = (key: string): string => `lease ${key}`

export class Peers {
  readonly #deps: PeersDeps
  readonly #leases = new Map<string, Lease>()
  readonly #since = new Map<string, number>()
  readonly #skipped = new Map<string, string>()
  /** Those of the skipped ones that this backend can't reach, with the cure: no fault of the lease. */
  readonly #offLink = new Map<string, string>()
  /** Why a valid lease is not used although it can be: another node's claim to the same comes first. */
  readonly #refused = new Map<string, string>()
  readonly #conflicts: Conflicts
  readonly #routes: RouteLookups
  /** Leases that the last list did not have and that are kept for now. */
  readonly #doubted = new Set<string>()
  #confirmation: NodeJS.Timeout | undefined
  #listed = false
  /** The kernel's stale routes have been kept for long enough. */
  #confirmed = false
  #view: LocalView | undefined
  /** The key of our own lease, kept because it is compared with each of thousands. */
  #ownKey: string | undefined
  #us: Us | undefined

  constructor(deps: PeersDeps) {
    this.#deps = deps
    const rules = conflictRules(
      () => this.#view,
      (lease) => this.isOwn(leaseKey(lease), lease)
    )
    this.#conflicts = new Conflicts(deps.claims, { ...rules, store: deps.store })
    const viewed = () => this.#view && this.#hostView(this.#view)
    onHostChanged(deps, viewed, () => this.#useHost())
    this.#routes = new RouteLookups({ ...deps, observed: () => deps.reconciler.observed })
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
    const before = this.#view?.networks
    this.#ownKey = leaseKey(view.node)
    const areTwo: Us['areOfTwoNodes'] = (a, b) => areOfTwoNodes(a, b, this.#deps.claims)
    this.#us = { publicIp: view.node.publicIp, lease: view.lease, areOfTwoNodes: areTwo }
    this.#view = { ...view, ...observedHost(this.#deps.reconciler.observed, this.#hostView(view)) }
    // Which public addresses lie inside the network is known only now.
    if (!sameNetworks(before, view.networks))
      for (const lease of this.#leases.values()) this.#conflicts.replace(lease, lease)
    const keys = [...this.#leases.keys()]
    // By another interface the nodes are reached otherwise.
    if (view.backend.asksRoutes) await this.#routes.ask(this.#publicIpsOf(keys))
    await this.#want(keys)
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
      clearTimeout(this.#confirmation)
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
    this.#doubted.delete(key)
    this.#unskip(key)
    return key
  }

  #gone(key: string, touched: Set<string>): string {
    const lease = this.#leases.get(key)
    for (const other of this.#conflicts.replace(lease, undefined)) touched.add(leaseKey(other))
    this.#refused.delete(key)
    if (lease !== undefined) this.#routes.forget(lease.publicIp)
    this.#leases.delete(key)
    this.#since.delete(key)
    this.#unskip(key)
    this.#doubted.delete(key)
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
   * Removes leases that are no longer in the store, by a list without them or by an event for each. Kept for a while
   * instead: most leases at once, the last one that a list does not have, and all when the list does not have ours
   * either. The event of a single lease is believed. Returns the keys of the removed ones.
   */
  #withdraw(
    keys: readonly string[],
    by: 'events' | 'a list' | 'a list without us',
    touched: Set<string>
  ): readonly string[] {
    const missing = keys.filter((key) => this.#leases.has(key) && !this.isOwn(key))
    // Counting the others takes milliseconds among thousands; the event of a single lease must not wait for that.
    const isByEvents = by === 'events'
    const isWorthACount = missing.length >= (isByEvents ? FEW : 1)
    const others = isWorthACount ? this.others - missing.length : 0
    const isMost = missing.length >= FEW && missing.length > others
    const isDoubtful = isWorthACount && (isMost || by === 'a list without us' || (!isByEvents && others === 0))
    const kept = new Set(missing.filter((key) => isDoubtful || (!isByEvents && this.#doubted.has(key))))
    const gone = keys.filter((key) => !kept.has(key))
    for (const key of gone) this.#gone(key, touched)
    if ([...kept].every((key) => this.#doubted.has(key))) return gone
    for (const key of kept) this.#doubted.add(key)
    this.#doubt(`${kept.size} leases that the store no longer lists are kept (it lists ${others} others)`)
    return gone
  }

  #doubt(detail: string): void {
    this.#deps.health.raise('LIST_DOUBTED', `${detail}, for ${this.#deps.doubtMs / 1000} s`)
    clearTimeout(this.#confirmation)
    this.#confirmation = setTimeout(() => {
      const keys = new Set(this.#doubted)
      for (const key of this.#doubted) this.#gone(key, keys)
      this.#deps.health.clear('LIST_DOUBTED')
      this.#confirmation = undefined
      this.#confirmed = true
      this.#report()
      this.#want([...keys])
        .then(() => this.#trustIfPlausible())
        .catch((error) => this.#deps.log.error({ err: error }, 'removing leases that are still missing failed'))
    }, this.#deps.doubtMs)
    this.#confirmation.unref()
  }

  /**
   * After a list: allows stale objects in the kernel to be removed, unless they are most of those present. So even the
   * first list is doubted.
   */
  async #trustIfPlausible(): Promise<void> {
    if (this.#doubted.size > 0) return
    const { reconciler } = this.#deps
    // Without our own place and a list, nothing in the kernel can be called stale.
    if (!this.#listed || this.#view === undefined) {
      clearTimeout(this.#confirmation)
      this.#confirmation = undefined
      this.#deps.health.clear('LIST_DOUBTED')
      return
    }
    if (!reconciler.trusts && !this.#confirmed && !this.#kernelAgrees(this.#view)) {
      if (this.#confirmation === undefined) {
        this.#doubt(
          `the kernel still has routes to nodes that the store does not list (it lists ${this.others} others)`
        )
      }
      return
    }
    clearTimeout(this.#confirmation)
    this.#confirmation = undefined
    this.#deps.health.clear('LIST_DOUBTED')
    await reconciler.trust()
  }

  #kernelAgrees(view: LocalView): boolean {
    const stale = staleRoutes(this.#deps.reconciler.differences(), view)
    const others = this.others
    return stale === 0 || (others > 0 && (stale < FEW || stale <= others))
  }

  /** How many leases other nodes hold. */
  get others(): number {
    let count = 0
    for (const [key, lease] of this.#leases) if (!this.isOwn(key, lease)) count++
    return count
  }

  async #want(keys: readonly string[]): Promise<void> {
    if (this.#view === undefined || keys.length === 0) return
    if (this.#view.backend.asksRoutes) await this.#routes.learn(this.#publicIpsOf(keys))
    await this.#deps.reconciler.wantAll(keys.flatMap((key) => this.#wantedFor(key)))
  }

  /**
   * The host's routes to these nodes may have changed: asks the kernel again, for backends that depend on them, also
   * for those where it gave no answer, and replaces the objects of the leases for which the answer differs.
   */
  async reroute(keys: readonly string[]): Promise<void> {
    if (this.#view?.backend.asksRoutes !== true) return
    const changed = await this.#routes.ask([...this.#publicIpsOf(keys), ...this.#routes.unanswered])
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

  /** The objects for one lease; no entry at all (not even a removal) when it is invalid. */
  #wantedFor(key: string): readonly (readonly [string, readonly KernelObject[]])[] {
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
        return [[leaseOwnerOf(key), result.objects]]
      case 'foreign':
        this.#deps.log.debug({ lease: key, backend: lease.backendType }, 'lease of another backend ignored')
        return [[leaseOwnerOf(key), []]]
      case 'skipped':
        this.#skip(key, result.reason)
        return []
      case 'off-link':
        if (this.#skipped.get(key) !== result.reason)
          this.#deps.log.warn({ lease: key, reason: result.reason }, 'node not reachable by this backend')
        this.#skipped.set(key, result.reason)
        this.#offLink.set(key, result.cure)
        return [[leaseOwnerOf(key), []]]
    }
  }

  #resultFor(lease: Lease, view: LocalView): PeerResult {
    const result = peerObjects(lease, view, view.backend.asksRoutes ? this.#routes.of(lease.publicIp) : {})
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
