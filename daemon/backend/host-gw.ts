// host-gw backend: direct routes via the other nodes' addresses, no encapsulation. All nodes must be on one link.
import {
  formatIp,
  formatPrefix,
  hostPrefix,
  type Ip,
  offset,
  type PerFamily,
  type Prefix,
  perFamily
} from '../../ipam/address.ts'
import { WeftError } from '../base/error.ts'
import type { Json, JsonObject } from '../config/json.ts'
import { integerKey } from '../config/keys.ts'
import { type Lease, leaseKey } from '../lease/lease.ts'
import type { RouteLookup } from '../state/kernel.ts'
import type { Node } from '../state/node.ts'
import type { KernelObject, Link } from '../state/object.ts'
import type { Recognised } from '../state/ownership.ts'
import type { Backend, Claim, Device, PeerRoutes } from './backend.ts'
import { directRoute, isOnLink } from './direct.ts'
import { underlayMtu } from './underlay-mtu.ts'

export type HostGwConfig = {
  /** MTU in bytes for pods, where the interface's own is not the right one. 0: the interface's. */
  readonly mtu: number
}

/**
 * A bridge without ports: a device that every kernel which can have pods has, and whose addresses are local without a
 * carrier. It holds the gateway's address, which the pods' own bridge has from the first pod on only, so that probes of
 * the other nodes are always answered.
 */
const HOLDER = 'weft-gw'

const carried = (node: Node, { mtu }: HostGwConfig): number =>
  underlayMtu(
    mtu,
    node,
    perFamily(node.subnet).map(([family]) => [family, 0])
  )

export const hostGw = {
  type: 'host-gw',
  keys: {
    MTU: { rule: "0, or 68 (with IPv6 1280) to the link's", default: "the link's", meaning: 'MTU that pods get' }
  },

  config: (keys: JsonObject): HostGwConfig => ({ mtu: integerKey(keys, 'MTU', { default: 0, min: 0, max: 65_535 }) }),

  features: (): readonly Link[] => [],

  recognises: ({ name, form }: Device): Recognised | undefined =>
    name === HOLDER && (form === undefined || form.type === 'bridge') ? 'own' : undefined,

  claims: (): readonly Claim[] => [],

  namesOurDevice: (): boolean => false,

  namesAnotherDevice: (): boolean => false,

  mtu: (node: Node, config: HostGwConfig): number => carried(node, config),

  underlayMtu: (node: Node, config: HostGwConfig): number => carried(node, config),

  publish: (): PerFamily<Json> => ({}),

  own: (node: Node): readonly KernelObject[] => holder(node),

  held: gatewayOf,
  heldByAll: false,

  asksRoutes: (): boolean => true,

  peer: (lease: Lease, node: Node, _: HostGwConfig, routes: PeerRoutes): readonly KernelObject[] =>
    perFamily(lease.subnet).flatMap(([family, subnet]) => {
      const publicIp = lease.publicIp[family]
      if (node.subnet[family] === undefined) return []
      if (publicIp === undefined)
        throw new WeftError(
          'LEASE_MALFORMED',
          `lease ${leaseKey(lease)} has a subnet ${formatPrefix(subnet)} but no public IPv${family} address`,
          'restart the daemon of the node that holds it, or delete the key'
        )
      const route = routes[family]
      if (!isOnLink(node, route)) throw offLink(lease, node, publicIp, route)
      return [directRoute(node, subnet, publicIp, `lease ${leaseKey(lease)} of ${formatIp(publicIp)}`)]
    })
} satisfies Backend<HostGwConfig>

/** The pods' gateway: flanneld's nodes have it on their bridge, from their first pod on. */
function gatewayOf(subnet: Prefix): Ip {
  return offset(subnet.ip, 1n) ?? subnet.ip
}

function holder(node: Node): readonly KernelObject[] {
  const because = 'answers to probes of other nodes'
  const families = perFamily(node.subnet).filter(([family]) => family === 4 || node.ipv6)
  const setting = (name: string, value: string): KernelObject => ({
    ...{ kind: 'sysctl', path: `net/ipv6/conf/${HOLDER}/${name}`, value, because }
  })
  return [
    { kind: 'link', name: HOLDER, form: { type: 'bridge' }, up: true, because },
    ...families.map(
      ([, subnet]): KernelObject => ({
        ...{ kind: 'address', device: HOLDER, prefix: hostPrefix(gatewayOf(subnet)), scope: 0, nodad: true, because }
      })
    ),
    ...(node.ipv6 ? [setting('accept_ra', '0')] : []),
    ...(families.some(([family]) => family === 6) ? [setting('disable_ipv6', '0')] : [])
  ]
}

function offLink(lease: Lease, node: Node, publicIp: Ip, route: RouteLookup | undefined): WeftError {
  const name = lease.node === undefined ? `the node of lease ${leaseKey(lease)}` : lease.node
  const way =
    route === undefined
      ? 'the kernel has no route to it'
      : `the kernel's route to it is ${route.gateway === undefined ? '' : `via ${formatIp(route.gateway)} `}dev ${route.device}${route.pointToPoint ? ', which resolves no next hops' : ''}`
  return new WeftError(
    'PEER_OFF_LINK',
    `${name} (${formatIp(publicIp)}, subnet ${leaseKey(lease)}) is not on the link of ${node.device}: ${way}`,
    'set Backend.Type to vxlan, which reaches nodes behind a router, or put all nodes on one link'
  )
}
