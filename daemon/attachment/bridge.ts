// The bridge of an attachment with its gateway addresses, and the part of a port's alias that records them.
import {
  FAMILIES,
  type Family,
  network,
  offset,
  overlaps,
  type PerFamily,
  type Prefix,
  perFamily,
  sameIp
} from '../../ipam/address.ts'
import type { InterfaceAddress, Veth } from '../../plugins/attachment.ts'
import type { Node } from '../state/node.ts'
import { type Address, addressesIn, type KernelObject, type Link, type State } from '../state/object.ts'
import {
  address,
  carriesPackets,
  connected,
  connectedLinkLocal,
  havingGateway,
  noDuplicateDetection,
  noRouterAdvertisements,
  sysctl
} from './device.ts'
import { type BridgeInAlias, bridgeMac } from './identity.ts'
import { gatewayDevice, gatewayVlan } from './vlans.ts'

/** The bridge and its addresses, for the alias of its port. */
export const bridgeOf = ({ bridge, like, vlans }: Veth, addresses: readonly InterfaceAddress[]): BridgeInAlias => ({
  name: bridge,
  ...(vlans === undefined ? {} : { vlans }),
  addresses: like?.kind === 'bridge' && !like.isGateway ? [] : gatewayPrefixes(addresses)
})

const gatewayPrefixes = (addresses: readonly InterfaceAddress[]): readonly Prefix[] =>
  havingGateway(addresses).map(({ prefix, gateway }) => ({ ip: gateway, length: prefix.length }))

/** Families for which a device has to carry packets: those of its addresses that this kernel has. */
export const familiesOf = (prefixes: readonly Prefix[], ipv6: boolean): readonly Family[] =>
  FAMILIES.filter((family) => (family === 4 || ipv6) && prefixes.some(({ ip }) => ip.family === family))

/**
 * The bridge with a fixed MAC, and the gateways' addresses, which it has unless the pod is in a VLAN. The kernel
 * chooses its MTU: the smallest of its ports'.
 */
export function bridgeObjects(
  config: Pick<Veth, 'bridge' | 'like' | 'isPromiscuous' | 'vlans'>,
  addresses: readonly InterfaceAddress[],
  node: Pick<Node, 'identity' | 'ipv6'>,
  { bridge }: { readonly bridge?: Link }
): readonly KernelObject[] {
  const { bridge: name, like, isPromiscuous, vlans } = config
  const gateways = like?.kind !== 'bridge' || like.isGateway ? gatewayPrefixes(addresses) : []
  const families = familiesOf(gateways, node.ipv6)
  const mac = bridge?.mac ?? bridgeMac(node.identity, name)
  return [
    {
      ...{ kind: 'link', name, form: { type: 'bridge' }, up: true, mac },
      ...(isPromiscuous ? { promiscuous: true } : {}),
      ...(vlans === undefined ? {} : { vlanFiltering: true })
    } as const,
    // A pod must not be able to make itself this host's IPv6 router (CVE-2020-10749).
    ...(node.ipv6 ? [noRouterAdvertisements(name), noDuplicateDetection(name)] : []),
    // A pod in routed mode has an address of the bridge's subnet and is not on the bridge: the host answers for it, and
    // at once (ip-sysctl.rst, arp(7)). In IPv6 it does so for listed addresses only: neighbourProxies() has them.
    ...(like === undefined
      ? [
          ...[sysctl(`net/ipv4/conf/${name}/proxy_arp`, '1'), sysctl(`net/ipv4/neigh/${name}/proxy_delay`, '0')],
          ...(node.ipv6
            ? [sysctl(`net/ipv6/conf/${name}/proxy_ndp`, '1'), sysctl(`net/ipv6/neigh/${name}/proxy_delay`, '0')]
            : []),
          // The kernel answers for others only on a device that forwards (ndisc.c), for IPv6 too.
          ...(families.includes(6) ? [sysctl(`net/ipv6/conf/${name}/forwarding`, '1')] : [])
        ]
      : []),
    ...gatewayObjects(config, gateways, node),
    ...(families.includes(6) && vlans?.access === undefined ? connectedLinkLocal(name, mac) : [])
  ]
}

/** The gateways' addresses, and their device where it is not the bridge. */
export function gatewayObjects(
  config: Pick<Veth, 'bridge' | 'vlans'>,
  gateways: readonly Prefix[],
  node: Pick<Node, 'ipv6'>
): readonly KernelObject[] {
  if (gateways.length === 0) return []
  const [vlan, device] = [gatewayVlan(config), gatewayDevice(config)]
  return [
    ...vlan,
    ...(vlan.length > 0 && node.ipv6 ? [noRouterAdvertisements(device), noDuplicateDetection(device)] : []),
    ...carriesPackets(device, familiesOf(gateways, node.ipv6)),
    ...gateways.flatMap((prefix) => [address(device, prefix), ...connected(device, prefix)])
  ]
}

/**
 * Whether an address of a bridge keeps pods with this gateway off it, by the rules of the reference's bridge plugin:
 * one IPv4 network on a bridge, several IPv6 networks that do not overlap.
 */
export function conflictsWith({ prefix, scope = 0 }: Address, gateway: Prefix): boolean {
  if (prefix.ip.family !== gateway.ip.family || scope !== 0) return false
  if (sameIp(prefix.ip, gateway.ip) && prefix.length === gateway.length) return false
  return gateway.ip.family === 4 || overlaps(prefix, gateway)
}

/** Pods' gateway in a node's subnet, as an address of the bridge. */
export const gatewayOf = (subnet: Prefix): Prefix => ({
  ip: offset(network(subnet).ip, 1n) ?? subnet.ip,
  length: subnet.length
})

/**
 * The addresses by which links of this host lead to the whole of a node's subnet as its bridge does. A gateway of pods in
 * routed mode is a single address and leads nowhere.
 */
export function gatewayHolders(observed: State, subnet: PerFamily<Prefix>): readonly Address[] {
  const gateways = perFamily(subnet).map(([, own]) => gatewayOf(own))
  return addressesIn(observed).filter(({ prefix }) =>
    gateways.some(({ ip, length }) => sameIp(prefix.ip, ip) && prefix.length === length)
  )
}
