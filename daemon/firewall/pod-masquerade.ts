// Masquerading of single pods of the node's subnet, where their network's `ipMasq` says otherwise than the node's --ip-masq: elements of sets.
import { FAMILIES, type Family, type Ip, type Prefix } from '../../ipam/address.ts'
import type { KernelObject, NftElement, NftSet, State } from '../state/object.ts'
import { addressElement, addressSet } from './address-set.ts'
import { nftChain } from './chain.ts'
import { fromAny, MULTICAST, prefixName, prefixNamed, toPrefix } from './match.ts'

/** Pods that keep their address, and pods that get this host's, when their packets leave the network. */
type Which = 'unmasqueraded' | 'masqueraded'

const setName = (which: Which, family: Family): string => `${which}_${family}`

const setOf = (which: Which, family: Family): NftSet => addressSet(setName(which, family), family, 'ipMasq')

/** What the node's own masquerading asks, and `sparing`. */
export const sparedSet = (family: Family): NftSet => setOf('unmasqueraded', family)

/** The node's rule for pods that keep their address. */
export const sparing = (family: Family): string => `${fromAny(family)} @${setName('unmasqueraded', family)} return`

/** kube-proxy marks what it masquerades itself with this bit (flannel.md 7). */
export const MARKED_BY_OTHERS = 'meta mark & 0x4000 == 0x4000 return'

const CHAIN = 'masqueraded_pods'

/** What leaves `network` from such pods gets this host's address; the name tells the network, by which a restarted weftd knows the rules. */
function masqueradeChain(network: Prefix): KernelObject {
  const { family } = network.ip
  const outside = `${toPrefix(network, true)} ${toPrefix(MULTICAST[family], true)}`
  const rules = [MARKED_BY_OTHERS, `${fromAny(family)} @${setName('masqueraded', family)} ${outside} masquerade`]
  return nftChain(prefixName(CHAIN, network), 'type nat hook postrouting priority srcnat', rules, 'ipMasq')
}

export type PodMasquerade = { readonly ground: readonly KernelObject[]; readonly own: readonly NftElement[] }

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
    ground: [...families.map((family) => setOf(which, family)), ...chains],
    own: ips.map((ip) => addressElement(setName(which, ip.family), ip, link, whose))
  }
}

/** What stands for such pods: a restarted weftd asks for it again. */
export function masqueradeGroundFor(elements: readonly NftElement[], observed: State): readonly KernelObject[] {
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
