// Keys that the plugins which make a pair of interfaces share: bridge, MAC address, MTU.
import type { Args } from './cni/args.ts'
import { descend, type Field, FieldError, text, wholeNumber } from './cni/field.ts'
import { brokenNameRule } from './cni/interface-name.ts'
import { inArgs, mac } from './wishes.ts'

export const defaultBridge = 'cni0'

/** CNI_ARGS that these plugins and the IPAM plugins behind them know. */
export const interfaceArgs = ['IP', 'MAC', 'GATEWAY'] as const

export function bridgeName(field: Field): string {
  const name = text(field) || defaultBridge
  const rule = brokenNameRule(name)
  if (rule !== undefined) throw new FieldError(field, `must be an interface name: ${rule}`)
  return name
}

/** `undefined`: not given, which to the reference is 0 too. 68 is the least that IPv4 allows (RFC 791); the kernel refuses less. */
export function mtuOf(field: Field): number | undefined {
  const mtu = wholeNumber(field, 0, 65_535) ?? 0
  if (mtu > 0 && mtu < 68) throw new FieldError(field, 'must be 0 (not given) or a whole number from 68 to 65535')
  return mtu === 0 ? undefined : mtu
}

/** The runtime's word counts more than the configuration's, and both more than CNI_ARGS (cni.md 1.10). All three are checked. */
export function macOf(root: Field, args: Args): string | undefined {
  const fromArgs = inArgs('MAC', () => mac({ path: 'CNI_ARGS: MAC', value: args.get('MAC') }))
  const fromConfiguration = mac(descend(root, 'args', 'cni', 'mac'))
  return mac(descend(root, 'runtimeConfig', 'mac')) ?? fromConfiguration ?? fromArgs
}
