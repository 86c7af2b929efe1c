// How large packets between nodes may be: what the configuration says, within what the link carries and what the pods' families need.
import type { Family } from '../../ipam/address.ts'
import { WeftError } from '../base/error.ts'
import { invalid } from '../config/keys.ts'
import { LEAST_MTU, type Node } from '../state/node.ts'

/**
 * `configured` is `MTU` in Backend, 0 for the link's; `families` are the pods', each with the bytes that encapsulation adds to it. Errors: CONFIG_INVALID with
 * the range, or saying that there is none with this link.
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
