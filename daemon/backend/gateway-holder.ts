// The device that holds the pods' gateway address from the start, for backends without a device of their own: probes of
// the other nodes are answered there.
import { hostPrefix, type Ip, offset, type Prefix, perFamily } from '../../ipam/address.ts'
import type { Node } from '../state/node.ts'
import type { KernelObject } from '../state/object.ts'

/**
 * A bridge without ports: a device that every kernel which can have pods has, and whose addresses are local without a
 * carrier. It holds the gateway's address, which the pods' own bridge has from the first pod on only, so that probes of
 * the other nodes are always answered.
 */
const HOLDER = 'weft-gw'

export const isHolder = (device: string): boolean => device === HOLDER

/** The pods' gateway: flanneld's nodes have it on their bridge, from their first pod on. */
export function gatewayOf(subnet: Prefix): Ip {
  return offset(subnet.ip, 1n) ?? subnet.ip
}

export function gatewayHolder(node: Node): readonly KernelObject[] {
  const because = 'answers to probes of other nodes'
  const families = perFamily(node.subnet).filter(([family]) => family === 4 || node.ipv6)
  const setting = (name: string, value: string): KernelObject => ({
    ...{ kind: 'sysctl', path: `net/ipv6/conf/${HOLDER}/${name}`, value, because }
  })
  return [
    { kind: 'link', name: HOLDER, form: { type: 'bridge' }, up: true, because },
    ...families.map(
      ([, subnet]): KernelObject => ({
        ...{ kind: 'address', device: HOLDER, prefix: hostPrefix(gatewayOf(subnet)), scope: 0, nodad: true, because }
      })
    ),
    ...(node.ipv6 ? [setting('accept_ra', '0')] : []),
    ...(families.some(([family]) => family === 6) ? [setting('disable_ipv6', '0')] : [])
  ]
}
