// Conflicts between leases: several nodes publish one public address, or one value that their backend claims, such as a
// VTEP MAC. Constant cost per lease.
import { formatIp, formatPrefix, perFamily } from '../../ipam/address.ts'
import type { Claim } from '../backend/backend.ts'
import type { ConditionCode } from '../health/conditions.ts'
import type { Report } from '../health/report.ts'
import { type Lease, leaseKey } from '../lease/lease.ts'

type Key = `${ConditionCode} ${string}`

export class Conflicts {
  /** What a backend claims for a lease. */
  readonly #claims: (lease: Lease) => readonly Claim[]
  /**
   * The lease that claims a key; a set only where there are several, since of thousands nearly all have no conflict.
   */
  readonly #claimants = new Map<Key, Lease | Set<Lease>>()
  /** Keys that more than one node claims, by condition. */
  readonly #contested = new Map<ConditionCode, Set<Key>>()

  constructor(claims: (lease: Lease) => readonly Claim[]) {
    this.#claims = claims
  }

  /** `before`: the lease as it was, if it existed; `now`: as it is, if it still exists. Of any node, ours included. */
  replace(before: Lease | undefined, now: Lease | undefined): void {
    if (before !== undefined) for (const claim of this.#claimsOf(before)) this.#remove(claim, before)
    if (now !== undefined) for (const claim of this.#claimsOf(now)) this.#add(claim, now)
  }

  #claimsOf(lease: Lease): readonly Claim[] {
    return [...publicAddresses(lease), ...this.#claims(lease)]
  }

  #add(claim: Claim, lease: Lease): void {
    const key = keyOf(claim)
    const found = this.#claimants.get(key)
    if (found === undefined) this.#claimants.set(key, lease)
    else {
      this.#claimants.set(key, found instanceof Set ? found.add(lease) : new Set([found, lease]))
      this.#recount(claim.code, key)
    }
  }

  #remove(claim: Claim, lease: Lease): void {
    const key = keyOf(claim)
    const found = this.#claimants.get(key)
    if (!(found instanceof Set)) {
      if (found === lease) this.#claimants.delete(key)
      return
    }
    found.delete(lease)
    const [only] = found
    if (found.size === 1 && only !== undefined) this.#claimants.set(key, only)
    this.#recount(claim.code, key)
  }

  #recount(code: ConditionCode, key: Key): void {
    const contested = this.#contested.get(code) ?? new Set()
    this.#contested.set(code, contested)
    if (this.#nodes(key).length > 1) contested.add(key)
    else contested.delete(key)
  }

  /** One claim per node, of two nodes at most: further ones are counted, not named. */
  #nodes(key: Key): readonly (Claim & { readonly lease: Lease })[] {
    const found = this.#claimants.get(key)
    const claims = new Map<string, Claim & { readonly lease: Lease }>()
    for (const lease of found instanceof Set ? found : found === undefined ? [] : [found]) {
      const claim = this.#claimsOf(lease).find((each) => keyOf(each) === key)
      if (claim !== undefined && !claims.has(claim.by)) claims.set(claim.by, { ...claim, lease })
      if (claims.size === 2) break
    }
    return [...claims.values()]
  }

  /** Raises or clears the condition of every kind of claim that there has been a conflict about. */
  report(health: Report): void {
    for (const [code, contested] of this.#contested) {
      const [first] = contested
      if (first === undefined) health.clear(code)
      else {
        const others = contested.size - 1
        const detail = `${this.#sentence(first)}${others === 0 ? '' : ` (and ${others} more)`}`
        health.raise(code, detail, code === 'PUBLIC_IP_CONFLICT' ? publicIpCure(this.#nodes(first)) : undefined)
      }
    }
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
}

const keyOf = ({ code, key }: Claim): Key => `${code} ${key}`

function nameOf(lease: Lease): string {
  const ips = perFamily(lease.publicIp).map(([, ip]) => formatIp(ip))
  const subnets = perFamily(lease.subnet).map(([, prefix]) => formatPrefix(prefix))
  return `${lease.node ?? `lease ${leaseKey(lease)}`} (public address ${ips.join(', ')}, subnet ${subnets.join(', ')})`
}

const publicIpCure = (nodes: readonly Claim[]): string =>
  `delete the Node object ${nodes.map(({ by }) => by).join(' or ')}, whichever has no machine (kubectl delete node)`

/**
 * Claimed by the node's name, which only Kubernetes has: in other stores a node has no other identity than its address.
 */
const publicAddresses = ({ node, publicIp }: Lease): readonly Claim[] =>
  perFamily(publicIp).flatMap(([, ip]): readonly Claim[] => {
    const address = formatIp(ip)
    return node === undefined ? [] : [{ code: 'PUBLIC_IP_CONFLICT', key: address, text: address, by: node }]
  })
