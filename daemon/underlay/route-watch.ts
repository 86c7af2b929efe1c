// Follows the host's routing: when other programs change routes, policy rules or the node's link, the kernel is asked
// again how it reaches the nodes concerned. Between such changes, a share of all nodes each minute.
import { setTimeout as sleep } from 'node:timers/promises'
import { contains, formatPrefix, isLinkLocal, overlaps, type Prefix, perFamily } from '../../ipam/address.ts'
import { Wakeup } from '../base/wakeup.ts'
import type { Lease } from '../lease/lease.ts'
import { networksOf, type Place } from '../node/place.ts'
import type { Peers } from '../peers/peers.ts'
import type { Reconciler } from '../reconcile/reconciler.ts'
import type { Kernel, RoutingChange } from '../state/kernel.ts'
import type { KernelObject } from '../state/object.ts'
import { ROUTE_PROTOCOL } from '../state/ownership.ts'
import { Rounds } from './rounds.ts'
import type { ShadowedRoutes } from './shadowed-routes.ts'

export type RouteWatchDeps = {
  readonly kernel: Pick<Kernel, 'onRouting'>
  readonly reconciler: Pick<Reconciler, 'onObserved'>
  readonly peers: Pick<Peers, 'leases' | 'isOwn' | 'reroute'>
  readonly shadowed: Pick<ShadowedRoutes, 'check'>
  readonly place: () => Pick<Place, 'node' | 'backend' | 'conf'> | undefined
  /** Milliseconds of the monotonic clock. */
  readonly now: () => number
}

/** Milliseconds for which changes are collected, and between rounds without one. */
const SETTLE = 100
const EVERY = 60_000
/** Changed destinations that are compared with each node; more of them mean all nodes. */
const COMPARED = 32
/**
 * A host whose routes change all the time, as with BGP: the next look is this many times as far away as the last took.
 */
const REST_FACTOR = 20

export class RouteWatch {
  readonly #deps: RouteWatchDeps
  readonly #wakeup = new Wakeup()
  readonly #changed = new Map<string, Prefix>()
  #isAny = true
  readonly #rounds: Rounds

  constructor(deps: RouteWatchDeps) {
    this.#deps = deps
    this.#rounds = new Rounds(() => deps.peers.leases.keys())
    deps.kernel.onRouting((change) => this.#note(change))
    deps.reconciler.onObserved((changed) => {
      if (changed !== 'everything') for (const object of changed) this.#observed(object)
    })
  }

  /** Until the signal, and rejects with it. */
  async follow(signal: AbortSignal): Promise<void> {
    for (;;) {
      if (!this.#isDue) {
        const pause = setTimeout(() => this.#wakeup.notify(), EVERY)
        pause.unref()
        await this.#wakeup.next(signal)
        clearTimeout(pause)
      }
      await sleep(SETTLE, undefined, { signal, ref: false })
      const begun = this.#deps.now()
      await this.look()
      await sleep((this.#deps.now() - begun) * REST_FACTOR, undefined, { signal, ref: false })
    }
  }

  /** The nodes that the changes since the last call concern; without a change the next share of all. */
  async look(): Promise<void> {
    const keys = this.#isDue ? this.#concerned() : this.#nextShare()
    this.#isAny = false
    this.#changed.clear()
    if (keys.length > 0) await this.#deps.peers.reroute(keys)
    await this.#deps.shadowed.check(keys)
  }

  get #isDue(): boolean {
    return this.#isAny || this.#changed.size > 0
  }

  /** Routes that concern no node are most of what other programs change. */
  #note({ destination }: RoutingChange): void {
    const { backend, conf } = this.#deps.place() ?? {}
    // Every link that comes up, each pod's too, brings one.
    if (destination?.ip.family === 6 && isLinkLocal(destination.ip)) return
    if (destination !== undefined && conf !== undefined) {
      const network = networksOf(conf)[destination.ip.family]
      const isRelevant = network !== undefined && overlaps(network, destination)
      if (!isRelevant && backend?.asksRoutes !== true) return
      this.#changed.set(formatPrefix(destination), destination)
    }
    if (destination === undefined || this.#changed.size > COMPARED) this.#isAny = true
    this.#wakeup.notify()
  }

  /** The node's link, whose state decides whether it resolves next hops; and routes of ours to other nodes. */
  #observed(object: KernelObject): void {
    const node = this.#deps.place()?.node
    if (node === undefined) return
    if (object.kind === 'link' && object.name === node.device) this.#note({})
    if (object.kind !== 'route' || object.protocol !== ROUTE_PROTOCOL) return
    const own = node.subnet[object.destination.ip.family]
    if (own === undefined || !contains(own, object.destination)) this.#note(object)
  }

  #concerned(): readonly string[] {
    const changed = [...this.#changed.values()]
    return [...this.#deps.peers.leases]
      .filter(([key, lease]) => !this.#deps.peers.isOwn(key, lease) && (this.#isAny || isConcerned(lease, changed)))
      .map(([key]) => key)
  }

  #nextShare(): readonly string[] {
    const { peers } = this.#deps
    return this.#rounds.next().filter((key) => peers.leases.has(key) && !peers.isOwn(key))
  }
}

const isConcerned = ({ publicIp, subnet }: Lease, changed: readonly Prefix[]): boolean =>
  changed.some(
    (prefix) =>
      perFamily(publicIp).some(([, ip]) => contains(prefix, ip)) ||
      perFamily(subnet).some(([, each]) => overlaps(prefix, each))
  )
