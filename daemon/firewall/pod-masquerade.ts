// Masquerading of single pods of the node's subnet whose network's `ipMasq` differs from the node's --ip-masq: set
// elements.
import { FAMILIES, type Family, type Ip, type Prefix } from '../../ipam/address.ts'
import type { KernelObject, NftElement, NftSet, State } from '../state/object.ts'
import { addressElement, addressSet } from './address-set.ts'
import { nftChain } from './chain.ts'
import { fromAny, MULTICAST, prefixName, prefixNamed, toPrefix } from './match.ts'

/** Pods whose packets keep their source address, or get this host's, when they leave the network. */
type Which = 'unmasqueraded' | 'masqueraded'

const setName = (which: Which, family: Family): string => `${which}_${family}`

const setOf = (which: Which, family: Family): NftSet => addressSet(setName(which, family), family, 'ipMasq')

/** The set of pods that keep their address. */
export const exemptSet = (family: Family): NftSet => setOf('unmasqueraded', family)

/** The rule for them in the node's chain. */
export const exemption = (family: Family): string => `${fromAny(family)} @${setName('unmasqueraded', family)} return`

/** kube-proxy marks packets that it masquerades itself with this bit. */
export const MARKED_BY_OTHERS = 'meta mark & 0x4000 == 0x4000 return'

const CHAIN = 'masqueraded_pods'

/**
 * Masquerades what leaves `network` from such pods. The name contains the network, so that a restarted weftd knows the
 * rules.
 */
function masqueradeChain(network: Prefix): KernelObject {
  const { family } = network.ip
  const outside = `${toPrefix(network, true)} ${toPrefix(MULTICAST[family], true)}`
  const rules = [MARKED_BY_OTHERS, `${fromAny(family)} @${setName('masqueraded', family)} ${outside} masquerade`]
  return nftChain(prefixName(CHAIN, network), 'type nat hook postrouting priority srcnat', rules, 'ipMasq')
}

export type PodMasquerade = { readonly shared: readonly KernelObject[]; readonly own: readonly NftElement[] }

/** `ips` of a pod of the node's subnet in `networks`; `link` and `whose` as in `hostPortElement`. */
export function podMasquerade(
  isWanted: boolean,
  ips: readonly Ip[],
  networks: readonly Prefix[],
  link: string,
  whose: string
): PodMasquerade {
  const which: Which = isWanted ? 'masqueraded' : 'unmasqueraded'
  const families = FAMILIES.filter((family) => ips.some((ip) => ip.family === family))
  const chains = isWanted ? networks.filter(({ ip }) => families.includes(ip.family)).map(masqueradeChain) : []
  return {
    shared: [...families.map((family) => setOf(which, family)), ...chains],
    own: ips.map((ip) => addressElement(setName(which, ip.family), ip, link, whose))
  }
}

/** The sets and chains of such pods that exist: a restarted weftd desires them again. */
export function masqueradeBaseFor(elements: readonly NftElement[], observed: State): readonly KernelObject[] {
  const has = (which: Which, family: Family) => elements.some(({ set }) => set === setName(which, family))
  const sets = FAMILIES.flatMap((family) =>
    (['unmasqueraded', 'masqueraded'] as const)
      .filter((which) => has(which, family))
      .map((which) => setOf(which, family))
  )
  const chains = [...observed.values()].flatMap((object) => {
    const network = object.kind === 'nft-chain' ? prefixNamed(CHAIN, object.chain) : undefined
    return network !== undefined && has('masqueraded', network.ip.family) ? [masqueradeChain(network)] : []
  })
  return [...sets, ...chains]
}
