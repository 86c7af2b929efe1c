// What this host has inside the pod network: networks and addresses of its own links and its gateways. No lease may
// cover them, and no subnet that overlaps them is chosen.
import {
  contains,
  formatPrefix,
  hostPrefix,
  isLinkLocal,
  network,
  overlaps,
  type PerFamily,
  type Prefix,
  perFamily
} from '../../ipam/address.ts'
import type { Address, KernelObject, Key, Route, State } from '../state/object.ts'
import { linkNamed } from '../state/object.ts'
import type { Recognises } from '../state/ownership.ts'
import { PROTOCOL_KERNEL, ROUTE_PROTOCOL } from '../state/ownership.ts'
import { hopsOf, isDefaultRoute, LINK_SCOPE, MAIN_TABLE } from '../state/route.ts'

export type HostView = {
  /** The whole pod network of each family. */
  readonly networks: PerFamily<Prefix>
  /** The interface to the other nodes. */
  readonly device: string
  /** This node's own subnets: addresses in them on other links are gateways of pods. */
  readonly subnet: PerFamily<Prefix>
  /** Devices of a backend are Weft's, not the host's. */
  readonly recognises: Recognises
  /** The bridge of pods: an address of it outside `subnet` is reported as BRIDGE_FOREIGN. */
  readonly bridge?: string | undefined
}

/**
 * The prefixes that leases must not overlap. A network of the host inside the pod network counts whole; where the pod
 * network is a part of a larger one, as 10.244.0.0/16 of 10.0.0.0/8, only the host's address and its gateways do.
 */
export function hostNetworks(observed: State, view: HostView): readonly Prefix[] {
  const found = new Map<string, Prefix>()
  for (const object of observed.values())
    for (const prefix of occupiedBy(object, observed, view)) found.set(formatPrefix(prefix), prefix)
  return [...found.values()]
}

/** Networks of addresses that the bridge of pods has from an earlier subnet. */
export const earlierSubnets = (observed: State, { bridge, subnet }: HostView): readonly Prefix[] =>
  [...observed.values()].flatMap((object) => {
    if (object.kind !== 'address' || object.device !== bridge || isLinkLocal(object.prefix.ip)) return []
    const own = subnet[object.prefix.ip.family]
    return own !== undefined && contains(own, object.prefix) ? [] : [network(object.prefix)]
  })

/** In any order. */
export const samePrefixes = (a: readonly Prefix[], b: readonly Prefix[]): boolean =>
  a.map(formatPrefix).sort().join() === b.map(formatPrefix).sort().join()

/** Whether a change of this object may change `hostNetworks`; most are about pods. */
export function mayOccupy(object: KernelObject, view: HostView): boolean {
  if (object.kind === 'address') return isInside(object, view)
  return object.kind === 'route' && (isKernelRoute(object) || isDefaultRoute(object))
}

function occupiedBy(object: KernelObject, observed: State, view: HostView): readonly Prefix[] {
  if (object.kind === 'address') {
    return isInside(object, view) && !isBackends(object.device, observed, view) ? [occupying(object, view)] : []
  }
  if (object.kind !== 'route' || object.table !== MAIN_TABLE) return []
  const whole = view.networks[object.destination.ip.family]
  if (whole === undefined) return []
  if (isDefaultRoute(object))
    return hopsOf(object).flatMap(({ gateway }) => (gateway && contains(whole, gateway) ? [hostPrefix(gateway)] : []))
  if (!isKernelRoute(object) || !contains(whole, object.destination)) return []
  const { device = '', destination } = object
  return isBackends(device, observed, view) || isForPods(device, destination, view) ? [] : [network(destination)]
}

const isKernelRoute = ({ protocol, type }: Route): boolean => protocol === PROTOCOL_KERNEL && type === 'unicast'

function isInside({ device, prefix }: Address, view: HostView): boolean {
  const whole = view.networks[prefix.ip.family]
  if (whole === undefined || isLinkLocal(prefix.ip) || !overlaps(whole, prefix)) return false
  return contains(whole, prefix.ip) && !isForPods(device, prefix, view)
}

const occupying = ({ prefix }: Address, { networks }: HostView): Prefix => {
  const whole = networks[prefix.ip.family]
  return whole !== undefined && contains(whole, prefix) ? network(prefix) : hostPrefix(prefix.ip)
}

const isForPods = (device: string, prefix: Prefix, view: HostView): boolean => {
  const own = view.subnet[prefix.ip.family]
  return device !== view.device && own !== undefined && contains(own, prefix)
}

function isBackends(device: string, observed: State, { recognises }: HostView): boolean {
  const recognised = recognises(linkNamed(observed, device) ?? { name: device })
  return recognised === 'own' || recognised === 'adoptable'
}

/** The prefix of the host that a lease would cover, if any. */
export function coveredBy(subnet: PerFamily<Prefix>, occupied: readonly Prefix[]): Prefix | undefined {
  if (occupied.length === 0) return undefined
  for (const [, prefix] of perFamily(subnet)) {
    const covered = occupied.find((each) => overlaps(each, prefix))
    if (covered !== undefined) return covered
  }
  return undefined
}

/**
 * Routes to networks of the host's links that a route of ours has replaced, as the kernel makes them. IPv4 only: the
 * kernel's IPv6 routes have another metric than ours, so both exist.
 */
export function routesToGiveBack(observed: State, view: HostView): readonly Route[] {
  return [...observed.values()].flatMap((object) => {
    if (object.kind !== 'address' || object.prefix.ip.family !== 4 || object.noPrefixRoute === true) return []
    if (!isInside(object, view) || isBackends(object.device, observed, view)) return []
    const { device, prefix } = object
    const destination = network(prefix)
    const there = observed.get(`route ${MAIN_TABLE} ${formatPrefix(destination)} metric 0` as Key)
    if (there?.kind !== 'route' || there.protocol !== ROUTE_PROTOCOL) return []
    return [connected(device, prefix, destination)]
  })
}

const connected = (device: string, { ip }: Prefix, destination: Prefix): Route => ({
  ...{ kind: 'route', table: MAIN_TABLE, destination, metric: 0, type: 'unicast', device, source: ip },
  ...{ scope: LINK_SCOPE, protocol: PROTOCOL_KERNEL, because: `the kernel's route to the network of ${device}` }
})
