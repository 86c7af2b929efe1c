// Other programs' chains at hook forward as plain values, and the one judgement about them: where a pod's packet would be dropped.
import { contains, type Family, overlaps, type Prefix } from '../../ipam/address.ts'
import type { ForeignAccept } from './object.ts'

/** What must hold for a packet so that a rule's verdict meets it. */
export type ForeignCondition =
  /** Source or destination lies in one of the prefixes (outside all of them when `negated`). */
  | { readonly kind: 'address'; readonly prefixes: readonly Prefix[]; readonly negated: boolean }
  | { readonly kind: 'family'; readonly family: Family }
  /** A service, a mark, a rate, a list somebody keeps, packets conntrack calls invalid: a decision about these packets, not about pods. */
  | { readonly kind: 'deliberate' }
  /** Anything else, interfaces and protocols among it: pods' packets may be meant. */
  | { readonly kind: 'other' }

export type ForeignVerdict =
  | { readonly kind: 'accept' | 'drop' | 'return' | 'queue' }
  | { readonly kind: 'jump' | 'goto'; readonly chain: string }

/** One way out of a rule; a verdict map has many, a rule that only counts or logs has none. */
export type ForeignBranch = { readonly conditions: readonly ForeignCondition[]; readonly verdict: ForeignVerdict }

export type ForeignRule = {
  /** nft's number of the rule inside its table; iptables-legacy has none. */
  readonly handle?: number
  readonly branches: readonly ForeignBranch[]
  /** Set when the rule is an accept of ours. */
  readonly ours?: Pick<ForeignAccept, 'match' | 'prefix'>
  /** The rule as its tool prints it. */
  readonly text: string
}

export type ForeignChain = {
  readonly name: string
  /** What meets packets that reach the end; only chains that hang at hook forward have one. */
  readonly policy?: 'accept' | 'drop'
  readonly rules: readonly ForeignRule[]
}

export type ForeignTable = Pick<ForeignAccept, 'tool' | 'family' | 'table'> & {
  readonly chains: ReadonlyMap<string, ForeignChain>
}

/** Other programs' tables with chains at hook forward, for firewall/foreign.ts. */
export type ForeignView = {
  readonly tables: readonly ForeignTable[]
  /** Why part of it could not be read: a missing tool, most likely. */
  readonly trouble?: Error
}

/** What becomes of a pod's packet in a chain, and between which rules an accept has its place. */
export type Fate = {
  readonly end: 'drops' | 'accepts' | 'passes'
  /** Index of the rule that decides; the number of rules when the policy or the chain's end does. An accept must stand before it. */
  readonly at: number
  /** Index after the last rule before `at` that drops on purpose (a NetworkPolicy, a blocked port); an accept must not stand before those. */
  readonly after: number
}

/**
 * Chains by which NetworkPolicy engines and kube-proxy refuse packets (Calico, kube-router, kube-proxy, Weave, Cilium, Antrea). They mean it: an accept
 * before them would switch the policies off. Names read off their sources, November 2026.
 */
const policyChain = /^(cali-|KUBE-|WEAVE-NPC|CILIUM_|ANTREA-)/
const policyTable = /^(kube-|kindnet|calico|cilium|antrea)/

/** Docker's, which only keep its own bridges apart: what comes by one and leaves by another of them. Nothing of a pod's passes there. */
const dockerIsolation = /^DOCKER-ISOLATION-STAGE-[12]$/

/** Whether all a table does is the business of a policy engine or of kube-proxy's own nftables mode. */
export const isPolicyTable = (table: Pick<ForeignTable, 'table'>): boolean => policyTable.test(table.table)

/** What becomes of packets from or to `prefix` in a chain of `table`. A chain that does not exist lets them pass. */
export const fateIn = (table: ForeignTable, chain: string, prefix: Prefix): Fate => new Walk(table, prefix).chain(chain)

type Effect = 'none' | 'deliberate' | 'drops' | 'accepts' | 'returns'

class Walk {
  readonly #table: ForeignTable
  readonly #prefix: Prefix
  readonly #known = new Map<string, Fate>()

  constructor(table: ForeignTable, prefix: Prefix) {
    this.#table = table
    this.#prefix = prefix
  }

  chain(name: string): Fate {
    const known = this.#known.get(name)
    if (known) return known
    const passes: Fate = { end: 'passes', at: 0, after: 0 }
    const chain = this.#table.chains.get(name)
    if (chain === undefined) return passes
    // The kernel refuses loops; output read while somebody changes it may still show one.
    this.#known.set(name, passes)
    const fate = this.#rules(chain)
    this.#known.set(name, fate)
    return fate
  }

  #rules(chain: ForeignChain): Fate {
    const atEnd = chain.policy === 'drop' ? 'drops' : chain.policy === 'accept' ? 'accepts' : 'passes'
    let after = 0
    for (const [at, rule] of chain.rules.entries()) {
      const effect = this.#rule(rule)
      if (effect === 'deliberate') after = at + 1
      if (effect === 'drops' || effect === 'accepts') return { end: effect, at, after }
      if (effect === 'returns') return { end: atEnd, at, after }
    }
    return { end: atEnd, at: chain.rules.length, after }
  }

  #rule(rule: ForeignRule): Effect {
    const effects = rule.branches.map((branch) => this.#branch(branch))
    const worst = (['drops', 'deliberate', 'accepts', 'returns'] as const).find((effect) => effects.includes(effect))
    return worst ?? 'none'
  }

  #branch({ conditions, verdict }: ForeignBranch): Effect {
    const family = this.#prefix.ip.family
    if (conditions.some((condition) => condition.kind === 'family' && condition.family !== family)) return 'none'
    const always = conditions.every((condition) => condition.kind === 'family')
    const onPurpose = conditions.some((condition) => this.#spares(condition))
    switch (verdict.kind) {
      case 'accept':
        return always ? 'accepts' : 'none'
      case 'return':
        return always ? 'returns' : 'none'
      case 'drop':
        return onPurpose ? 'deliberate' : 'drops'
      case 'queue':
        return 'deliberate'
      case 'jump':
      case 'goto':
        return this.#called(verdict, always, onPurpose)
    }
  }

  #called(verdict: { readonly kind: string; readonly chain: string }, always: boolean, onPurpose: boolean): Effect {
    if (policyChain.test(verdict.chain)) return 'deliberate'
    if (dockerIsolation.test(verdict.chain)) return 'none'
    const { end, after } = this.chain(verdict.chain)
    if (end === 'drops') return onPurpose ? 'deliberate' : 'drops'
    if (after > 0) return 'deliberate'
    if (!always) return 'none'
    if (end === 'accepts') return 'accepts'
    return verdict.kind === 'goto' ? 'returns' : 'none'
  }

  /** Whether a condition says that the drop behind it is not about pods as such. */
  #spares(condition: ForeignCondition): boolean {
    if (condition.kind !== 'address') return condition.kind === 'deliberate'
    return condition.negated
      ? condition.prefixes.some((prefix) => contains(prefix, this.#prefix))
      : !condition.prefixes.some((prefix) => overlaps(prefix, this.#prefix))
  }
}
