// Kernel objects of every node besides its backend's: firewall chains, forwarding, a route for addresses without a lease,
// and with --ip-blackhole-route a blackhole for unused pod addresses.
import { FAMILIES, type Prefix, perFamily } from '../../ipam/address.ts'
import { forwarding } from '../attachment/forwarding.ts'
import { clearGuard } from '../firewall/clear-guard.ts'
import { type FirewallKind, type FirewallOptions, ownFirewall } from '../firewall/node-chains.ts'
import { tunnelGuard } from '../firewall/tunnel-guard.ts'
import type { KernelObject, State } from '../state/object.ts'
import { ROUTE_PROTOCOL } from '../state/ownership.ts'
import { MAIN_TABLE } from '../state/route.ts'
import { networksOf, type Place } from './place.ts'

export type NodeObjectOptions = FirewallOptions & {
  /** The bridge of pods that name no other. */
  readonly bridge: string
  /** --ip-blackhole-route. */
  readonly blackholeRoute: boolean
  /** Where the chains for masquerading and forwarding are. */
  readonly firewall: FirewallKind
}

/** `observed` shows whether a default route is from router advertisements, which forwarding must not switch off. */
export function nodeObjects(
  { node, conf, backend }: Place,
  { blackholeRoute, bridge, firewall: kind, ...options }: NodeObjectOptions,
  observed: State
): readonly KernelObject[] {
  const families = FAMILIES.filter((family) => node.subnet[family] !== undefined)
  const blackholes = blackholeRoute ? perFamily(node.subnet).map(([, subnet]) => blackhole(subnet)) : []
  const firewall = ownFirewall(node.subnet, networksOf(conf), options, kind)
  const entry = backend.entry?.(node)
  const tunnel = { ports: backend.ports, ...(entry && { entry }) }
  const guard = tunnelGuard(tunnel, networksOf(conf), { device: node.device, bridge })
  const devices = backend.onlyBy?.(node)
  const clear = devices && clearGuard({ devices, networks: networksOf(conf), ...node, bridge })
  const rest = backend.refusesRest ? perFamily(networksOf(conf)).map(([, network]) => unreachable(network)) : []
  return [...firewall, ...guard, ...(clear ?? []), ...forwarding(families, observed), ...blackholes, ...rest]
}

/** Whatever is more specific wins, and a route of the host to the same network. */
const unreachable = (network: Prefix): KernelObject => ({
  ...{ kind: 'route', table: MAIN_TABLE, destination: network, metric: 1_000_001, type: 'unreachable' },
  ...{ protocol: ROUTE_PROTOCOL, because: 'addresses of the pod network without a lease' }
})

/**
 * Packets to a pod address that no pod's route or bridge covers are dropped instead of following the default route. The
 * metric lets a bridge's route win.
 */
const blackhole = (subnet: Prefix): KernelObject => ({
  ...{ kind: 'route', table: MAIN_TABLE, destination: subnet, metric: 1_000_000, type: 'blackhole' },
  ...{ protocol: ROUTE_PROTOCOL, because: '--ip-blackhole-route' }
})
