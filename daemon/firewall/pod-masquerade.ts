// Masquerading of single pods of the node's subnet, where their network's `ipMasq` says otherwise than the node's --ip-masq: elements of sets.
import { FAMILIES, type Family, formatIp, type Ip, type Prefix } from '../../ipam/address.ts'
import { elementComment } from '../state/host-port.ts'
import type { KernelObject, NftElement, NftSet, State } from '../state/object.ts'
import { NFT_TABLE } from '../state/ownership.ts'
import { nftChain } from './chain.ts'
import { fromAny, MULTICAST, prefixOf, prefixWord, toPrefix } from './match.ts'

/** Pods that keep their address, and pods that get this host's, when their packets leave the network. */
type Which = 'unmasqueraded' | 'masqueraded'

const setName = (which: Which, family: Family): string => `${which}_${family}`

const setOf = (which: Which, family: Family): NftSet => ({
  ...{ kind: 'nft-set', family: 'inet', table: NFT_TABLE, set: setName(which, family), form: 'set' },
  declaration: `type ${family === 4 ? 'ipv4_addr' : 'ipv6_addr'}`,
  because: 'ipMasq'
})

/** What the node's own masquerading asks, and `sparing`. */
export const sparedSet = (family: Family): NftSet => setOf('unmasqueraded', family)

/** The node's rule for pods that keep their address. */
export const sparing = (family: Family): string => `${fromAny(family)} @${setName('unmasqueraded', family)} return`

/** kube-proxy marks what it masquerades itself with this bit (flannel.md 7). */
export const MARKED_BY_OTHERS = 'meta mark & 0x4000 == 0x4000 return'

const CHAIN = 'masqueraded_pods_'

/** What leaves `network` from such pods gets this host's address; the name tells the network, by which a restarted weftd knows the rules. */
function masqueradeChain(network: Prefix): KernelObject {
  const { family } = network.ip
  const outside = `${toPrefix(network, true)} ${toPrefix(MULTICAST[family], true)}`
  const rules = [MARKED_BY_OTHERS, `${fromAny(family)} @${setName('masqueraded', family)} ${outside} masquerade`]
  const name = `${CHAIN}${family}_${prefixWord(network)}`
  return nftChain(name, 'type nat hook postrouting priority srcnat', rules, 'ipMasq')
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
    own: ips.map((ip) => ({
      ...{ kind: 'nft-element', family: 'inet', table: NFT_TABLE, set: setName(which, ip.family), key: formatIp(ip) },
      comment: elementComment(link, whose)
    }))
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
    const found = object.kind === 'nft-chain' ? /^masqueraded_pods_([46])_(.*)$/.exec(object.chain) : null
    const family = Number(found?.[1]) as Family
    const network = found === null ? undefined : prefixOf(found[2] ?? '', family)
    return network !== undefined && has('masqueraded', family) ? [masqueradeChain(network)] : []
  })
  return [...sets, ...chains]
}
