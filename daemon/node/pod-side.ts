// The devices behind which this host's pods are, and those by which packets of other nodes' pods enter: for judging
// other programs' firewall rules.
import { contains, type PerFamily, type Prefix, perFamily, width } from '../../ipam/address.ts'
import type { PodSide } from '../state/foreign-chain.ts'
import type { KernelObject, Route } from '../state/object.ts'
import { CONTAINER_ENDS, isContainerEnd, ROUTE_PROTOCOL } from '../state/ownership.ts'
import { devicesOf, isDefaultRoute } from '../state/route.ts'

/**
 * Of devices with an address in one of the networks, a route to one of its own, or made by weftd. Those of default
 * routes may have such an address, where a pod network contains the nodes' addresses, and are not `local`: other nodes
 * send by them.
 */
export function podSide(
  objects: Iterable<KernelObject>,
  networks: readonly PerFamily<Prefix>[]
): Required<Omit<PodSide, 'adminChains'>> {
  const devices = new Set<string>()
  const carriers = new Set<string>()
  const remote = new Set<string>()
  const uplinks = new Set<string>()
  for (const object of objects) {
    const device = podDevice(object, networks)
    if (device !== undefined) devices.add(device)
    if (object.kind !== 'route') continue
    if (isDefaultRoute(object)) for (const name of devicesOf(object)) uplinks.add(name)
    else if (mattersToPodSide(object, networks))
      for (const name of devicesOf(object)) (isToOthers(object) ? remote : carriers).add(name)
  }
  const sorted = [...devices].sort()
  const local = sorted.filter((name) => !remote.has(name) && !uplinks.has(name))
  return {
    ...{ devices: [CONTAINER_ENDS, ...sorted], carriers: [...new Set([...sorted, ...carriers, ...remote])].sort() },
    local: local.length === 0 ? [CONTAINER_ENDS] : local,
    remote: [...remote].sort(),
    networks: networks.flatMap((each) => perFamily(each).map(([, network]) => network))
  }
}

const isToOthers = ({ gateway, protocol, destination: { ip, length } }: Route): boolean =>
  gateway !== undefined || (protocol === ROUTE_PROTOCOL && length < width(ip.family))

/** Whether a change of this object may change the answer: not for the pods that come and go. */
export const mattersToPodSide = (object: KernelObject, networks: readonly PerFamily<Prefix>[]): boolean =>
  (object.kind === 'route' && isDefaultRoute(object)) ||
  (!isOfProbes(object) && isInside(object, networks) && !('device' in object && isOfContainer(object.device)))

/** Routes of a type of service are for the probes that try them: no packets of pods come by them. */
const isOfProbes = (object: KernelObject): boolean => object.kind === 'route' && object.tos !== undefined

const isOfContainer = (device: string | undefined): boolean => device === undefined || isContainerEnd(device)

function podDevice(object: KernelObject, networks: readonly PerFamily<Prefix>[]): string | undefined {
  if (!isInside(object, networks)) return undefined
  const isOwn = object.kind === 'address' || (object.kind === 'route' && object.gateway === undefined)
  return isOwn && !isOfContainer(object.device) && object.device !== 'lo' ? object.device : undefined
}

function isInside(object: KernelObject, networks: readonly PerFamily<Prefix>[]): boolean {
  const prefix = object.kind === 'address' ? object.prefix : object.kind === 'route' ? object.destination : undefined
  if (prefix === undefined) return false
  return networks.some((each) => {
    const network = each[prefix.ip.family]
    return network !== undefined && contains(network, prefix)
  })
}
