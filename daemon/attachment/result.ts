// The answer to an ADD in the shape of CNI 1.1.0: interfaces, addresses, routes, DNS. plugins/cni/result.ts says it in the caller's version.

import { formatIp, formatPrefix, hostPrefix } from '../../ipam/address.ts'
import type { Attachment, InterfaceAddress, Veth } from '../../plugins/attachment.ts'
import type { Result, ResultInterface } from '../../plugins/cni/types.ts'
import type { Node } from '../state/node.ts'
import { ifbName } from '../state/ownership.ts'
import { bridgeMac, hostMac, hostName, ifbMac } from './identity.ts'
import { containerMac, podRoutes, type Wiring } from './objects.ts'

/** Interfaces in the reference's order: bridge (in bridge mode), the host's end, the container's end; addresses point at the last. */
export function resultOf(
  attachment: Attachment & { readonly interface: Veth },
  addresses: readonly InterfaceAddress[],
  node: Pick<Node, 'identity'>,
  wiring: Wiring
): Result {
  const { mtu, mode } = wiring
  const { bridge, like } = attachment.interface
  const bridges =
    mode === 'bridge' ? [{ name: bridge, mac: wiring.bridge?.mac ?? bridgeMac(node.identity, bridge) }] : []
  const interfaces: readonly ResultInterface[] = [
    ...bridges,
    { name: hostName(attachment), mac: hostMac(attachment), mtu },
    {
      name: attachment.ifname,
      mac: containerMac(attachment, addresses),
      mtu,
      ...(attachment.sandbox === undefined ? {} : { sandbox: attachment.sandbox })
    }
  ]
  // Last, so that the addresses' index stays what everybody is used to; the reference's bandwidth plugin appends it too.
  const ifb = ifbName(hostName(attachment))
  const limits = attachment.bandwidth?.egress === undefined ? [] : [{ name: ifb, mac: ifbMac(ifb), mtu }]
  return {
    interfaces: [...interfaces, ...limits],
    ips: addresses.map(({ prefix, gateway }) => ({
      interface: interfaces.length - 1,
      address: formatPrefix(mode === 'bridge' || like !== undefined ? prefix : hostPrefix(prefix.ip)),
      ...(gateway === undefined ? {} : { gateway: formatIp(gateway) })
    })),
    // The reference tells routes as they were configured, and fills gateways in for the kernel only.
    routes: podRoutes(attachment, addresses, wiring.clusterNetworks).map(({ wish, gateway, isImplied }) => ({
      ...wish,
      ...(gateway === undefined || (like !== undefined && !isImplied) ? {} : { gw: formatIp(gateway) })
    })),
    dns: attachment.dns ?? attachment.given?.dns ?? {}
  }
}
