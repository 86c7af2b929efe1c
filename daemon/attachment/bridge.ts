// The bridge of an attachment with its gateway addresses, and the part of a port's alias that records them.
import type { Prefix } from '../../ipam/address.ts'
import type { InterfaceAddress, Veth } from '../../plugins/attachment.ts'
import type { Node } from '../state/node.ts'
import type { KernelObject, Link } from '../state/object.ts'
import { address, connected, havingGateway, noDuplicateDetection, noRouterAdvertisements, sysctl } from './device.ts'
import { type BridgeInAlias, bridgeMac } from './identity.ts'

/** The bridge and its addresses, for the alias of its port. */
export const bridgeOf = ({ bridge, like }: Veth, addresses: readonly InterfaceAddress[]): BridgeInAlias => ({
  name: bridge,
  addresses: like?.kind === 'bridge' && !like.isGateway ? [] : gatewayPrefixes(addresses)
})

const gatewayPrefixes = (addresses: readonly InterfaceAddress[]): readonly Prefix[] =>
  havingGateway(addresses).map(({ prefix, gateway }) => ({ ip: gateway, length: prefix.length }))

/** The bridge with the gateways' addresses and a fixed MAC. The kernel chooses its MTU: the smallest of its ports'. */
export function bridgeObjects(
  { bridge: name, like, isPromiscuous }: Pick<Veth, 'bridge' | 'like' | 'isPromiscuous'>,
  addresses: readonly InterfaceAddress[],
  node: Pick<Node, 'identity' | 'ipv6'>,
  { bridge }: { readonly bridge?: Link }
): readonly KernelObject[] {
  const hasGateways = like?.kind !== 'bridge' || like.isGateway
  return [
    {
      ...{ kind: 'link', name, form: { type: 'bridge' }, up: true, mac: bridge?.mac ?? bridgeMac(node.identity, name) },
      ...(isPromiscuous ? { promiscuous: true } : {})
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
            : [])
        ]
      : []),
    ...(hasGateways ? gatewayPrefixes(addresses) : []).flatMap((prefix) => [
      address(name, prefix),
      ...connected(name, prefix)
    ])
  ]
}
