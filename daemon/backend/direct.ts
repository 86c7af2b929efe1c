// Direct routes to peers on our own link: all that host-gw does, and what vxlan does with DirectRouting where
// encapsulation is not needed.
import { hostPrefix, type Ip, type Prefix } from '../../ipam/address.ts'
import { type Lease, leaseKey } from '../lease/lease.ts'
import type { RouteLookup } from '../state/kernel.ts'
import type { Node } from '../state/node.ts'
import type { Route } from '../state/object.ts'
import { ROUTE_PROTOCOL } from '../state/ownership.ts'
import { defaultMetric, MAIN_TABLE } from '../state/route.ts'
import type { PeerRoutes } from './backend.ts'

/**
 * Whether a peer is on our link: the kernel's route to its public address has no gateway and leaves by the node's
 * device. Our prefix says nothing of that, since a node with an address of it may be behind a router (VPN, /32 route).
 * And a device that resolves no next hops ignores them: the far end of WireGuard or a tunnel decides by the inner
 * destination.
 */
export const isOnLink = (node: Node, route: RouteLookup | undefined): boolean =>
  route !== undefined && route.device === node.device && route.gateway === undefined && route.pointToPoint !== true

/** `SUBNET via PUBLIC-IP dev DEVICE`. */
export function directRoute(node: Node, subnet: Prefix, publicIp: Ip, because: string): Route {
  return {
    kind: 'route',
    table: MAIN_TABLE,
    destination: subnet,
    metric: defaultMetric(subnet.ip.family),
    type: 'unicast',
    device: node.device,
    gateway: publicIp,
    protocol: ROUTE_PROTOCOL,
    because
  }
}

/**
 * Type of service of probes that try a plain route: a code point for local use (RFC 2474, pool 2) among those by which
 * every kernel looks routes up. A peer's answer has it too.
 */
export const TRIAL_TOS = 0x0c

/** Trial routes to a peer on our link. IPv6 routes have no type of service. */
export function trialRoutes(lease: Lease, node: Node, routes: PeerRoutes): readonly Route[] {
  const [subnet, publicIp] = [lease.subnet[4], lease.publicIp[4]]
  if (subnet === undefined || publicIp === undefined || node.subnet[4] === undefined) return []
  if (!isOnLink(node, routes[4])) return []
  return [trialRoute(node, subnet.ip, publicIp, `trial of a plain route to lease ${leaseKey(lease)}`)]
}

/** `ADDRESS tos 0x0c via PUBLIC-IP dev DEVICE`: only probes take it. */
const trialRoute = (node: Node, held: Ip, publicIp: Ip, because: string): Route => ({
  ...directRoute(node, hostPrefix(held), publicIp, because),
  tos: TRIAL_TOS
})
