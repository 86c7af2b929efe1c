// What every node has besides its backend's device: its firewall chains, forwarding, and where asked for a blackhole for what no pod has.
import { FAMILIES, type Prefix, perFamily } from '../../ipam/address.ts'
import { forwarding } from '../attachment/forwarding.ts'
import type { Options } from '../cli/flag-table.ts'
import { ownFirewall } from '../firewall/own.ts'
import type { KernelObject, State } from '../state/object.ts'
import { ROUTE_PROTOCOL } from '../state/ownership.ts'
import { networksOf, type Place } from './place.ts'

type NodeOptions = Pick<Options, 'ipMasq' | 'ipMasqFullyRandomDisable' | 'iptablesForwardRules' | 'ipBlackholeRoute'>

/** `observed` tells where a default route came from a router, which forwarding must not end. */
export function nodeObjects({ node, conf }: Place, options: NodeOptions, observed: State): readonly KernelObject[] {
  const wishes = {
    ipMasq: options.ipMasq,
    randomFully: !options.ipMasqFullyRandomDisable,
    forwardRules: options.iptablesForwardRules
  }
  const families = FAMILIES.filter((family) => node.subnet[family] !== undefined)
  const blackholes = options.ipBlackholeRoute ? perFamily(node.subnet).map(([, subnet]) => blackhole(subnet)) : []
  const firewall = ownFirewall(node.subnet, networksOf(conf), wishes)
  return [...firewall, ...forwarding(families, observed), ...blackholes]
}

/** --ip-blackhole-route: what no pod's own route or bridge takes goes nowhere, not to the default route. The metric lets a bridge's route win. */
const blackhole = (subnet: Prefix): KernelObject => ({
  ...{ kind: 'route', table: 254, destination: subnet, metric: 1_000_000, type: 'blackhole' },
  ...{ protocol: ROUTE_PROTOCOL, because: '--ip-blackhole-route' }
})
