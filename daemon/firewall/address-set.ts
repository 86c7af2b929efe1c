// nftables sets of pod addresses: a rule applies to the pods in a set, and a restarted weftd reads the set to know
// which.
import { type Family, formatIp, type Ip } from '../../ipam/address.ts'
import { elementComment } from '../state/host-port.ts'
import type { NftElement, NftSet } from '../state/object.ts'
import { NFT_TABLE } from '../state/ownership.ts'

/** nft's type for addresses of a family. */
export const addressType = (family: Family): 'ipv4_addr' | 'ipv6_addr' => (family === 4 ? 'ipv4_addr' : 'ipv6_addr')

/** A set of the table `inet weft` for addresses of one family; with `interval` for networks. */
export const addressSet = (set: string, family: Family, because?: string, flags?: 'interval'): NftSet => ({
  ...{ kind: 'nft-set', family: 'inet', table: NFT_TABLE, set, form: 'set' },
  declaration: `type ${addressType(family)}${flags === undefined ? '' : `; flags ${flags}`}`,
  ...(because !== undefined && { because })
})

/** `mark` and `whose` as in `hostPortElement`. */
export const addressElement = (set: string, ip: Ip, mark: string, whose: string): NftElement => ({
  ...{ kind: 'nft-element', family: 'inet', table: NFT_TABLE, set, key: formatIp(ip) },
  comment: elementComment(mark, whose)
})
