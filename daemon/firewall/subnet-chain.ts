// Chains for networks other than the node's own: masquerading (`ipMasq` of bridge and ptp) and forwarding (the firewall
// plugin), one chain per subnet.
//
// The rules follow from the subnet, which the name contains. So all containers of a subnet share a chain, only the
// first ADD and the last DEL change nftables, and a restarted weftd knows the purpose of each chain.
import { contains, type Family, type Ip, network, type Prefix, parseIp } from '../../ipam/address.ts'
import type { KernelObject, NftChain, NftElement, State } from '../state/object.ts'
import { addressElement, addressSet } from './address-set.ts'
import { nftChain } from './chain.ts'
import { fromPrefix, MULTICAST, prefixName, prefixNamed, toPrefix } from './match.ts'

const PURPOSES = ['masquerade', 'forward'] as const
export type SubnetPurpose = (typeof PURPOSES)[number]

/** Masquerades packets that leave the subnet, multicast excepted; or accepts forwarded packets from and to it. */
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

/** The purpose of such a chain; `undefined` for any other chain. */
export function purposeOf(chain: string): { readonly purpose: SubnetPurpose; readonly subnet: Prefix } | undefined {
  for (const purpose of PURPOSES) {
    const subnet = prefixNamed(purpose, chain)
    if (subnet !== undefined) return { purpose, subnet }
  }
  return undefined
}

/** The existing chains whose subnet has one of these addresses. */
export const chainsAround = (purpose: SubnetPurpose, ips: readonly Ip[], observed: State): readonly NftChain[] =>
  [...observed.values()].flatMap((object) => {
    const found = object.kind === 'nft-chain' ? purposeOf(object.chain) : undefined
    const isTheirs = found?.purpose === purpose && ips.some((ip) => contains(found.subnet, ip))
    return isTheirs ? [subnetChain(purpose, found.subnet)] : []
  })

/** No rule uses this set: it tells a restarted weftd, and GC, which pods a chain of purpose `forward` is for. */
const throughSet = (family: Family): string => `let_through_${family}`

const ADMIN = 'admin_'

/**
 * No packet passes this chain: its name tells a restarted weftd which chain of the administrator comes before the
 * accepts (foreign-accepts.ts).
 */
const adminMarker = (name: string): NftChain => nftChain(`${ADMIN}${name}`, undefined, [], 'iptablesAdminChainName')

/** The administrator's chain that such a marker names; `undefined` for any other chain. */
export const adminChainOf = ({ chain }: NftChain): string | undefined =>
  chain.startsWith(ADMIN) ? chain.slice(ADMIN.length) : undefined

/** All that lets packets of these addresses through. `mark` and `whose` as in `hostPortElement`. */
export const forwardAcceptObjects = (
  addresses: readonly Prefix[],
  mark: string,
  whose: string,
  adminChain: string
): readonly KernelObject[] => [
  adminMarker(adminChain),
  ...addresses.map((prefix) => subnetChain('forward', prefix)),
  ...addresses.flatMap(({ ip }) => throughElement(ip, mark, whose))
]

const throughElement = (ip: Ip, mark: string, whose: string): readonly KernelObject[] => [
  addressSet(throughSet(ip.family), ip.family),
  addressElement(throughSet(ip.family), ip, mark, whose)
]

/** The same, from an existing element; `undefined` for any other element. */
export function forwardAcceptReadBack(element: NftElement, observed: State): readonly KernelObject[] | undefined {
  const ip = parseIp(element.key)
  if (ip === undefined || element.set !== throughSet(ip.family)) return undefined
  const [mark = '', ...whose] = (element.comment ?? '').split(' ')
  const markers = [...observed.values()].flatMap((object) => {
    const name = object.kind === 'nft-chain' ? adminChainOf(object) : undefined
    return name === undefined ? [] : [adminMarker(name)]
  })
  return [...markers, ...chainsAround('forward', [ip], observed), ...throughElement(ip, mark, whose.join(' '))]
}
