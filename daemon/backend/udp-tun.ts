// The udp backend on a kernel without FOU: a TUN device, whose packets a process carries (daemon/udp). A route for each
// lease, so that the kernel answers for all other addresses.
import { hostPrefix, type Ip, type Prefix } from '../../ipam/address.ts'
import type { Feature } from '../state/feature.ts'
import { LEAST_MTU, type Node } from '../state/node.ts'
import type { KernelObject, Route } from '../state/object.ts'
import { type Recognised, ROUTE_PROTOCOL } from '../state/ownership.ts'
import { defaultMetric, MAIN_TABLE } from '../state/route.ts'
import type { Device } from './backend.ts'

/** As flanneld's. */
export const TUN_DEVICE = 'flannel0'
/** With the usual 500 bursts of large packets are lost. */
const QUEUE_LENGTH = 1_000

export const tunFeatures = (): readonly Feature[] => [{ kind: 'link', name: 'try-tun', form: { type: 'tun' } }]

/** flanneld's device of this name goes with flanneld, and is another program's until then. */
export function recognisesTun({ name, form }: Device): Recognised | undefined {
  if (name !== TUN_DEVICE) return undefined
  if (form === undefined) return 'adoptable'
  return form.type === 'tun' ? 'own' : 'foreign'
}

export function ownTun(node: Node, port: number, mtu: number): readonly KernelObject[] {
  const [subnet, local] = [node.subnet[4], node.localIp[4]]
  if (subnet === undefined || local === undefined) return []
  const [device, because] = [TUN_DEVICE, `our end of the UDP tunnel on port ${port}`]
  const sysctl = (path: string, value: string): KernelObject => ({ kind: 'sysctl', path, value, because })
  return [
    { kind: 'link', name: device, form: { type: 'tun' }, mtu, queueLength: QUEUE_LENGTH, up: true, because },
    { kind: 'address', device, prefix: hostPrefix(subnet.ip), scope: 0, because },
    { kind: 'tunnel-socket', device, local, port, because },
    // A peer may answer outside of the tunnel what we send through it.
    sysctl(`net/ipv4/conf/${device}/rp_filter`, '2'),
    sysctl(`net/ipv4/conf/${device}/forwarding`, '1'),
    ...(node.ipv6 && mtu >= LEAST_MTU[6] ? [sysctl(`net/ipv6/conf/${device}/disable_ipv6`, '1')] : [])
  ]
}

export function peerByTun(subnet: Prefix, to: Ip, because: string): readonly KernelObject[] {
  const route: Route = {
    ...{ kind: 'route', table: MAIN_TABLE, destination: subnet, metric: defaultMetric(4), type: 'unicast' },
    ...{ device: TUN_DEVICE, protocol: ROUTE_PROTOCOL, because }
  }
  return [{ kind: 'tunnel-peer', device: TUN_DEVICE, subnet, to, because }, route]
}
