// The udp backend on a kernel without FOU: a TUN device, whose packets a process carries (daemon/udp). A route for each
// lease, so that the kernel answers for all other addresses.
import { formatIp, hostPrefix } from '../../ipam/address.ts'
import { type Lease, leaseKey } from '../lease/lease.ts'
import type { Node } from '../state/node.ts'
import type { KernelObject } from '../state/object.ts'
import { type Recognised, ROUTE_PROTOCOL } from '../state/ownership.ts'
import { defaultMetric, MAIN_TABLE } from '../state/route.ts'
import type { Device } from './backend.ts'

/** As flanneld's. */
export const TUN_DEVICE = 'flannel0'
/** With the usual 500 bursts of large packets are lost. */
const QUEUE_LENGTH = 1_000

/** flanneld's device of this name goes with flanneld, and is another program's until then. */
export function recognisesTun({ name, form }: Device): Recognised | undefined {
  if (name !== TUN_DEVICE) return undefined
  if (form === undefined) return 'adoptable'
  return form.type === 'tun' ? 'own' : 'foreign'
}

export function ownTun(node: Node, port: number, mtu: number): readonly KernelObject[] {
  const [subnet, local] = [node.subnet[4], node.localIp[4]]
  if (subnet === undefined || local === undefined) return []
  const [device, because] = [TUN_DEVICE, `our end of udp port ${port}`]
  const sysctl = (path: string, value: string): KernelObject => ({ kind: 'sysctl', path, value, because })
  return [
    { kind: 'link', name: device, form: { type: 'tun' }, mtu, queueLength: QUEUE_LENGTH, up: true, because },
    { kind: 'address', device, prefix: hostPrefix(subnet.ip), scope: 0, because },
    { kind: 'tunnel-socket', device, local, port, because },
    // What we answer outside of the tunnel comes back through it where a node has no route of its own.
    sysctl(`net/ipv4/conf/${device}/rp_filter`, '2'),
    sysctl(`net/ipv4/conf/${device}/forwarding`, '1'),
    ...(node.ipv6 && mtu >= 1_280 ? [sysctl(`net/ipv6/conf/${device}/disable_ipv6`, '1')] : [])
  ]
}

/** Nothing for a lease without an IPv4 subnet and address. */
export function peerByTun(lease: Lease): readonly KernelObject[] {
  const [subnet, to] = [lease.subnet[4], lease.publicIp[4]]
  if (subnet === undefined || to === undefined) return []
  const [device, because] = [TUN_DEVICE, `lease ${leaseKey(lease)} of ${formatIp(to)}`]
  return [
    { kind: 'tunnel-peer', device, subnet, to, because },
    {
      kind: 'route',
      table: MAIN_TABLE,
      destination: subnet,
      metric: defaultMetric(4),
      type: 'unicast',
      device,
      protocol: ROUTE_PROTOCOL,
      because
    }
  ]
}
