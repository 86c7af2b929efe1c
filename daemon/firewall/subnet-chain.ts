// Chains for networks that are not the node's own: masquerading (`ipMasq` of bridge and ptp) and forwarding (the firewall plugin), one chain a subnet.
//
// The rules follow from the subnet and the name tells it. So all containers of a subnet share a chain, only the first ADD and the last DEL touch
// nftables, and a restarted weftd knows what each chain is for.
import { type Family, network, type Prefix } from '../../ipam/address.ts'
import type { NftChain } from '../state/object.ts'
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
