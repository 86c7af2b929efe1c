// What a verb reports of an attachment: interfaces, addresses, routes and DNS as values. A front door (daemon/cni/)
// gives it its own shape.
import { hostPrefix } from '../../ipam/address.ts'
import type { Dns, InterfaceAddress, InterfaceRoute, VethAttachment } from '../../plugins/attachment.ts'
import type { Node } from '../state/node.ts'
import { ifbName } from '../state/ownership.ts'
import { LINK_SCOPE } from '../state/route.ts'
import { havingGateway } from './device.ts'
import { bridgeMac, hostMac, hostName, ifbMac } from './identity.ts'
import { containerEnd, containerMac, podRoutes, type Wiring } from './objects.ts'
import { gatewayDevice } from './vlans.ts'

export type ReportedInterface = {
  readonly name: string
  readonly mac?: string
  /** Path of the container's namespace; absent for an interface of the host. */
  readonly sandbox?: string
  readonly mtu?: number
}

/** `interface` is an index into the result's interfaces. */
export type ReportedAddress = InterfaceAddress & { readonly interface?: number }

export type AttachmentResult = {
  readonly interfaces: readonly ReportedInterface[]
  readonly addresses: readonly ReportedAddress[]
  readonly routes: readonly InterfaceRoute[]
  readonly dns: Dns
}

/** What a plugin behind the interface's own changed: settings of the container's end, and interfaces that it made. */
export type InterfaceChanges = {
  readonly own?: Pick<ReportedInterface, 'mac' | 'mtu'>
  readonly added?: readonly ReportedInterface[]
}

/** Addresses of the container's interface of that name; one that points at no interface is taken for its own. */
export const addressesOf = ({ addresses, interfaces }: AttachmentResult, ifname: string): readonly InterfaceAddress[] =>
  addresses.filter(({ interface: at }) => {
    const named = at === undefined ? undefined : interfaces[at]
    return named === undefined || (named.name === ifname && named.sandbox !== undefined)
  })

/**
 * Interfaces in the reference's order: bridge (in bridge mode), the host's end, the container's end; addresses point at
 * the last.
 */
export function resultOf(
  attachment: VethAttachment,
  addresses: readonly InterfaceAddress[],
  node: Pick<Node, 'identity'>,
  wiring: Wiring
): AttachmentResult {
  const { mtu, mode } = wiring
  const { bridge, like, isHandedOver } = attachment.interface
  const hasSubnet = mode === 'bridge' || (like !== undefined && !isHandedOver)
  const bridges =
    mode === 'bridge' ? [{ name: bridge, mac: wiring.bridge?.mac ?? bridgeMac(node.identity, bridge) }] : []
  const interfaces: readonly ReportedInterface[] = [
    ...bridges,
    { name: hostName(attachment), mac: hostMac(attachment), mtu },
    { ...containerEnd(attachment), mac: containerMac(attachment, addresses), mtu }
  ]
  // Last, so that the addresses' index stays what callers are used to; the reference's plugins append them too.
  const ifb = ifbName(hostName(attachment))
  const vlan = gatewayDevice(attachment.interface)
  const isGateway = like?.kind === 'bridge' && like.isGateway && addresses.length > 0
  const gateways = isGateway && vlan !== bridge ? bridges.map((each) => ({ ...each, name: vlan })) : []
  const limits = attachment.bandwidth?.egress === undefined ? [] : [{ name: ifb, mac: ifbMac(ifb), mtu }]
  return {
    interfaces: [...interfaces, ...gateways, ...limits],
    addresses: addresses.map(({ prefix, gateway }) => ({
      interface: interfaces.length - 1,
      prefix: hasSubnet ? prefix : hostPrefix(prefix.ip),
      ...(gateway === undefined ? {} : { gateway })
    })),
    routes: [
      ...(isHandedOver && !hasSubnet ? gatewayRoutes(addresses) : []),
      // The reference reports routes as they were configured, and fills gateways in for the kernel only. Whoever makes
      // the routes needs the gateways.
      ...podRoutes(attachment, addresses, wiring.clusterNetworks).map(({ config, gateway, isImplied }) =>
        gateway === undefined || (like !== undefined && !isImplied && !isHandedOver) ? config : { ...config, gateway }
      )
    ],
    dns: attachment.dns ?? attachment.ipamResult?.dns ?? {}
  }
}

/**
 * An address without a subnet does not reach its gateway: in routed mode weftd itself makes the other routes with
 * `onlink`, which results can't say.
 */
const gatewayRoutes = (addresses: readonly InterfaceAddress[]): readonly InterfaceRoute[] =>
  havingGateway(addresses).map(({ gateway }) => ({
    destination: hostPrefix(gateway),
    ...(gateway.family === 4 ? { scope: LINK_SCOPE } : {})
  }))
