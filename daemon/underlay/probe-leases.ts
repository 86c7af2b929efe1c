// Gives each lease that is used a slot of the record, and begins anew where the lease or the route to it changes.
import { FAMILIES, type Family, formatIp, type Ip } from '../../ipam/address.ts'
import { formatLeaseValue, leaseKey } from '../lease/lease.ts'
import type { Place } from '../node/place.ts'
import { leaseOwnerOf } from '../peers/peers.ts'
import type { Route } from '../state/object.ts'
import { digestOf, endsOf, isSentBy, lowOf, textOf } from './probe-ends.ts'
import type { Digest, Way } from './probe-packet.ts'
import type { ProbeRecord } from './probe-record.ts'
import { pairOf } from './probe-schedule.ts'
import type { ProbeSlots } from './probe-slots.ts'
import type { ProberDeps } from './prober-deps.ts'

/** Leases that are looked at in a turn after they changed. */
const AT_ONCE = 500
/** Tenths of a second for which a failure of a new or changed lease is not reported: its node is still setting up. */
const GRACE = 300

export type ProbeLeasesDeps = Pick<ProberDeps, 'peers' | 'reconciler' | 'place'> & {
  readonly slots: ProbeSlots
  readonly record: ProbeRecord
  /** A slot whose lease, or the route to it, is another one: it is to be asked at once. */
  readonly renewed: (slot: number, now: number) => void
  /** Before a slot is free again. */
  readonly removed: (slot: number) => void
}

export class ProbeLeases {
  readonly #deps: ProbeLeasesDeps
  /** Leases that may have changed. */
  #touched = new Set<string>()
  #own: { readonly of: Place['node']; readonly digests: Readonly<Record<Family, Digest>> } | undefined

  constructor(deps: ProbeLeasesDeps) {
    this.#deps = deps
  }

  touch(keys: Iterable<string>): void {
    for (const key of keys) this.#touched.add(key)
  }

  /** Whether leases are left for the next turn. */
  get isBehind(): boolean {
    return this.#touched.size > 0
  }

  /** Follows the leases that changed; `now` in tenths of a second. */
  sync(now: number): void {
    const { subnet } = this.#deps.place()?.node ?? {}
    const families = FAMILIES.filter((family) => subnet?.[family] !== undefined)
    let left = AT_ONCE
    for (const key of this.#touched) {
      if (left-- === 0) return
      this.#touched.delete(key)
      for (const family of families) this.#syncOne(key, family, now)
    }
    // A set keeps the memory of thousands of entries that are gone.
    this.#touched = new Set()
  }

  /** The route by which packets to the pods of this lease's node leave; `undefined`: the lease is not used. */
  routeTo(key: string, family: Family): Route | undefined {
    for (const object of this.#deps.reconciler.wantedBy(leaseOwnerOf(key)))
      if (object.kind === 'route' && object.destination.ip.family === family) return object
    return undefined
  }

  /** Whether a probe from this address can be one of the lease's node; without an address it counts as one. */
  sends(key: string | undefined, family: Family, way: Way, source: Ip | undefined): boolean {
    const [place, lease] = [this.#deps.place(), this.#deps.peers.leases.get(key ?? '')]
    const ends = place && lease && endsOf(lease, place.node, place.backend, family)
    return ends !== undefined && (source === undefined || isSentBy(source, way, ends, place?.conf))
  }

  /** Digests of this node's own lease key. */
  ownDigests(node: Place['node']): Readonly<Record<Family, Digest>> {
    if (this.#own?.of !== node) {
      const key = leaseKey(node)
      this.#own = { of: node, digests: { 4: digestOf(key, 4), 6: digestOf(key, 6) } }
    }
    return this.#own.digests
  }

  #syncOne(key: string, family: Family, now: number): void {
    const { slots, record, peers, renewed, removed } = this.#deps
    const [lease, place] = [peers.leases.get(key), this.#deps.place()]
    const known = record.slotOf(digestOf(key, family))
    const route = lease && this.routeTo(key, family)
    const ends = lease && place && endsOf(lease, place.node, place.backend, family)
    if (lease === undefined || route === undefined || ends === undefined || peers.isOwn(key, lease)) {
      if (known === undefined) return
      removed(known)
      slots.remove(known)
      record.remove(known)
      return
    }
    const slot = known ?? this.#add(key, family, now)
    const how = `${route.device} ${route.gateway === undefined ? '' : formatIp(route.gateway)}`
    const isOther = slots.renew(slot, lowOf(`${formatLeaseValue(lease)} ${textOf(ends)}`), now + GRACE)
    const isRerouted = slots.reroute(slot, lowOf(how))
    if (!isOther && !isRerouted) return
    if (isOther) record.reset(slot)
    else record.resetAsked(slot, 'pods')
    slots.startOver(slot)
    slots.rest(slot)
    slots.setDue(slot, now)
    renewed(slot, now)
  }

  #add(key: string, family: Family, now: number): number {
    const { slots, record, place } = this.#deps
    const digest = digestOf(key, family)
    const slot = record.add(digest)
    const own = place()?.node
    const pair = pairOf(digest.low, own === undefined ? 0 : this.ownDigests(own)[family].low)
    slots.add(slot, { key, family, pair, now })
    return slot
  }
}
