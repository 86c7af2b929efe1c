// Chains for networks that are not the node's own: masquerading (`ipMasq` of bridge and ptp) and forwarding (the firewall plugin), one chain a subnet.
//
// The rules follow from the subnet and the name tells it. So all containers of a subnet share a chain, only the first ADD and the last DEL touch
// nftables, and a restarted weftd knows what each chain is for.
import { contains, type Family, formatIp, type Ip, network, type Prefix, parseIp } from '../../ipam/address.ts'
import { elementComment } from '../state/host-port.ts'
import type { KernelObject, NftChain, NftElement, State } from '../state/object.ts'
import { NFT_TABLE } from '../state/ownership.ts'
import { nftChain } from './chain.ts'
import { fromPrefix, MULTICAST, prefixOf, prefixWord, toPrefix } from './match.ts'

export type SubnetPurpose = 'masquerade' | 'forward'

const nameOf = (purpose: SubnetPurpose, prefix: Prefix): string =>
  `${purpose}_${prefix.ip.family}_${prefixWord(prefix)}`

/** What leaves the subnet gets this host's address, multicast excepted; or packets from and to it are accepted on their way through this host. */
export function subnetChain(purpose: SubnetPurpose, prefix: Prefix): NftChain {
  const subnet = network(prefix)
  if (purpose === 'forward') {
    const rules = [`${fromPrefix(subnet)} accept`, `${toPrefix(subnet)} accept`]
    return nftChain(nameOf(purpose, subnet), 'type filter hook forward priority filter', rules, 'the firewall plugin')
  }
  const outside = `${toPrefix(subnet, true)} ${toPrefix(MULTICAST[subnet.ip.family], true)}`
  const rules = [`${fromPrefix(subnet)} ${outside} masquerade`]
  return nftChain(nameOf(purpose, subnet), 'type nat hook postrouting priority srcnat', rules, 'ipMasq')
}

/** What a chain of this kind is for; `undefined` for any other chain. */
export function purposeOf(chain: string): { readonly purpose: SubnetPurpose; readonly subnet: Prefix } | undefined {
  const found = /^(masquerade|forward)_([46])_(.*)$/.exec(chain)
  const subnet = found === null ? undefined : prefixOf(found[3] ?? '', Number(found[2]) as Family)
  return subnet === undefined ? undefined : { purpose: found?.[1] as SubnetPurpose, subnet }
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

function throughElement(ip: Ip, mark: string, whose: string): readonly KernelObject[] {
  const place = { family: 'inet', table: NFT_TABLE, set: throughSet(ip.family) } as const
  const type = ip.family === 4 ? 'ipv4_addr' : 'ipv6_addr'
  return [
    { kind: 'nft-set', ...place, form: 'set', declaration: `type ${type}` },
    { kind: 'nft-element', ...place, key: formatIp(ip), comment: elementComment(mark, whose) }
  ]
}

/** The same as it stands, from one of its elements; `undefined` for any other element. */
export function letThroughAsItIs(element: NftElement, observed: State): readonly KernelObject[] | undefined {
  const ip = parseIp(element.key)
  if (ip === undefined || element.set !== throughSet(ip.family)) return undefined
  const [mark = '', ...whose] = (element.comment ?? '').split(' ')
  return [...chainsAround('forward', [ip], observed), ...throughElement(ip, mark, whose.join(' '))]
}
