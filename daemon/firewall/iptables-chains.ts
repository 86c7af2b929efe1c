// Masquerading and forwarding as chains of iptables, for hosts where nftables can't, or --firewall=iptables. Rules and
// order are those of masquerade.ts and forward.ts.
import { type Family, formatPrefix, network, type PerFamily, type Prefix, perFamily } from '../../ipam/address.ts'
import { digest } from '../state/digest.ts'
import type { IptablesChain, IptablesTool } from '../state/object.ts'
import { IPTABLES_CHAINS } from '../state/ownership.ts'
import { MULTICAST } from './match.ts'
import type { FirewallOptions } from './node-chains.ts'
import { EXEMPT_MARK } from './pod-masquerade.ts'

/** The chains for this node's subnets in the cluster's networks, only for families in both. */
export function iptablesChains(
  own: PerFamily<Prefix>,
  cluster: PerFamily<Prefix>,
  { ipMasq, forwardRules, randomFully }: FirewallOptions,
  tool: IptablesTool
): readonly IptablesChain[] {
  return perFamily(cluster).flatMap(([family, all]) => {
    const subnet = own[family]
    return [
      ...(ipMasq && subnet !== undefined
        ? [chain(tool, family, 'nat', masqueradeRules(subnet, all, randomFully), '--ip-masq')]
        : []),
      ...(forwardRules
        ? [chain(tool, family, 'filter', [`${from(all)} -j ACCEPT`, `${to(all)} -j ACCEPT`], FORWARD_RULES)]
        : [])
    ]
  })
}

const FORWARD_RULES = '--iptables-forward-rules'

const from = (prefix: Prefix): string => `-s ${formatPrefix(network(prefix))}`
const to = (prefix: Prefix): string => `-d ${formatPrefix(network(prefix))}`

function masqueradeRules(subnet: Prefix, cluster: Prefix, randomFully: boolean): readonly string[] {
  const masquerade = `-j MASQUERADE${randomFully ? ' --random-fully' : ''}`
  const exempt = `0x${EXEMPT_MARK.toString(16)}`
  return [
    // kube-proxy's own masquerading, and pods that keep their address.
    '-m mark --mark 0x4000/0x4000 -j RETURN',
    `-m mark --mark ${exempt}/${exempt} -j RETURN`,
    `${from(subnet)} ${to(cluster)} -j RETURN`,
    `${from(cluster)} ${to(subnet)} -j RETURN`,
    `! ${from(cluster)} ${to(subnet)} -j RETURN`,
    `${from(cluster)} ! ${to(MULTICAST[cluster.ip.family])} ${masquerade}`,
    `! ${from(cluster)} ${to(cluster)} ${masquerade}`
  ]
}

const chain = (
  tool: IptablesTool,
  family: Family,
  table: keyof typeof IPTABLES_CHAINS,
  rules: readonly string[],
  because: string
): IptablesChain => ({
  ...{ kind: 'iptables-chain', tool, family: family === 4 ? 'ip' : 'ip6', table, ...IPTABLES_CHAINS[table] },
  ...{ isCalled: true, rules, digests: rules.map(digest), because }
})
