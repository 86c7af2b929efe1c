// Plain routes to peers on our own link: what host-gw is, and what vxlan does where nothing needs to be encapsulated.
import { contains, type Ip, isLoopback, type Prefix, sameIp } from '../../ipam/address.ts'
import type { Node } from '../state/node.ts'
import { defaultMetric, type Route } from '../state/object.ts'
import { ROUTE_PROTOCOL } from '../state/ownership.ts'

/** Whether packets to `ip` leave by our device without a router between: it lies in a prefix of one of the device's addresses. */
export function onLink(node: Node, ip: Ip): boolean {
  return !isLoopback(ip) && node.addresses.some((prefix) => contains(prefix, ip) && !sameIp(prefix.ip, ip))
}

/** `SUBNET via PUBLIC-IP dev DEVICE`. */
export function directRoute(node: Node, subnet: Prefix, publicIp: Ip, because: string): Route {
  return {
    kind: 'route',
    table: 254,
    destination: subnet,
    metric: defaultMetric(subnet.ip.family),
    type: 'unicast',
    device: node.device,
    gateway: publicIp,
    protocol: ROUTE_PROTOCOL,
    because
  }
}
