// Routed mode on the host: routes to a pod that is on no bridge, and neighbour proxies for pods that are on one.
import { hostPrefix, type Ip } from '../../ipam/address.ts'
import type { InterfaceAddress, Veth } from '../../plugins/attachment.ts'
import type { Node } from '../state/node.ts'
import { type KernelObject, keyOf, type State } from '../state/object.ts'
import { ROUTE_PROTOCOL } from '../state/ownership.ts'
import { LINK_SCOPE } from '../state/route.ts'
import { familiesOf } from './bridge.ts'
import { carriesPackets, havingGateway, noDuplicateDetection, noRouterAdvertisements, route } from './device.ts'

/**
 * A route to each address of the pod, and the gateway's address on the link, as with ptp: the pod can ping its gateway,
 * and the host has the same address for it as in bridge mode.
 */
export function routedHost(
  device: string,
  addresses: readonly InterfaceAddress[],
  node: Pick<Node, 'ipv6'>
): readonly KernelObject[] {
  return [
    // Neighbour discovery of the pod needs a link-local address that is not tentative.
    ...(node.ipv6 ? [noRouterAdvertisements(device), noDuplicateDetection(device)] : []),
    ...carriesPackets(
      device,
      familiesOf(
        addresses.map(({ prefix }) => prefix),
        node.ipv6
      )
    ),
    ...havingGateway(addresses).flatMap(({ prefix: { ip }, gateway }): readonly KernelObject[] => [
      {
        kind: 'address',
        device,
        prefix: hostPrefix(gateway),
        noPrefixRoute: true,
        ...(ip.family === 6 ? { nodad: true } : {})
      },
      {
        ...route(hostPrefix(ip), device),
        protocol: ROUTE_PROTOCOL,
        source: gateway,
        ...(ip.family === 4 ? { scope: LINK_SCOPE } : {})
      }
    ])
  ]
}

/** The device of the routed pod that has this address: its host route is the one in the host's table. */
export function routedDevice(ip: Ip, observed: State): string | undefined {
  const found = observed.get(keyOf(route(hostPrefix(ip), '')))
  return found?.kind === 'route' && found.protocol === ROUTE_PROTOCOL ? found.device : undefined
}

/** An interface like a reference plugin's has a subnet of its own, which no bridge of Weft's shares. */
export const proxies = ({ bridge, like }: Pick<Veth, 'bridge' | 'like'>, addresses: readonly InterfaceAddress[]) =>
  like === undefined
    ? neighbourProxies(
        bridge,
        addresses.map(({ prefix }) => prefix.ip)
      )
    : []

/**
 * A routed pod's address is in the subnet of the pods on the bridge, which look for it there: the host answers for it.
 * IPv4 needs no entry for that.
 */
export const neighbourProxies = (bridge: string, ips: readonly Ip[]): readonly KernelObject[] =>
  ips.flatMap((ip) => (ip.family === 6 ? [{ kind: 'proxy', device: bridge, ip, protocol: ROUTE_PROTOCOL }] : []))
