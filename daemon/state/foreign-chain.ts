// Types for other programs' chains at hook forward. foreign-course.ts judges what they do with packets of pods.
import { type Family, type Prefix, samePrefix } from '../../ipam/address.ts'
import type { ForeignAccept } from './object.ts'

/** A condition for a rule's verdict to apply to a packet. */
export type ForeignCondition =
  /** The address is in one of the prefixes (in none of them when `negated`). `side` is absent where it is not known. */
  | {
      readonly kind: 'address'
      readonly prefixes: readonly Prefix[]
      readonly negated: boolean
      readonly side?: 'source' | 'destination'
    }
  /**
   * The packet enters or leaves by one of the devices (by none of them when `negated`); `eth*` is any that begins so.
   */
  | {
      readonly kind: 'interface'
      readonly names: readonly string[]
      readonly negated: boolean
      readonly side: 'in' | 'out'
    }
  | { readonly kind: 'family'; readonly family: Family }
  /** The first packet of each connection: a drop of these drops everything. */
  | { readonly kind: 'new' }
  /** Packets that conntrack calls invalid or does not track. */
  | { readonly kind: 'broken' }
  /** A service, a mark, a rate, a set maintained by someone, a match that can't be read: it may be about some pods. */
  | { readonly kind: 'deliberate'; readonly set?: NamedSet }
  /** Anything else, such as protocols: it may match packets of pods. `isFirst`: never the first of a connection. */
  | { readonly kind: 'other'; readonly isFirst?: false }

/** A set of addresses with a name, of which only single elements are read. */
export type NamedSet = {
  readonly name: string
  readonly negated: boolean
  /** Networks of pods that are in it as a whole; absent: that was not asked, or no set of intervals has the name. */
  readonly holds?: readonly Prefix[]
}

export type ForeignVerdict =
  | { readonly kind: 'accept' | 'drop' | 'return' }
  /**
   * The packet goes to a program: by one of these queues of nfnetlink_queue, which drop it while no program listens;
   * without numbers it may pass then, or that is not known. `hasNoListener`: no program listens at any of them.
   */
  | { readonly kind: 'queue'; readonly numbers?: readonly [first: number, last: number]; readonly hasNoListener?: true }
  | { readonly kind: 'jump' | 'goto'; readonly chain: string }

/** One verdict of a rule; a verdict map has many, a rule that only counts or logs has none. */
export type ForeignBranch = { readonly conditions: readonly ForeignCondition[]; readonly verdict: ForeignVerdict }

export type OurAccept = Pick<ForeignAccept, 'match' | 'prefix' | 'verdict'>

/** Whether a rule of Weft is this accept: a RETURN for the same packets is another one. */
export const isRuleOf = (ours: OurAccept, { match, prefix, verdict }: OurAccept): boolean =>
  ours.match === match && ours.verdict === verdict && samePrefix(ours.prefix, prefix)

export type ForeignRule = {
  /** How many consecutive rules of the chain this one is read from, where they are several. */
  readonly count?: number
  /** nft's handle of the rule in its table; iptables-legacy has none. */
  readonly handle?: number
  readonly branches: readonly ForeignBranch[]
  /** Set if the rule is one of Weft's accepts. */
  readonly ours?: OurAccept
  /** Set if the rule is Weft's call of a chain for the administrator: that chain's name. */
  readonly oursTo?: string
  /** The rule as its tool prints it. */
  readonly text: string
}

export type ForeignChain = {
  readonly name: string
  /** The verdict for packets that reach the end; only base chains at hook forward have one. */
  readonly policy?: 'accept' | 'drop'
  /** Whether other chains than those of its ForeignTable call it, too. */
  readonly isCalledElsewhere?: boolean
  readonly rules: readonly ForeignRule[]
}

export type ForeignTable = Pick<ForeignAccept, 'tool' | 'family' | 'table'> & {
  readonly chains: ReadonlyMap<string, ForeignChain>
}

/** Other programs' tables with chains at hook forward, for firewall/foreign-accepts.ts. */
export type ForeignView = {
  readonly tables: readonly ForeignTable[]
  /** Why a part could not be read, most likely a missing tool. */
  readonly trouble?: Error
  /** Chains of so many rules that some were not read one by one, as `ip filter FORWARD`. */
  readonly partly?: readonly string[]
}

/** What must be known of this host to judge a rule. */
export type PodSide = {
  /** Devices behind which pods are; those of single pods may be given as `veth*`. */
  readonly devices: readonly string[]
  /** Devices by which packets of other nodes' pods may enter; absent where that is not known. */
  readonly carriers?: readonly string[]
  /** Of the devices those of this host's pods, and those that lead to other nodes, where that is certain. */
  readonly local?: readonly string[]
  readonly remote?: readonly string[]
  /** The pod networks. */
  readonly networks?: readonly Prefix[]
  /** Chains that must come before every accept of Weft (`iptablesAdminChainName` of the firewall plugin). */
  readonly adminChains: readonly string[]
}

/** Nothing is known of this host. */
export const NO_SIDE: PodSide = { devices: [], adminChains: [] }

/**
 * Chains in which NetworkPolicy engines and kube-proxy drop packets on purpose (Calico, kube-router, kube-proxy, Weave,
 * Cilium, Antrea): an accept before them would disable the policies. Names from their sources, November 2026.
 */
const policyChain = /^(cali-|KUBE-|WEAVE-NPC|CILIUM_|ANTREA-)/

/** Whether a chain belongs to a policy engine: it is judged by its name, not by its rules. */
export const isPolicyChain = (chain: string): boolean => policyChain.test(chain)

const policyTable = /^(kube-|kindnet|calico|cilium|antrea)/

/** Whether a table belongs to a policy engine or to kube-proxy's nftables mode. */
export const isPolicyTable = (table: Pick<ForeignTable, 'table'>): boolean => policyTable.test(table.table)
