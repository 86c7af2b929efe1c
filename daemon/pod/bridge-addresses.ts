// Addresses of an existing bridge that conflict with an attachment's gateways, by the rules of the reference's bridge
// plugin.
import { formatIp, formatPrefix, type PerFamily, type Prefix, sameIp } from '../../ipam/address.ts'
import type { InterfaceAddress, VethAttachment } from '../../plugins/attachment.ts'
import { conflictsWith, gatewayHolders } from '../attachment/bridge.ts'
import type { Wiring } from '../attachment/objects.ts'
import { gatewayDevice } from '../attachment/vlans.ts'
import { WeftError } from '../base/error.ts'
import type { Address, State } from '../state/object.ts'

/**
 * Another link has the gateway address of the node's subnet that these addresses would bring, such as docker0 after
 * `dockerd --bip`: the kernel sends packets to pods to one of the two only. Errors: BRIDGE_INVALID.
 */
export function refuseSecondGateway(
  { interface: config, network }: VethAttachment,
  addresses: readonly InterfaceAddress[],
  { mode }: Pick<Wiring, 'mode'>,
  subnet: PerFamily<Prefix>,
  observed: State
): void {
  if (mode !== 'bridge' || config.like !== undefined) return
  const bridges = [config.bridge, gatewayDevice(config)]
  const [other] = gatewayHolders(observed, subnet).filter(
    ({ device, prefix: { ip } }) =>
      !bridges.includes(device) && addresses.some(({ gateway }) => gateway !== undefined && sameIp(gateway, ip))
  )
  if (other === undefined) return
  const { device } = other
  throw new WeftError(
    'BRIDGE_INVALID',
    `"${device}" already has ${formatPrefix(other.prefix)}, the gateway address of this node's subnet, so pods on "${config.bridge}" would not be reached`,
    `give ${device} another network (Docker: restart dockerd with another --bip), or delete it if nothing uses it ("ip link del ${device}"); network ${network} needs the subnet for itself`
  )
}

/**
 * Those to be removed first (`forceAddress`). Errors: BRIDGE_INVALID, where the configuration does not let the new
 * address win.
 */
export function conflictingAddresses(
  { interface: { like, ...config }, network }: VethAttachment,
  addresses: readonly InterfaceAddress[],
  wiring: Wiring,
  observed: State
): readonly Address[] {
  if (wiring.bridge === undefined || (like?.kind === 'bridge' && !like.isGateway)) return []
  const name = gatewayDevice(config)
  const removed: Address[] = []
  for (const { prefix, gateway } of addresses) {
    if (gateway === undefined) continue
    const wanted: Prefix = { ip: gateway, length: prefix.length }
    for (const object of observed.values()) {
      if (object.kind !== 'address' || object.device !== name || !conflictsWith(object, wanted)) continue
      if (like?.kind === 'bridge' && like.forcesAddress) {
        removed.push(object)
        continue
      }
      const other = formatPrefix(object.prefix)
      throw new WeftError(
        'BRIDGE_INVALID',
        `"${name}" already has an address different from ${formatIp(gateway)}/${prefix.length}: ${other}`,
        `it is from an earlier subnet of this node or from another network: once no pod uses it any more, "ip address del ${other} dev ${name}"; or name another bridge in network ${network}`
      )
    }
  }
  return removed
}
