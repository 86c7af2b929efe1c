// How a chain of ours comes about: nft text with one digest a rule, by which the kernel's copy is recognised.
import { digest } from '../state/digest.ts'
import type { NftChain } from '../state/object.ts'
import { NFT_TABLE } from '../state/ownership.ts'

/** A chain of the table `inet weft`. `hook` as nft prints it (`type nat hook postrouting priority srcnat`); `rules` as nft text without comment. */
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
