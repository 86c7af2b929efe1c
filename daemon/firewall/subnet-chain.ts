// Chains for networks that are not the node's own: masquerading (`ipMasq` of bridge and ptp) and forwarding (the firewall plugin), one chain a subnet.
//
// The rules follow from the subnet and the name tells it. So all containers of a subnet share a chain, only the first ADD and the last DEL touch
// nftables, and a restarted weftd knows what each chain is for.
import { type Family, network, type Prefix, width } from '../../ipam/address.ts'
import type { NftChain } from '../state/object.ts'
import { nftChain } from './chain.ts'
import { fromPrefix, MULTICAST, toPrefix } from './match.ts'

export type SubnetPurpose = 'masquerade' | 'forward'

const nameOf = (purpose: SubnetPurpose, { ip, length }: Prefix): string =>
  `${purpose}_${ip.family}_${ip.value.toString(16)}_${length}`

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
  const found = /^(masquerade|forward)_([46])_([0-9a-f]{1,32})_(\d{1,3})$/.exec(chain)
  if (found === null) return undefined
  const [, purpose, family, value, length] = found
  const subnet: Prefix = {
    ip: { family: Number(family) as Family, value: BigInt(`0x${value}`) },
    length: Number(length)
  }
  const bits = width(subnet.ip.family)
  if (subnet.length > bits || subnet.ip.value >= 1n << BigInt(bits)) return undefined
  return { purpose: purpose as SubnetPurpose, subnet }
}
