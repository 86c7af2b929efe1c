// The sets of the nodes' addresses in nftables, to whose tunnel ports pods may not send, and their elements.
import { type Family, formatIp, type Ip } from '../../ipam/address.ts'
import type { NftElement } from './object.ts'
import { NFT_TABLE } from './ownership.ts'

export const tunnelNodeSet = (family: Family): string => `tunnel_nodes_${family}`

/** Another node, by the address that its lease publishes. */
export const tunnelNode = (ip: Ip, because: string): NftElement => ({
  ...{ kind: 'nft-element', family: 'inet', table: NFT_TABLE, set: tunnelNodeSet(ip.family), key: formatIp(ip) },
  because
})
