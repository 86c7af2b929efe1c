// Conflicts between leases: several nodes publish one public address, one value that their backend claims, such as a
// VTEP MAC, or subnets that share addresses. Constant cost per lease.
import { formatIp, formatPrefix, hostPrefix, type Ip, overlaps, type Prefix, perFamily } from '../../ipam/address.ts'
import type { Claim } from '../backend/backend.ts'
import { andMore } from '../base/printable.ts'
import type { ConditionCode } from '../health/conditions.ts'
import type { Report } from '../health/report.ts'
import { isOlder, type Lease, leaseKey } from '../lease/lease.ts'
import { Subnets } from './subnets.ts'

type Key = `${ConditionCode} ${string}`

export type ConflictsOptions = {
  /** Whether a lease counts at all. */
  readonly isUsable?: (lease: Lease) => boolean
  /** Whether a lease, if it is the older one, keeps what others claim too: one that can't be used keeps nothing. */
  readonly mayKeep?: (lease: Lease) => boolean
  /** Whether a public address lies inside the pod network, so that a subnet may contain it. */
  readonly isPodAddress?: (ip: Ip) => boolean
  /**
   * Whether hosts have addresses inside the pod network. Where they don't, a public address in another node's subnet is
   * wrong whatever the age of its lease, which says nothing of when it began to publish it. By default they may.
   */
  readonly areHostsInside?: () => boolean
  /** The type of the store, for cures; by default that of leases with a node's name is kubernetes. */
  readonly store?: string | undefined
}

/**
 * The lease of another node that is used instead, an older one mostly, and what it keeps: `its addresses`, or a value
 * such as `the VTEP MAC 02:…`.
 */
export type Older = { readonly lease: Lease; readonly keeps: string }

export class Conflicts {
  /** What a backend claims for a lease. */
  readonly #claims: (lease: Lease) => readonly Claim[]
  readonly #isUsable: (lease: Lease) => boolean
  readonly #mayKeep: (lease: Lease) => boolean
  readonly #isPodAddress: (ip: Ip) => boolean
  readonly #areHostsInside: () => boolean
  readonly #store: string | undefined
  /**
   * The lease that claims a key; a set only where there are several, since of thousands nearly all have no conflict.
   */
  readonly #claimants = new Map<Key, Lease | Set<Lease>>()
  /** Keys that more than one node claims, by condition. */
  readonly #contested = new Map<ConditionCode, Set<Key>>()
  readonly #subnets = new Subnets()
  /** Leases that share addresses with another. */
  readonly #sharing = new Set<Lease>()
  #isSharingReported = false

  constructor(claims: (lease: Lease) => readonly Claim[], options: ConflictsOptions = {}) {
    const { isUsable = () => true, mayKeep = isUsable, isPodAddress = () => false, store } = options
    this.#areHostsInside = options.areHostsInside ?? (() => true)
    this.#claims = claims
    this.#isUsable = isUsable
    this.#mayKeep = mayKeep
    this.#isPodAddress = isPodAddress
    this.#store = store
  }

  /**
   * `before`: the lease as it was, if it existed; `now`: as it is, if it still exists. Of any node, ours included.
   * Returns the other leases for which `older` may have changed.
   */
  replace(before: Lease | undefined, now: Lease | undefined): ReadonlySet<Lease> {
    const touched = new Set<Lease>()
    if (before !== undefined) {
      for (const claim of this.#claimsOf(before)) this.#remove(claim, before, touched)
      this.#subnets.remove(before, [...subnetsOf(before), ...publicPrefixes(before)])
      this.#sharing.delete(before)
      for (const other of this.#overlapping(before)) {
        touched.add(other)
        if (!this.#isShared(other)) this.#sharing.delete(other)
      }
    }
    if (now !== undefined) {
      for (const claim of this.#claimsOf(now)) this.#add(claim, now, touched)
      this.#subnets.add(now, this.#prefixesOf(now))
      if (this.#isShared(now)) this.#sharing.add(now)
      for (const other of this.#overlapping(now)) {
        touched.add(other)
        this.#sharing.add(other)
      }
    }
    if (before !== undefined) touched.delete(before)
    if (now !== undefined) touched.delete(now)
    return touched
  }

  #isShared(lease: Lease): boolean {
    return (lease.rivals?.length ?? 0) > 0 || this.#overlapping(lease).size > 0
  }

  /**
   * The addresses of a lease that are in no other's subnet: its subnets, and public addresses inside the pod network,
   * since a route to a subnet that contains one would cut that node off.
   */
  #prefixesOf(lease: Lease): readonly Prefix[] {
    return [...subnetsOf(lease), ...publicPrefixes(lease).filter(({ ip }) => this.#isPodAddress(ip))]
  }

  /**
   * The other leases with addresses in a subnet of this one, or the other way round. Leases with one public address
   * share nothing by that: each takes its own subnet only. Often the machine of the older one is gone, a new one has
   * its address, and the lease has not expired yet.
   */
  #overlapping(lease: Lease): ReadonlySet<Lease> {
    const prefixes = this.#prefixesOf(lease)
    const found = this.#subnets.overlapping(lease, prefixes)
    if (found.size === 0) return found
    const subnets = subnetsOf(lease)
    const isShared = (other: Lease) =>
      overlapAny(subnets, this.#prefixesOf(other)) || overlapAny(prefixes, subnetsOf(other))
    return new Set([...found].filter(isShared))
  }

  #claimsOf(lease: Lease): readonly Claim[] {
    const claims = this.#claims(lease)
    return [...publicAddresses(lease, identityIn(lease, claims)), ...claims]
  }

  #add(claim: Claim, lease: Lease, touched: Set<Lease>): void {
    const key = keyOf(claim)
    const found = this.#claimants.get(key)
    if (found === undefined) this.#claimants.set(key, lease)
    else {
      this.#touch(claim, found instanceof Set ? found : [found], touched)
      this.#claimants.set(key, found instanceof Set ? found.add(lease) : new Set([found, lease]))
      this.#recount(claim.code, key)
    }
  }

  #remove(claim: Claim, lease: Lease, touched: Set<Lease>): void {
    const key = keyOf(claim)
    const found = this.#claimants.get(key)
    if (!(found instanceof Set)) {
      if (found === lease) this.#claimants.delete(key)
      return
    }
    found.delete(lease)
    this.#touch(claim, found, touched)
    const [only] = found
    if (found.size === 1 && only !== undefined) this.#claimants.set(key, only)
    this.#recount(claim.code, key)
  }

  /** A public address takes nothing from others: of thousands with one, as behind NAT, none is looked at again. */
  #touch({ code }: Claim, others: Iterable<Lease>, touched: Set<Lease>): void {
    if (code !== 'PUBLIC_IP_CONFLICT') for (const other of others) touched.add(other)
  }

  #recount(code: ConditionCode, key: Key): void {
    const contested = this.#contested.get(code) ?? new Set()
    this.#contested.set(code, contested)
    if (this.#nodes(key).length > 1) contested.add(key)
    else contested.delete(key)
  }

  /** One claim per node, of two nodes at most: further ones are counted, not named. */
  #nodes(key: Key): readonly (Claim & { readonly lease: Lease })[] {
    const claims = new Map<string, Claim & { readonly lease: Lease }>()
    for (const lease of this.#claimantsOf(key)) {
      const claim = this.#claimsOf(lease).find((each) => keyOf(each) === key)
      if (claim !== undefined && !claims.has(claim.by)) claims.set(claim.by, { ...claim, lease })
      if (claims.size === 2) break
    }
    return [...claims.values()]
  }

  #claimantsOf(key: Key): Iterable<Lease> {
    const found = this.#claimants.get(key)
    return found instanceof Set ? found : found === undefined ? [] : [found]
  }

  /**
   * The older lease of another node that shares this one's addresses, or a value of its backend: that one is used.
   * Whoever comes later, by mistake or on purpose, takes nothing over.
   */
  older(lease: Lease): Older | undefined {
    if (this.#sharing.has(lease))
      for (const other of this.#overlapping(lease))
        if (this.#precedes(other, lease) && this.#mayKeep(other) && !this.#isOneNode(other, lease))
          return { lease: other, keeps: 'its addresses' }
    const counts = (other: Lease) => other !== lease && isOlder(other, lease) && this.#mayKeep(other)
    if (![...this.#contested.values()].some(({ size }) => size > 0)) return undefined
    for (const claim of this.#claims(lease))
      for (const other of this.#claimantsOf(keyOf(claim))) {
        if (!counts(other)) continue
        const same = this.#claims(other).find((each) => keyOf(each) === keyOf(claim))
        if (same !== undefined && same.by !== claim.by) return { lease: other, keeps: claim.text }
      }
    return undefined
  }

  /** Whether the first of two leases that share addresses is used rather than the second. */
  #precedes(a: Lease, b: Lease): boolean {
    if (this.#areHostsInside() || overlapAny(subnetsOf(a), subnetsOf(b))) return isOlder(a, b)
    return overlapAny(subnetsOf(a), publicPrefixes(b))
  }

  #isOneNode(a: Lease, b: Lease): boolean {
    const [left, right] = [identityIn(a, this.#claims(a)), identityIn(b, this.#claims(b))]
    return left === right && (left !== undefined || publicText(a) === publicText(b))
  }

  /** Raises or clears the condition of every kind of claim that there has been a conflict about. */
  report(health: Report): void {
    for (const [code, contested] of this.#contested) {
      const [first] = contested
      if (first === undefined) health.clear(code)
      else {
        const detail = `${this.#sentence(first)}${andMore(contested.size - 1)}`
        health.raise(code, detail, code === 'PUBLIC_IP_CONFLICT' ? this.#publicIpCure(this.#nodes(first)) : undefined)
      }
    }
    this.#reportSharing(health)
  }

  #reportSharing(health: Report): void {
    const found = this.#firstShared()
    if (found === undefined) {
      if (this.#isSharingReported) health.clear('SUBNET_CONFLICT')
      this.#isSharingReported = false
      return
    }
    const [used, other] = found
    const others = this.#sharing.size - 2
    const more = others > 0 ? ` (and ${others} more leases share addresses)` : ''
    const why = isOlder(used, other) ? 'the older one' : 'the one with the subnet'
    const detail = `${nameOf(used)} and ${nameOf(other)} share addresses; ${why}, ${idOf(used)}, is used`
    const isBySubnet = (used.rivals ?? []).includes(other) || overlapAny(subnetsOf(used), subnetsOf(other))
    const cure = isBySubnet || this.#areHostsInside() ? this.#sharingCure(other) : addressCure(other)
    health.raise('SUBNET_CONFLICT', `${detail}${more}`, cure)
    this.#isSharingReported = true
  }

  /** Two leases of different nodes that share addresses, the one that is used first. */
  #firstShared(): readonly [Lease, Lease] | undefined {
    for (const lease of this.#sharing) {
      if (!this.#isUsable(lease)) continue
      const [rival] = lease.rivals ?? []
      if (rival !== undefined) return [lease, rival]
      const others = [...this.#overlapping(lease)].filter(
        (other) => this.#isUsable(other) && !this.#isOneNode(other, lease)
      )
      const [other] = others
      if (other === undefined) continue
      const first = others.reduce((first, each) => (this.#precedes(each, first) ? each : first), lease)
      return [first, first === lease ? other : lease]
    }
    return undefined
  }

  /** Names two of the nodes: there may be thousands, all made from one image. */
  #sentence(key: Key): string {
    const nodes = this.#nodes(key)
    const found = this.#claimants.get(key)
    const more = (found instanceof Set ? found.size : 1) - nodes.length
    const named = nodes.map(({ lease }) => nameOf(lease)).join(' and by ')
    const [name, ...names] = nodes.map(({ lease }) => lease.node)
    const isOne = name !== undefined && names.every((other) => other === name)
    const hint = isOne
      ? ' (one name: a node whose address has changed and whose earlier lease is still there, or two of one name)'
      : ''
    return `${nodes[0]?.text} is published by ${named}${more > 0 ? `, and in ${more} more lease${more === 1 ? '' : 's'}` : ''}${hint}`
  }

  #isKubernetes({ node }: Lease): boolean {
    return node !== undefined && (this.#store ?? 'kubernetes') === 'kubernetes'
  }

  #publicIpCure(nodes: readonly (Claim & { readonly lease: Lease })[]): string {
    if (nodes.every(({ lease }) => this.#isKubernetes(lease)))
      return `delete the Node object ${nodes.map(({ by }) => by).join(' or ')}, whichever has no machine (kubectl delete node)`
    const keys = nodes.map(({ lease }) => leaseKey(lease)).join(' or ')
    return `give each node an address of its own (--iface, --public-ip); if one has no machine any more, delete its lease, ${keys}`
  }

  #sharingCure(younger: Lease): string {
    return this.#isKubernetes(younger)
      ? `drain node ${younger.node} and delete its Node object (kubectl delete node ${younger.node}): its kubelet registers it again, with a podCIDR of its own`
      : `drain ${idOf(younger)}, stop its weftd, delete its lease ${leaseKey(younger)} and start weftd again`
  }
}

const keyOf = ({ code, key }: Claim): Key => `${code} ${key}`

const subnetsOf = ({ subnet }: Lease): readonly Prefix[] => perFamily(subnet).map(([, prefix]) => prefix)

const publicPrefixes = ({ publicIp }: Lease): readonly Prefix[] => perFamily(publicIp).map(([, ip]) => hostPrefix(ip))

const overlapAny = (some: readonly Prefix[], others: readonly Prefix[]): boolean =>
  some.some((one) => others.some((other) => overlaps(one, other)))

const addressCure = (lease: Lease): string =>
  `make the node of ${idOf(lease)} publish an address of a host (--iface, --public-ip), not of a pod`

const publicText = ({ publicIp }: Lease): string =>
  perFamily(publicIp)
    .map(([, ip]) => formatIp(ip))
    .join(', ')

const idOf = (lease: Lease): string => lease.node ?? `lease ${leaseKey(lease)}`

function nameOf(lease: Lease): string {
  const subnets = perFamily(lease.subnet).map(([, prefix]) => formatPrefix(prefix))
  return `${idOf(lease)} (public address ${publicText(lease)}, subnet ${subnets.join(', ')})`
}

/** What tells nodes apart: the name, else what the backend claims. `undefined` where there is neither. */
const identityIn = ({ node }: Lease, claims: readonly Claim[]): string | undefined =>
  node ?? (claims.length === 0 ? undefined : claims.map(keyOf).join(' '))

/** Claimed by whatever identifies the node; without that, two leases with one address are two nodes'. */
const publicAddresses = (lease: Lease, identity: string | undefined): readonly Claim[] =>
  perFamily(lease.publicIp).map(([, ip]): Claim => {
    const address = formatIp(ip)
    return { code: 'PUBLIC_IP_CONFLICT', key: address, text: address, by: identity ?? leaseKey(lease) }
  })

/** Whether the backend data of both identify nodes, and not one. */
export function areOfTwoNodes(a: Lease, b: Lease, claims: (lease: Lease) => readonly Claim[]): boolean {
  const [left, right] = [claims(a).map(keyOf), claims(b).map(keyOf)]
  return left.length > 0 && right.length > 0 && !left.some((key) => right.includes(key))
}
