// Refuses VLANs that a bridge would not keep apart.
import type { VethAttachment } from '../../plugins/attachment.ts'
import { bridgeMac } from '../attachment/identity.ts'
import type { Wiring } from '../attachment/objects.ts'
import { gatewayDevice } from '../attachment/vlans.ts'
import { WeftError } from '../base/error.ts'
import { linkNamed } from '../state/object.ts'
import type { PodContext } from './context.ts'

/**
 * Without VLAN filtering the container would share one network with all others of the bridge. On another program's
 * bridge it is not switched on: the tagged packets that it passes today would be dropped. Errors: KERNEL_FEATURE_MISSING,
 * BRIDGE_INVALID.
 */
export async function refuseUnfilteredVlans(
  { kernel, host, self: { identity } }: Pick<PodContext, 'kernel' | 'host' | 'self'>,
  { interface: config, network }: VethAttachment,
  { bridge }: Pick<Wiring, 'bridge'>
): Promise<void> {
  const { vlans } = config
  if (vlans === undefined) return
  if (!(await kernel.filtersVlans()))
    throw new WeftError(
      'KERNEL_FEATURE_MISSING',
      `this kernel can't keep VLANs apart on a bridge, which network ${network} asks for (vlan, vlanTrunk): it was built without CONFIG_BRIDGE_VLAN_FILTERING`,
      'run a kernel that has the option, or leave the keys out and give each VLAN a bridge of its own'
    )
  if (bridge?.vlanFiltering === false && bridge.mac !== bridgeMac(identity, bridge.name))
    throw new WeftError(
      'BRIDGE_INVALID',
      `"${bridge.name}" was made by another program and does not keep VLANs apart, which network ${network} asks for`,
      `"ip link set ${bridge.name} type bridge vlan_filtering 1" if its other ports allow it, or name another bridge`
    )
  const named = linkNamed(host.observed, gatewayDevice(config))
  if (named === undefined || named.name === config.bridge) return
  const { form } = named
  if (form?.type === 'vlan' && form.parent === config.bridge && form.id === vlans.access) return
  throw new WeftError(
    'BRIDGE_INVALID',
    `"${named.name}" already exists but is not the device of VLAN ${vlans.access} on ${config.bridge}`,
    `delete it once nothing uses it ("ip link del ${named.name}"; the reference's bridge plugin leaves a veth of this name), or name another bridge in network ${network}`
  )
}
