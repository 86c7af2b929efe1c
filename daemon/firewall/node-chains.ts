// The nftables objects that depend only on the lease and the configuration: one table, two chains and their sets. Where
// iptables masquerades and forwards, see iptables-chains.ts.
import { FAMILIES, type PerFamily, type Prefix } from '../../ipam/address.ts'
import type { KernelObject } from '../state/object.ts'
import { forward } from './forward.ts'
import { masquerade } from './masquerade.ts'
import { exemptMarks, exemptSet } from './pod-masquerade.ts'

export type FirewallOptions = {
  /** --ip-masq: pods' packets to addresses outside the cluster leave with the host's address. */
  readonly ipMasq: boolean
  /** Source ports of masqueraded connections at random. */
  readonly randomFully: boolean
  /** --iptables-forward-rules: accept forwarded packets of pods. */
  readonly forwardRules: boolean
}

/** Where the chains for masquerading and forwarding are (--firewall). */
export type FirewallKind = 'nftables' | 'iptables'

/** The chains for this node's subnets in the cluster's networks, only for families in both. */
export function ownFirewall(
  own: PerFamily<Prefix>,
  cluster: PerFamily<Prefix>,
  options: FirewallOptions,
  kind: FirewallKind = 'nftables'
): readonly KernelObject[] {
  if (kind === 'iptables') return options.ipMasq ? besideIptables(own, cluster) : []
  return [
    ...(options.ipMasq ? masquerade(own, cluster, options.randomFully) : []),
    ...(options.forwardRules ? [forward(cluster)] : [])
  ]
}

/** What iptables' chain for masquerading needs of nftables: single pods are always set elements. */
function besideIptables(own: PerFamily<Prefix>, cluster: PerFamily<Prefix>): readonly KernelObject[] {
  const families = FAMILIES.filter((family) => own[family] !== undefined && cluster[family] !== undefined)
  return [...families.map(exemptSet), ...exemptMarks(families)]
}
