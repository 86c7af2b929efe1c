// Direct routes to peers on our own link: all that host-gw does, and what vxlan does where encapsulation is not needed.
import { contains, type Ip, isLoopback, type Prefix, sameIp } from '../../ipam/address.ts'
import type { Node } from '../state/node.ts'
import { defaultMetric, type Route } from '../state/object.ts'
import { ROUTE_PROTOCOL } from '../state/ownership.ts'

/** Whether `ip` is on our link: in the prefix of one of the device's addresses. */
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
