// The types of firewall objects: chains, sets and elements of Weft's own tables, and what it adds to other programs'
// chains.
import type { Prefix } from '../../ipam/address.ts'

/** Why it is desired, as for every object (object.ts). */
type Wanted = { readonly because?: string }

export type NftFamily = 'inet' | 'ip' | 'ip6' | 'bridge'

/**
 * A whole chain of one of Weft's tables. Rules are nft text; each is stored with its digest as comment, by which it is
 * recognised.
 */
export type NftChain = Wanted & {
  readonly kind: 'nft-chain'
  readonly family: NftFamily
  readonly table: string
  readonly chain: string
  /** For base chains, as nft writes it: `type nat hook postrouting priority srcnat`. */
  readonly hook?: string
  /** Rules without comment, in order. Not read back. */
  readonly rules?: readonly string[]
  /** One digest per rule, in order; these are compared. Created by `nftChain()`. */
  readonly digests: readonly string[]
}

/**
 * A named set or map of one of Weft's tables; `declaration` is nft text such as `type inet_proto . inet_service :
 * ipv4_addr . inet_service`.
 */
export type NftSet = Wanted & {
  readonly kind: 'nft-set'
  readonly family: NftFamily
  readonly table: string
  readonly set: string
  readonly form: 'set' | 'map'
  readonly declaration?: string
}

/** One element of such a set or map, as nft prints it. `value` is for maps. */
export type NftElement = Wanted & {
  readonly kind: 'nft-element'
  readonly family: NftFamily
  readonly table: string
  readonly set: string
  readonly key: string
  readonly value?: string
  /** At most 127 bytes of ASCII; identifies the owner for a restarted weftd. */
  readonly comment?: string
}

/**
 * An accept for `prefix` in a chain that belongs to another program and would drop pod packets.
 * `tool` is the tool that created the chain and must change it: nft itself, or either iptables.
 */
export type ForeignAccept = Wanted & {
  readonly kind: 'accept'
  readonly tool: 'nft' | IptablesTool
  /** Table family for nft; `ip` or `ip6` for iptables. */
  readonly family: NftFamily
  readonly table: string
  readonly chain: string
  /** `pair`: source and destination are both in the prefix. */
  readonly match: 'pair' | 'source' | 'destination'
  readonly prefix: Prefix
  /** The packets leave the chain instead of being accepted: rules behind its call are to see them. */
  readonly verdict?: 'return'
  /** Whether it is where it belongs (foreign-course.ts); `true` in desired ones. */
  readonly effective?: boolean
}

/** Which iptables: the one that writes nftables, or the one with tables of its own in the kernel. */
export type IptablesTool = 'iptables-nft' | 'iptables-legacy'

/**
 * A whole chain of Weft in a table of iptables, where nftables does not masquerade and forward. Each rule has its
 * digest as comment, by which it is recognised.
 */
export type IptablesChain = Wanted & {
  readonly kind: 'iptables-chain'
  readonly tool: IptablesTool
  readonly family: 'ip' | 'ip6'
  readonly table: string
  readonly chain: string
  /** The built-in chain that calls it. */
  readonly from: string
  /** Whether exactly one rule there does, and for every packet; `true` in desired ones. */
  readonly isCalled: boolean
  /** Rules without comment, as iptables-save writes them behind `-A CHAIN`. Not read back. */
  readonly rules?: readonly string[]
  /** One digest per rule, in order; these are compared. */
  readonly digests: readonly string[]
}

/** The call of an administrator's chain in a chain at hook forward, before every accept of Weft. */
export type AdminCall = Omit<ForeignAccept, 'kind' | 'match' | 'prefix' | 'verdict'> & {
  readonly kind: 'admin-call'
  readonly target: string
}
