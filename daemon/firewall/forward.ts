// Chain forward: accepts forwarded packets of pods. It can't undo drops of other programs: see foreign-accepts.ts.
import { type PerFamily, type Prefix, perFamily } from '../../ipam/address.ts'
import type { NftChain } from '../state/object.ts'
import { nftChain } from './chain.ts'
import { fromPrefix, toPrefix } from './match.ts'

/**
 * Accepts from and to the cluster's networks, as flannel does. An accept ends only this base chain: others at the same
 * hook, earlier or later, still see the packet, and a drop in any of them is final. So drops by Docker, firewalld or an
 * administrator need an accept inside their chains (foreign-accepts.ts).
 */
export function forward(cluster: PerFamily<Prefix>): NftChain {
  const rules = perFamily(cluster).flatMap(([, network]) => [
    `${fromPrefix(network)} accept`,
    `${toPrefix(network)} accept`
  ])
  return nftChain('forward', 'type filter hook forward priority filter', rules, '--iptables-forward-rules')
}
