// Where the path to a node carries less than pods send: lowers the MTU of the routes to that node's pods, so that the
// kernel tells pods the size (RFC 1191, RFC 8201) instead of losing their packets; and raises it again once packets of
// full size pass.
import { FAMILIES, type Family, type PerFamily } from '../../ipam/address.ts'
import type { Log } from '../base/log.ts'
import type { Place } from '../node/place.ts'
import { leaseOwnerOf, type Peers } from '../peers/peers.ts'
import type { Reconciler } from '../reconcile/reconciler.ts'
import { keyOf } from '../state/object.ts'
import { ROUTE_PROTOCOL } from '../state/ownership.ts'
import type { Prober } from './prober.ts'

export type NarrowPathsDeps = {
  readonly prober: Pick<Prober, 'forEach' | 'look' | 'carried'>
  readonly peers: Pick<Peers, 'leases' | 'isListed' | 'mtusOf' | 'wantAgain'>
  readonly reconciler: Pick<Reconciler, 'wantedBy' | 'observed'>
  readonly place: () => Pick<Place, 'mtu'> | undefined
  readonly log: Log
}

/** Milliseconds for which packets of full size must pass: one that changes its mind must not change routes each time. */
const PROVEN = 60_000

export class NarrowPaths {
  readonly #deps: NarrowPathsDeps
  readonly #lowered = new Map<string, PerFamily<number>>()
  #isTouched = true
  #hasAdopted = false

  constructor(deps: NarrowPathsDeps) {
    this.#deps = deps
    deps.peers.mtusOf = (key) => this.#lowered.get(key) ?? {}
  }

  /** Verdicts have changed. */
  touch(): void {
    this.#isTouched = true
  }

  /** For the condition: what was done about it; `undefined`: nothing. */
  get action(): string | undefined {
    const [first] = this.#lowered
    if (first === undefined) return undefined
    const [key, mtus] = first
    const name = this.#deps.peers.leases.get(key)?.node ?? key
    const others = this.#lowered.size - 1
    const more = others === 0 ? '' : `, and those to ${others} more`
    return `weftd has lowered the MTU of the route to the pods of ${name} to ${Object.values(mtus).join(' and ')}${more}`
  }

  /** Lowers and raises. Whether anything changed. */
  async step(): Promise<boolean> {
    const { peers, place } = this.#deps
    const mtu = place()?.mtu
    if (mtu === undefined || !peers.isListed) return false
    this.#adopt(mtu)
    if (!this.#isTouched && this.#lowered.size === 0) return false
    this.#isTouched = false
    for (const key of this.#lowered.keys()) if (!peers.leases.has(key)) this.#lowered.delete(key)
    const raised = this.#raise(mtu)
    const changed = [...this.#lower(mtu), ...raised]
    if (changed.length === 0) return false
    await peers.wantAgain(changed)
    // What a route does not ask for stays as it is in the kernel.
    for (const key of raised) this.#forget(key, mtu)
    return true
  }

  /** What weftd lowered before it was started again; until now nothing else sets the MTU of its routes. */
  #adopt(mtu: number): void {
    const { peers, reconciler } = this.#deps
    if (this.#hasAdopted) return
    this.#hasAdopted = true
    for (const key of peers.leases.keys())
      for (const object of reconciler.wantedBy(leaseOwnerOf(key))) {
        const have = object.kind === 'route' ? reconciler.observed.get(keyOf(object)) : undefined
        if (have?.kind !== 'route' || have.protocol !== ROUTE_PROTOCOL || (have.mtu ?? mtu) >= mtu) continue
        this.#set(key, have.destination.ip.family, have.mtu ?? mtu)
      }
  }

  #set(key: string, family: Family, mtu: number): void {
    this.#lowered.set(key, { ...this.#lowered.get(key), [family]: mtu })
  }

  #lower(mtu: number): readonly string[] {
    const { prober, log, peers } = this.#deps
    const changed: string[] = []
    prober.forEach((key, family, way, verdict) => {
      if (way !== 'pods' || verdict !== 'large-lost' || !peers.leases.has(key)) return
      const carried = prober.carried(key, family)
      if (carried === undefined || carried >= mtu || this.#lowered.get(key)?.[family] === carried) return
      this.#set(key, family, carried)
      changed.push(key)
      log.warn(
        { lease: key, mtu: carried },
        `the path to the node carries packets of pods up to ${carried} bytes: the MTU of the route to its pods is lowered`
      )
    })
    return changed
  }

  #raise(mtu: number): readonly string[] {
    const { prober, log } = this.#deps
    const raised: string[] = []
    for (const [key, mtus] of this.#lowered)
      for (const family of FAMILIES) {
        if (mtus[family] === undefined) continue
        const look = prober.look(key, family, 'pods')
        if (look?.judgement.verdict !== 'whole' || look.sinceMsAgo < PROVEN) continue
        this.#set(key, family, mtu)
        raised.push(key)
        log.info({ lease: key, mtu }, 'packets of full size pass: the MTU of the route to its pods is raised again')
      }
    return raised
  }

  #forget(key: string, mtu: number): void {
    const left = Object.entries(this.#lowered.get(key) ?? {}).filter(([, value]) => value < mtu)
    if (left.length === 0) this.#lowered.delete(key)
    else this.#lowered.set(key, Object.fromEntries(left))
  }
}
