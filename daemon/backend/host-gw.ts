// host-gw backend: direct routes via the other nodes' addresses, no encapsulation. All nodes must be on one link.
import { formatIp, formatPrefix, type PerFamily, perFamily } from '../../ipam/address.ts'
import { WeftError } from '../base/error.ts'
import type { Json, JsonObject } from '../config/json.ts'
import { integerKey } from '../config/keys.ts'
import { type Lease, leaseKey } from '../lease/lease.ts'
import type { Node } from '../state/node.ts'
import type { KernelObject, Link } from '../state/object.ts'
import type { Backend, Claim } from './backend.ts'
import { directRoute, onLink } from './direct.ts'
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

  recognises: (): undefined => undefined,

  claims: (): readonly Claim[] => [],

  namesOurDevice: (): boolean => false,

  mtu: (node: Node, config: HostGwConfig): number => carried(node, config),

  underlayMtu: (node: Node, config: HostGwConfig): number => carried(node, config),

  publish: (): PerFamily<Json> => ({}),

  own: (): readonly KernelObject[] => [],

  peer: (lease: Lease, node: Node): readonly KernelObject[] =>
    perFamily(lease.subnet).flatMap(([family, subnet]) => {
      const publicIp = lease.publicIp[family]
      if (node.subnet[family] === undefined) return []
      if (publicIp === undefined || !onLink(node, publicIp)) {
        throw new WeftError(
          'LEASE_MALFORMED',
          `lease ${leaseKey(lease)}: ${publicIp ? formatIp(publicIp) : `no IPv${family} address`} is not on a link of ${node.device} (${node.addresses.map(formatPrefix).join(', ')}), so host-gw can't route to it`,
          'use the vxlan backend, which encapsulates for nodes behind a router'
        )
      }
      return [directRoute(node, subnet, publicIp, `lease ${leaseKey(lease)} of ${formatIp(publicIp)}`)]
    })
} satisfies Backend<HostGwConfig>
