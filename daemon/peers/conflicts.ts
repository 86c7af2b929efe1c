// Two nodes that claim the same thing: one VTEP MAC, so that a tunnel leads to one of them only, or one public address. A lease costs the same however many there are. Pure.
import { formatIp, formatPrefix, perFamily } from '../../ipam/address.ts'
import { publishedVtepMac } from '../backend/vtep-mac.ts'
import type { ConditionCode } from '../health/conditions.ts'
import { type Lease, leaseKey } from '../lease/lease.ts'

type Conflict = Extract<ConditionCode, 'VTEP_MAC_CONFLICT' | 'PUBLIC_IP_CONFLICT'>

type Claim = {
  readonly code: Conflict
  /** What is claimed, with the tunnel's family: each has MACs of its own. */
  readonly what: string
  readonly text: string
  /** Who claims it: two leases of one node are no conflict, such as one of yesterday that has not expired yet. */
  readonly by: string
}

const CODES: readonly Conflict[] = ['VTEP_MAC_CONFLICT', 'PUBLIC_IP_CONFLICT']

export class Conflicts {
  /** The lease that claims it; a set only where there are several, since of thousands nearly all are alone. */
  readonly #claimants = new Map<string, Lease | Set<Lease>>()
  /** What more than one node claims. */
  readonly #contested = { VTEP_MAC_CONFLICT: new Set<string>(), PUBLIC_IP_CONFLICT: new Set<string>() }

  /** What a lease was before, if it was, and is now, if it is; of whichever node, ours included. */
  replace(before: Lease | undefined, now: Lease | undefined): void {
    if (before !== undefined) for (const claim of claimsOf(before)) this.#take(claim, before)
    if (now !== undefined) for (const claim of claimsOf(now)) this.#give(claim, now)
  }

  #give({ code, what }: Claim, lease: Lease): void {
    const found = this.#claimants.get(what)
    if (found === undefined) this.#claimants.set(what, lease)
    else {
      this.#claimants.set(what, found instanceof Set ? found.add(lease) : new Set([found, lease]))
      this.#weigh(code, what)
    }
  }

  #take({ code, what }: Claim, lease: Lease): void {
    const found = this.#claimants.get(what)
    if (!(found instanceof Set)) {
      if (found === lease) this.#claimants.delete(what)
      return
    }
    found.delete(lease)
    const [only] = found
    if (found.size === 1 && only !== undefined) this.#claimants.set(what, only)
    this.#weigh(code, what)
  }

  #weigh(code: Conflict, what: string): void {
    if (this.#nodes(what).length > 1) this.#contested[code].add(what)
    else this.#contested[code].delete(what)
  }

  /** A claim of each node, of two at the most: more are counted, not named. */
  #nodes(what: string): readonly (Claim & { readonly lease: Lease })[] {
    const found = this.#claimants.get(what)
    const claims = new Map<string, Claim & { readonly lease: Lease }>()
    for (const lease of found instanceof Set ? found : found === undefined ? [] : [found]) {
      const claim = claimsOf(lease).find((each) => each.what === what)
      if (claim !== undefined && !claims.has(claim.by)) claims.set(claim.by, { ...claim, lease })
      if (claims.size === 2) break
    }
    return [...claims.values()]
  }

  /** Raises or clears both conditions. */
  tell(report: { raise(code: Conflict, detail: string): void; clear(code: Conflict): void }): void {
    for (const code of CODES) {
      const [first] = this.#contested[code]
      if (first === undefined) report.clear(code)
      else {
        const others = this.#contested[code].size - 1
        report.raise(code, `${this.#told(first)}${others === 0 ? '' : ` (and ${others} more)`}`)
      }
    }
  }

  /** Two of the nodes, since thousands made from one image would fill a book. */
  #told(what: string): string {
    const nodes = this.#nodes(what)
    const found = this.#claimants.get(what)
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

function nameOf(lease: Lease): string {
  const ips = perFamily(lease.publicIp).map(([, ip]) => formatIp(ip))
  const subnets = perFamily(lease.subnet).map(([, prefix]) => formatPrefix(prefix))
  return `${lease.node ?? `lease ${leaseKey(lease)}`} (public address ${ips.join(', ')}, subnet ${subnets.join(', ')})`
}

/**
 * Claimants of a MAC are told apart by their public address, which is where the tunnel leads; those of an address by their name, which only Kubernetes has:
 * elsewhere the address is the node.
 */
const claimsOf = (lease: Lease): readonly Claim[] =>
  perFamily(lease.publicIp).flatMap(([family, ip]) => {
    const address = formatIp(ip)
    const mac = lease.backendType === 'vxlan' ? publishedVtepMac(lease.backendData[family]).mac : undefined
    const claims: Claim[] = []
    if (mac !== undefined) claims.push({ code: 'VTEP_MAC_CONFLICT', what: `${family} ${mac}`, text: mac, by: address })
    if (lease.node !== undefined)
      claims.push({ code: 'PUBLIC_IP_CONFLICT', what: address, text: address, by: lease.node })
    return claims
  })
