// host-gw backend: direct routes via the other nodes' addresses, no encapsulation. All nodes must be on one link.
import { formatIp, formatPrefix, type Ip, type PerFamily, perFamily } from '../../ipam/address.ts'
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
import { gatewayHolder, gatewayOf, isHolder } from './gateway-holder.ts'
import { underlayMtu } from './underlay-mtu.ts'

export type HostGwConfig = {
  /** MTU in bytes for pods, where the interface's own is not the right one. 0: the interface's. */
  readonly mtu: number
}

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
    isHolder(name) && (form === undefined || form.type === 'bridge') ? 'own' : undefined,

  claims: (): readonly Claim[] => [],

  namesOurDevice: (): boolean => false,

  namesAnotherDevice: (): boolean => false,

  mtu: (node: Node, config: HostGwConfig): number => carried(node, config),

  underlayMtu: (node: Node, config: HostGwConfig): number => carried(node, config),

  publish: (): PerFamily<Json> => ({}),

  own: (node: Node): readonly KernelObject[] => gatewayHolder(node),

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
