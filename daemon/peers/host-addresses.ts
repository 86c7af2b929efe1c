// Addresses that can't be another node's as this host sees it, so that no lease is used that publishes one: addresses
// of this host, broadcast and anycast addresses of its networks, addresses of its pods, link-local ones of no link.
import {
  contains,
  formatIp,
  type Ip,
  isLinkLocal,
  network,
  type PerFamily,
  type Prefix,
  perFamily,
  rangeOf,
  width
} from '../../ipam/address.ts'
import type { Lease } from '../lease/lease.ts'
import type { Node } from '../state/node.ts'
import { addressesIn, linkNamed, type State } from '../state/object.ts'
import { earlierSubnets, type HostView, hostNetworks } from './host-networks.ts'

export type HostAddresses = {
  /** What an address is here, by its text: the kernel delivers packets to it itself, or to a whole link. */
  readonly taken: ReadonlyMap<string, string>
  /** The networks of link-local IPv4 addresses that links of this host have. */
  readonly linkLocal: readonly Prefix[]
}

/** All addresses count, whatever they are for: the kernel sends a packet to none of them to another host. */
export function hostAddresses(observed: State): HostAddresses {
  const addresses = addressesIn(observed)
  const taken = new Map<string, string>()
  for (const { device, prefix } of addresses) {
    const shared = linkNamed(observed, device)?.up === false ? undefined : sharedAddress(prefix)
    if (shared !== undefined) taken.set(formatIp(shared.ip), `the ${shared.what} address of the network of ${device}`)
  }
  for (const { device, prefix } of addresses) taken.set(formatIp(prefix.ip), `an address of ${device} on this host`)
  const linkLocal = addresses.flatMap(({ prefix }) =>
    prefix.ip.family === 4 && isLinkLocal(prefix.ip) ? [network(prefix)] : []
  )
  return { taken, linkLocal }
}

/**
 * The address of a network that the kernel gives to no single host: of IPv4 the last (fib_add_ifaddr), of IPv6 the
 * first, which is that of all routers (RFC 4291, 2.6.1; addrconf_join_anycast).
 */
function sharedAddress(prefix: Prefix): { readonly ip: Ip; readonly what: string } | undefined {
  const { family } = prefix.ip
  if (prefix.length > width(family) - 2 || (family === 6 && isLinkLocal(prefix.ip))) return undefined
  const { first, last } = rangeOf(prefix)
  return family === 4 ? { ip: last, what: 'broadcast' } : { ip: first, what: 'anycast' }
}

export type Observed = {
  readonly occupied: readonly Prefix[]
  readonly host: HostAddresses
  /** Those of `occupied` that the bridge of pods has from an earlier subnet. */
  readonly earlier?: readonly Prefix[]
}

/** What of this host leases must not claim. */
export const observedHost = (observed: State, view: HostView): Observed => ({
  occupied: hostNetworks(observed, view),
  host: hostAddresses(observed),
  earlier: earlierSubnets(observed, view)
})

/** What leases are compared with. */
export type LocalAddresses = { readonly node: Pick<Node, 'publicIp' | 'subnet'>; readonly host?: HostAddresses }

/** Why a public address, other than our own, can't be that of another node. */
function whyNoNode(ip: Ip, { node, host }: LocalAddresses): string | undefined {
  const own = node.subnet[ip.family]
  if (own !== undefined && contains(own, ip)) return "an address of this node's pods"
  const taken = host?.taken.get(formatIp(ip))
  if (taken !== undefined) return taken
  // No router forwards these (RFC 3927, 7), but hosts on one link may use them.
  if (host === undefined || ip.family === 6 || !isLinkLocal(ip)) return undefined
  const ours = node.publicIp[4]
  const isOnLink = (ours !== undefined && isLinkLocal(ours)) || host.linkLocal.some((prefix) => contains(prefix, ip))
  return isOnLink ? undefined : 'a link-local address, and no link of this host has its network'
}

/** The fault of the public addresses of a lease; they are not our own. */
export function addressFault(publicIp: PerFamily<Ip>, view: LocalAddresses): string | undefined {
  for (const [, ip] of perFamily(publicIp)) {
    const why = whyNoNode(ip, view)
    if (why !== undefined)
      return `publishes ${formatIp(ip)}, ${why}; its node must publish another (--iface, --public-ip)`
  }
  return undefined
}

/** The keys of the leases whose public addresses mean something else since the host has changed. */
export function concernedBy(
  leases: Iterable<readonly [string, Pick<Lease, 'publicIp'>]>,
  before: LocalAddresses,
  now: LocalAddresses
): readonly string[] {
  if (sameAddresses(before.host, now.host)) return []
  return [...leases]
    .filter(([, { publicIp }]) => addressFault(publicIp, before) !== addressFault(publicIp, now))
    .map(([key]) => key)
}

const sameAddresses = (a: HostAddresses | undefined, b: HostAddresses | undefined): boolean =>
  a !== undefined && a.taken.size === b?.taken.size && [...a.taken].every(([ip, what]) => b.taken.get(ip) === what)
