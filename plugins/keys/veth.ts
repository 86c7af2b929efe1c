// Keys shared by plugins that make a veth pair: bridge, MAC address, MTU.
import { DEFAULT_BRIDGE } from '../attachment.ts'
import type { Args } from '../cni/args.ts'
import { descend, entries, type Field, FieldError, member, text, wholeNumber } from '../cni/field.ts'
import { brokenNameRule } from '../cni/interface-name.ts'
import { inArgs, mac, unsupported } from './readers.ts'

/** CNI_ARGS of these plugins and of the IPAM plugins they call. */
export const interfaceArgs = ['IP', 'MAC', 'GATEWAY'] as const

export function bridgeName(field: Field): string {
  const name = text(field) || DEFAULT_BRIDGE
  const rule = brokenNameRule(name)
  if (rule !== undefined) throw new FieldError(field, `must be an interface name: ${rule}`)
  return name
}

/**
 * `undefined`: not set; 0 means that, too, as in the reference. 68 is the minimum of IPv4 (RFC 791); the kernel refuses
 * less.
 */
export function mtuOf(field: Field): number | undefined {
  const { value } = field
  if (value === undefined || value === 0) return undefined
  if (typeof value === 'number' && Number.isInteger(value) && value >= 68 && value <= 65_535) return value
  throw new FieldError(field, 'must be 0 (not given) or a whole number from 68 to 65535')
}

/** Ignoring these keys would leave the pod less isolated than its configuration says. */
export function refuseVlans(root: Field): void {
  const [vlan, trunk] = [member(root, 'vlan'), member(root, 'vlanTrunk')]
  const cure =
    'Weft does not filter VLANs on a bridge (for which few kernels have CONFIG_BRIDGE_VLAN_FILTERING): give each VLAN a bridge of its own'
  if ((wholeNumber(vlan, 0, 4094) ?? 0) !== 0) throw unsupported(vlan, cure)
  if (entries(trunk).length > 0) throw unsupported(trunk, cure)
}

/** The runtime's MAC wins over the configuration's, and both over CNI_ARGS (cni.md 1.10). All three are checked. */
export function macOf(root: Field, args: Args): string | undefined {
  const fromArgs = inArgs('MAC', () => mac({ path: 'CNI_ARGS: MAC', value: args.get('MAC') }))
  const fromConfiguration = mac(descend(root, 'args', 'cni', 'mac'))
  return mac(descend(root, 'runtimeConfig', 'mac')) ?? fromConfiguration ?? fromArgs
}
