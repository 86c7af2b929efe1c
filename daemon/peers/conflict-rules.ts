// What counts of the leases where several claim the same, and which of the kernel's routes are stale, as this node sees
// the network at the time.
import { contains, type Ip, perFamily } from '../../ipam/address.ts'
import type { Lease } from '../lease/lease.ts'
import type { Change } from '../state/difference.ts'
import type { KernelObject } from '../state/object.ts'
import { isInside, isPlausible, type LocalView } from './peer-objects.ts'

/** `viewed`: this node's view, which changes; `isOwn`: whether a lease is this node's. */
export const conflictRules = (viewed: () => LocalView | undefined, isOwn: (lease: Lease) => boolean) => ({
  isUsable: (lease: Lease): boolean => {
    const view = viewed()
    return view === undefined || isInside(lease, view.networks)
  },
  mayKeep: (lease: Lease): boolean => {
    const view = viewed()
    return view !== undefined && (isOwn(lease) || isPlausible(lease, view))
  },
  isPodAddress: (ip: Ip): boolean => {
    const whole = viewed()?.networks[ip.family]
    return whole !== undefined && contains(whole, ip)
  },
  areHostsInside: (): boolean => {
    const view = viewed()
    return view === undefined || hasHostsInside(view)
  }
})

const hasHostsInside = ({ node, networks, occupied = [] }: LocalView): boolean =>
  occupied.length > 0 ||
  [...perFamily(node.publicIp), ...perFamily(node.localIp)].some(([family, ip]) => {
    const whole = networks[family]
    return whole !== undefined && contains(whole, ip)
  })

/** Routes to other nodes that are to be removed: not those from before Network was changed, nor those to pods here. */
export const staleRoutes = (changes: readonly Change[], view: LocalView): number =>
  changes.filter((change) => change.do === 'remove' && isToPeer(change.object, view)).length

function isToPeer(object: KernelObject, { networks, node }: LocalView): boolean {
  if (object.kind !== 'route') return false
  const { destination } = object
  const [whole, own] = [networks[destination.ip.family], node.subnet[destination.ip.family]]
  return whole !== undefined && contains(whole, destination) && (own === undefined || !contains(own, destination))
}
