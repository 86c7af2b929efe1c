// The sets in nftables of the nodes' addresses, to whose tunnels pods may not send, and of the pods behind a tunnel; and
// their elements.
import { type Family, formatIp, formatPrefix, type Ip, type Prefix } from '../../ipam/address.ts'
import type { NftElement } from './object.ts'
import { NFT_TABLE } from './ownership.ts'

export const tunnelNodeSet = (family: Family): string => `tunnel_nodes_${family}`

/** Another node, by the address that its lease publishes. */
export const tunnelNode = (ip: Ip, because: string): NftElement => ({
  ...{ kind: 'nft-element', family: 'inet', table: NFT_TABLE, set: tunnelNodeSet(ip.family), key: formatIp(ip) },
  because
})

export const tunnelSubnetSet = (family: Family): string => `tunnel_subnets_${family}`

/** The pods of another node, by the subnet that its lease is of. */
export const tunnelSubnet = (prefix: Prefix, because: string): NftElement => ({
  ...{ kind: 'nft-element', family: 'inet', table: NFT_TABLE, set: tunnelSubnetSet(prefix.ip.family) },
  ...{ key: formatPrefix(prefix), because }
})
