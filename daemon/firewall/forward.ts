// Pods' packets are accepted on their way through this host. That alone undoes nobody's drop: see foreign.ts.
import { type PerFamily, type Prefix, perFamily } from '../../ipam/address.ts'
import type { NftChain } from '../state/object.ts'
import { nftChain } from './chain.ts'
import { fromPrefix, toPrefix } from './match.ts'

/**
 * Chain forward: accept from and to the cluster's networks, as flannel has it. An accept ends only this base chain: others at the same hook, earlier or later,
 * still see the packet, and one drop among them is final. So this chain counts and documents; what Docker, firewalld or an administrator drops is answered
 * inside their chains (foreign.ts).
 */
export function forward(cluster: PerFamily<Prefix>): NftChain {
  const rules = perFamily(cluster).flatMap(([, network]) => [
    `${fromPrefix(network)} accept`,
    `${toPrefix(network)} accept`
  ])
  return nftChain('forward', 'type filter hook forward priority filter', rules, '--iptables-forward-rules')
}
