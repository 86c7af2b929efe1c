// What the backends on ipip devices have in common: IPv4 alone, one device to all nodes, and a route for each lease whose
// gateway is the outer destination.
import { formatIp, formatPrefix, hostPrefix, type Ip, type Prefix } from '../../ipam/address.ts'
import { WeftError } from '../base/error.ts'
import { invalid } from '../config/keys.ts'
import { type Lease, leaseKey } from '../lease/lease.ts'
import type { FouEncapsulation } from '../state/ip-tunnel.ts'
import type { Node } from '../state/node.ts'
import type { KernelObject, Route } from '../state/object.ts'
import { ROUTE_PROTOCOL } from '../state/ownership.ts'
import { MAIN_TABLE } from '../state/route.ts'
import { underlayMtu } from './underlay-mtu.ts'

/**
 * The interface's MTU, which carries `overhead` bytes around a pod's packet. Errors: CONFIG_INVALID when it is too
 * small, and for a network with IPv6.
 */
export function ipv4Underlay(type: string, node: Node, overhead: number): number {
  if (node.subnet[6] !== undefined)
    throw invalid({ path: 'EnableIPv6' }, true, `false with Backend.Type "${type}", which carries IPv4 only`)
  return underlayMtu(0, node, [[4, overhead]])
}

/**
 * The device, with the subnet's network address. Loose reverse path filter and forwarding, whatever net.ipv4.conf.default
 * says: a peer may answer outside of the tunnel what we send through it.
 */
export function ipipDevice(
  { subnet, localIp }: Node,
  device: { readonly name: string; readonly mtu: number; readonly fou?: FouEncapsulation; readonly because: string }
): readonly KernelObject[] {
  const [prefix, local] = [subnet[4], localIp[4]]
  if (prefix === undefined || local === undefined) return []
  const { name, mtu, fou, because } = device
  const form = { type: 'ipip', local, ...(fou && { fou }) } as const
  return [
    { kind: 'link', name, form, mtu, up: true, because },
    { kind: 'address', device: name, prefix: hostPrefix(prefix.ip), scope: 0, because },
    { kind: 'sysctl', path: `net/ipv4/conf/${name}/rp_filter`, value: '2', because },
    { kind: 'sysctl', path: `net/ipv4/conf/${name}/forwarding`, value: '1', because }
  ]
}

/** A peer's subnet, public address and reason; `undefined` without IPv4. Errors: LEASE_MALFORMED. */
export function ipv4Peer(
  lease: Lease
): { readonly subnet: Prefix; readonly publicIp: Ip; readonly because: string } | undefined {
  const [subnet, publicIp] = [lease.subnet[4], lease.publicIp[4]]
  if (subnet === undefined) return undefined
  if (publicIp === undefined)
    throw new WeftError(
      'LEASE_MALFORMED',
      `lease ${leaseKey(lease)} has a subnet ${formatPrefix(subnet)} but no public IPv4 address`,
      'restart the daemon of the node that holds it, or delete the key'
    )
  return { subnet, publicIp, because: `lease ${leaseKey(lease)} of ${formatIp(publicIp)}` }
}

/** `SUBNET via PUBLIC-IP dev DEVICE onlink`: no prefix of the device covers the gateway. */
export const tunnelRoute = (device: string, subnet: Prefix, gateway: Ip, because: string): Route => ({
  ...{ kind: 'route', table: MAIN_TABLE, destination: subnet, metric: 0, type: 'unicast' },
  ...{ device, gateway, onlink: true, protocol: ROUTE_PROTOCOL, because }
})
