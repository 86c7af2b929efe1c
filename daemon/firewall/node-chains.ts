// The firewall objects that depend only on the lease and the configuration: one table, two chains and their sets.
import type { PerFamily, Prefix } from '../../ipam/address.ts'
import type { KernelObject } from '../state/object.ts'
import { forward } from './forward.ts'
import { masquerade } from './masquerade.ts'

export type FirewallOptions = {
  /** --ip-masq: pods' packets to addresses outside the cluster leave with the host's address. */
  readonly ipMasq: boolean
  /** Source ports of masqueraded connections at random. */
  readonly randomFully: boolean
  /** --iptables-forward-rules: accept forwarded packets of pods. */
  readonly forwardRules: boolean
}

/** The chains for this node's subnets in the cluster's networks, only for families in both. */
export function ownFirewall(
  own: PerFamily<Prefix>,
  cluster: PerFamily<Prefix>,
  options: FirewallOptions
): readonly KernelObject[] {
  return [
    ...(options.ipMasq ? masquerade(own, cluster, options.randomFully) : []),
    ...(options.forwardRules ? [forward(cluster)] : [])
  ]
}
