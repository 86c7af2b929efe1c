// Masquerading for networks that are not the node's own (`ipMasq` of bridge and ptp): one chain a subnet, the same for every container in it.
import { contains, everything, type Family, network, type Prefix, width } from '../../ipam/address.ts'
import type { NftChain } from '../state/object.ts'
import { nftChain } from './chain.ts'
import { fromPrefix, MULTICAST, toPrefix } from './match.ts'

/**
 * What leaves the subnet gets this host's address, multicast excepted. The rules follow from the subnet and the name tells it, so that containers share
 * the chain, only the first ADD and the last DEL of a subnet touch nftables, and a restarted weftd knows what it is for.
 */
export function subnetMasquerade(prefix: Prefix): NftChain {
  const subnet = network(prefix)
  const { family } = subnet.ip
  return nftChain(
    `masquerade_${family}_${subnet.ip.value.toString(16)}_${subnet.length}`,
    'type nat hook postrouting priority srcnat',
    [`${fromPrefix(subnet)} ${toPrefix(subnet, true)} ${toPrefix(MULTICAST[family], true)} masquerade`],
    'ipMasq'
  )
}

/** The subnet that a chain of this kind is for; `undefined` for any other chain. */
export function subnetOfChain(chain: string): Prefix | undefined {
  const [, family, value, length] = /^masquerade_([46])_([0-9a-f]{1,32})_(\d{1,3})$/.exec(chain) ?? []
  if (family === undefined || value === undefined || length === undefined) return undefined
  const prefix: Prefix = {
    ip: { family: Number(family) as Family, value: BigInt(`0x${value}`) },
    length: Number(length)
  }
  const isPossible =
    Number(length) <= width(prefix.ip.family) && prefix.ip.value < 1n << BigInt(width(prefix.ip.family))
  return isPossible && contains(everything(prefix.ip.family), prefix) ? prefix : undefined
}
