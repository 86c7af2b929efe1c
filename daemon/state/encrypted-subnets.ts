// The sets of other nodes' subnets in nftables, to and from which nothing goes in clear, and their elements.
import { type Family, formatIp, network, type Prefix } from '../../ipam/address.ts'
import type { NftElement } from './object.ts'
import { NFT_TABLE } from './ownership.ts'

export const encryptedSet = (family: Family): string => `encrypted_${family}`

/** Another node's subnet, by its first address. */
export const encryptedSubnet = (subnet: Prefix, because: string): NftElement => ({
  ...{ kind: 'nft-element', family: 'inet', table: NFT_TABLE, set: encryptedSet(subnet.ip.family) },
  ...{ key: formatIp(network(subnet).ip), because }
})
