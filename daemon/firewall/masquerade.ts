// Masquerading: packets from pods leave the network with the host's address, and reach other pods with their own. Rules
// and order are flannel's.
import { type PerFamily, type Prefix, perFamily } from '../../ipam/address.ts'
import type { KernelObject, Key, State } from '../state/object.ts'
import { IPTABLES_CHAINS, NFT_TABLE } from '../state/ownership.ts'
import { nftChain } from './chain.ts'
import { fromPrefix, MULTICAST, toPrefix } from './match.ts'
import { exemption, exemptSet, MARKED_BY_OTHERS } from './pod-masquerade.ts'

const NODE_CHAIN = 'postrouting'

/** Whether this node masquerades its pods. */
export const nodeMasquerades = (observed: State): boolean =>
  observed.has(`nft chain inet ${NFT_TABLE} ${NODE_CHAIN}` as Key) ||
  TOOLS.some(([tool, family]) =>
    observed.has(`iptables chain ${tool} ${family} nat ${IPTABLES_CHAINS.nat.chain}` as Key)
  )

const TOOLS = (['iptables-nft', 'iptables-legacy'] as const).flatMap((tool) =>
  (['ip', 'ip6'] as const).map((family) => [tool, family] as const)
)

/**
 * Chain postrouting, and the sets of pods exempt from it, for this node's subnets `own` in the networks `cluster`; only
 * for families in both. `randomFully`: random source ports, which avoids lost SYNs when two connections race for one
 * port.
 */
export function masquerade(
  own: PerFamily<Prefix>,
  cluster: PerFamily<Prefix>,
  randomFully: boolean
): readonly KernelObject[] {
  const translate = randomFully ? 'masquerade fully-random' : 'masquerade'
  const sets = perFamily(cluster).flatMap(([family]) => (own[family] === undefined ? [] : [exemptSet(family)]))
  const rules = perFamily(cluster).flatMap(([family, network]) => {
    const subnet = own[family]
    if (subnet === undefined) return []
    return [
      exemption(family),
      `${fromPrefix(subnet)} ${toPrefix(network)} return`,
      `${fromPrefix(network)} ${toPrefix(subnet)} return`,
      `${fromPrefix(network, true)} ${toPrefix(subnet)} return`,
      `${fromPrefix(network)} ${toPrefix(MULTICAST[family], true)} ${translate}`,
      `${fromPrefix(network, true)} ${toPrefix(network)} ${translate}`
    ]
  })
  const all = [MARKED_BY_OTHERS, ...rules]
  return [...sets, nftChain(NODE_CHAIN, 'type nat hook postrouting priority srcnat', all, '--ip-masq')]
}
