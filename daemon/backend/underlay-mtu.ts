// The MTU between nodes: the configured one, if the interface's MTU and the minimum of the pods' families allow it.
import type { Family } from '../../ipam/address.ts'
import { WeftError } from '../base/error.ts'
import { invalid } from '../config/keys.ts'
import { LEAST_MTU, type Node } from '../state/node.ts'

/**
 * `configured` is `MTU` in Backend, 0 for the interface's; `families` are the pods', each with the bytes that
 * encapsulation adds. Errors: CONFIG_INVALID with the valid range, or that this interface has none.
 */
export function underlayMtu(
  configured: number,
  { device, deviceMtu }: Pick<Node, 'device' | 'deviceMtu'>,
  families: readonly (readonly [family: Family, overhead: number])[]
): number {
  const [least, family] = families
    .map(([each, overhead]) => [LEAST_MTU[each] + overhead, each] as const)
    .reduce((a, b) => (b[0] > a[0] ? b : a), [0, 4])
  if (deviceMtu < least)
    throw new WeftError(
      'CONFIG_INVALID',
      `${device} carries ${deviceMtu} bytes, and pods with IPv${family} need ${least} between nodes`,
      `raise the MTU of ${device}, choose another interface with --iface, or leave IPv${family} out of the network`
    )
  if (configured === 0) return deviceMtu
  if (configured < least || configured > deviceMtu)
    throw invalid(
      { path: 'Backend.MTU' },
      configured,
      `a whole number from ${least} to ${deviceMtu}, which is what ${device} carries, or 0 for that`
    )
  return configured
}
