// Masquerading of single pods of the node's subnet whose network's `ipMasq` differs from the node's --ip-masq: set
// elements.
import { FAMILIES, type Family, type Ip, type Prefix } from '../../ipam/address.ts'
import type { KernelObject, NftChain, NftElement, NftSet, State } from '../state/object.ts'
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

/**
 * Bit of the mark for a pod's packets that iptables is not to masquerade, since its rules can't ask a set of nftables.
 * It is set right before iptables' chain and cleared right after it. Not a bit of kube-proxy's (0x4000, 0x8000), of
 * portmap's (0x2000), or of what Cilium, Calico, Tailscale and wg-quick use.
 */
export const EXEMPT_MARK = 0x1000

/** Marks the packets of exempt pods while iptables decides about masquerading. */
export function exemptMarks(families: readonly Family[]): readonly NftChain[] {
  const bit = `0x${EXEMPT_MARK.toString(16)}`
  const rest = `0x${(0xffffffff - EXEMPT_MARK).toString(16)}`
  const set = (family: Family) => `@${setName('unmasqueraded', family)}`
  const chain = (name: string, priority: string, rule: (family: Family) => string) =>
    nftChain(name, `type filter hook postrouting priority ${priority}`, families.map(rule), '--ip-masq with iptables')
  return [
    chain(
      'exempt_mark',
      'srcnat - 1',
      (family) => `${fromAny(family)} ${set(family)} meta mark set meta mark | ${bit}`
    ),
    chain(
      'exempt_unmark',
      'srcnat + 1',
      (family) => `ct original ${fromAny(family)} ${set(family)} meta mark set meta mark & ${rest}`
    )
  ]
}

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
