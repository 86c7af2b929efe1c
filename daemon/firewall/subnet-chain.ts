// Chains for networks that are not the node's own: masquerading (`ipMasq` of bridge and ptp) and forwarding (the firewall plugin), one chain a subnet.
//
// The rules follow from the subnet and the name tells it. So all containers of a subnet share a chain, only the first ADD and the last DEL touch
// nftables, and a restarted weftd knows what each chain is for.
import { contains, type Family, type Ip, network, type Prefix, parseIp } from '../../ipam/address.ts'
import type { KernelObject, NftChain, NftElement, State } from '../state/object.ts'
import { addressElement, addressSet } from './address-set.ts'
import { nftChain } from './chain.ts'
import { fromPrefix, MULTICAST, prefixName, prefixNamed, toPrefix } from './match.ts'

const PURPOSES = ['masquerade', 'forward'] as const
export type SubnetPurpose = (typeof PURPOSES)[number]

/** What leaves the subnet gets this host's address, multicast excepted; or packets from and to it are accepted on their way through this host. */
export function subnetChain(purpose: SubnetPurpose, prefix: Prefix): NftChain {
  const subnet = network(prefix)
  if (purpose === 'forward') {
    const rules = [`${fromPrefix(subnet)} accept`, `${toPrefix(subnet)} accept`]
    return nftChain(
      prefixName(purpose, subnet),
      'type filter hook forward priority filter',
      rules,
      'the firewall plugin'
    )
  }
  const outside = `${toPrefix(subnet, true)} ${toPrefix(MULTICAST[subnet.ip.family], true)}`
  const rules = [`${fromPrefix(subnet)} ${outside} masquerade`]
  return nftChain(prefixName(purpose, subnet), 'type nat hook postrouting priority srcnat', rules, 'ipMasq')
}

/** What a chain of this kind is for; `undefined` for any other chain. */
export function purposeOf(chain: string): { readonly purpose: SubnetPurpose; readonly subnet: Prefix } | undefined {
  for (const purpose of PURPOSES) {
    const subnet = prefixNamed(purpose, chain)
    if (subnet !== undefined) return { purpose, subnet }
  }
  return undefined
}

/** The chains that stand for these addresses. */
export const chainsAround = (purpose: SubnetPurpose, ips: readonly Ip[], observed: State): readonly NftChain[] =>
  [...observed.values()].flatMap((object) => {
    const found = object.kind === 'nft-chain' ? purposeOf(object.chain) : undefined
    const isTheirs = found?.purpose === purpose && ips.some((ip) => contains(found.subnet, ip))
    return isTheirs ? [subnetChain(purpose, found.subnet)] : []
  })

/** No rule asks this set: it tells a restarted weftd, and GC, for whom a chain of purpose `forward` stands. */
const throughSet = (family: Family): string => `let_through_${family}`

/** All that lets packets of these addresses through. `mark` and `whose` as in `hostPortElement`. */
export const letThroughObjects = (
  addresses: readonly Prefix[],
  mark: string,
  whose: string
): readonly KernelObject[] => [
  ...addresses.map((prefix) => subnetChain('forward', prefix)),
  ...addresses.flatMap(({ ip }) => throughElement(ip, mark, whose))
]

const throughElement = (ip: Ip, mark: string, whose: string): readonly KernelObject[] => [
  addressSet(throughSet(ip.family), ip.family),
  addressElement(throughSet(ip.family), ip, mark, whose)
]

/** The same as it stands, from one of its elements; `undefined` for any other element. */
export function letThroughAsItIs(element: NftElement, observed: State): readonly KernelObject[] | undefined {
  const ip = parseIp(element.key)
  if (ip === undefined || element.set !== throughSet(ip.family)) return undefined
  const [mark = '', ...whose] = (element.comment ?? '').split(' ')
  return [...chainsAround('forward', [ip], observed), ...throughElement(ip, mark, whose.join(' '))]
}
