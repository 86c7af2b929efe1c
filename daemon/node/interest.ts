// Which of the host's kernel objects the node observes besides its own and the desired ones.
import { contains, type PerFamily, type Prefix } from '../../ipam/address.ts'
import type { KernelObject } from '../state/object.ts'
import { MAIN_TABLE } from '../state/route.ts'
import { isDefaultVlan } from '../state/vlans.ts'

/**
 * Links and addresses for the choice of the interface, pods' bandwidth limits and VLANs, default routes, and routes
 * into the pod network `networks`.
 */
export function isOfInterest(object: KernelObject, networks: PerFamily<Prefix>): boolean {
  if (object.kind === 'link' || object.kind === 'address') return true
  if (object.kind === 'qdisc') return object.discipline.type !== 'other'
  if (object.kind === 'vlans') return !isDefaultVlan(object)
  if (object.kind !== 'route' || object.table !== MAIN_TABLE) return false
  const network = networks[object.destination.ip.family]
  return object.destination.length === 0 || (network !== undefined && contains(network, object.destination))
}
