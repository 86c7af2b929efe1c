// alloc backend: a subnet for this node and subnet.env, and nothing else. Something else carries packets between nodes.
import { type Ip, offset, type PerFamily, type Prefix, perFamily } from '../../ipam/address.ts'
import type { Json } from '../config/json.ts'
import type { Feature } from '../state/feature.ts'
import type { Node } from '../state/node.ts'
import type { KernelObject } from '../state/object.ts'
import type { Recognised } from '../state/ownership.ts'
import type { Backend, Claim } from './backend.ts'
import { underlayMtu } from './underlay-mtu.ts'

const carried = (node: Node): number =>
  underlayMtu(
    0,
    node,
    perFamily(node.subnet).map(([family]) => [family, 0])
  )

export const alloc = {
  type: 'alloc',
  keys: {},
  config: (): object => ({}),
  features: (): readonly Feature[] => [],
  recognises: (): Recognised | undefined => undefined,
  claims: (): readonly Claim[] => [],
  namesOurDevice: (): boolean => false,
  namesAnotherDevice: (): boolean => false,
  mtu: carried,
  underlayMtu: carried,
  publish: (): PerFamily<Json> => ({}),
  own: (): readonly KernelObject[] => [],
  /** The pods' gateway; nobody is asked, since there are no routes. */
  held: (subnet: Prefix): Ip => offset(subnet.ip, 1n) ?? subnet.ip,
  heldByAll: false,
  peer: (): readonly KernelObject[] => []
} satisfies Backend<object>
