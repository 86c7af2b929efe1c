// Makes a chain of the table `inet weft`: nft text with one digest per rule, by which the kernel's copy is compared.
import { digest } from '../state/digest.ts'
import type { NftChain } from '../state/object.ts'
import { NFT_TABLE } from '../state/ownership.ts'

/** `hook` as nft prints it (`type nat hook postrouting priority srcnat`); `rules`: nft text without comments. */
export function nftChain(chain: string, hook: string | undefined, rules: readonly string[], because: string): NftChain {
  return {
    kind: 'nft-chain',
    family: 'inet',
    table: NFT_TABLE,
    chain,
    ...(hook === undefined ? {} : { hook }),
    rules,
    digests: rules.map(digest),
    because
  }
}
