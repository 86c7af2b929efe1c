// Keys shared by plugins that make a veth pair: bridge, MAC address, MTU.
import { DEFAULT_BRIDGE } from '../attachment.ts'
import type { Args } from '../cni/args.ts'
import { descend, type Field, FieldError, text } from '../cni/field.ts'
import { brokenNameRule } from '../cni/interface-name.ts'
import { inArgs, mac } from './readers.ts'

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

/** The runtime's MAC wins over the configuration's, and both over CNI_ARGS (cni.md 1.10). All three are checked. */
export function macOf(root: Field, args: Args): string | undefined {
  const fromArgs = inArgs('MAC', () => mac({ path: 'CNI_ARGS: MAC', value: args.get('MAC') }))
  const fromConfiguration = mac(descend(root, 'args', 'cni', 'mac'))
  return mac(descend(root, 'runtimeConfig', 'mac')) ?? fromConfiguration ?? fromArgs
}
