// Types for other programs' chains at hook forward, and the walk that finds where they drop packets of pods.
import { contains, type Family, overlaps, type Prefix } from '../../ipam/address.ts'
import type { ForeignAccept } from './object.ts'

/** A condition for a rule's verdict to apply to a packet. */
export type ForeignCondition =
  /** Source or destination is in one of the prefixes (in none of them when `negated`). */
  | { readonly kind: 'address'; readonly prefixes: readonly Prefix[]; readonly negated: boolean }
  | { readonly kind: 'family'; readonly family: Family }
  /**
   * A service, a mark, a rate, a set maintained by someone, packets that conntrack calls invalid: a decision about
   * these packets, not about pods.
   */
  | { readonly kind: 'deliberate' }
  /** Anything else, such as interfaces and protocols: it may match packets of pods. */
  | { readonly kind: 'other' }

export type ForeignVerdict =
  | { readonly kind: 'accept' | 'drop' | 'return' | 'queue' }
  | { readonly kind: 'jump' | 'goto'; readonly chain: string }

/** One verdict of a rule; a verdict map has many, a rule that only counts or logs has none. */
export type ForeignBranch = { readonly conditions: readonly ForeignCondition[]; readonly verdict: ForeignVerdict }

export type ForeignRule = {
  /** nft's handle of the rule in its table; iptables-legacy has none. */
  readonly handle?: number
  readonly branches: readonly ForeignBranch[]
  /** Set if the rule is one of Weft's accepts. */
  readonly ours?: Pick<ForeignAccept, 'match' | 'prefix'>
  /** The rule as its tool prints it. */
  readonly text: string
}

export type ForeignChain = {
  readonly name: string
  /** The verdict for packets that reach the end; only base chains at hook forward have one. */
  readonly policy?: 'accept' | 'drop'
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
}

/** What happens to a pod's packet in a chain, and between which rules an accept belongs. */
export type Fate = {
  readonly end: 'drops' | 'accepts' | 'passes'
  /**
   * Index of the rule that decides; the number of rules if the policy or the end of the chain does. An accept must be
   * before it.
   */
  readonly at: number
  /**
   * Index after the last rule before `at` that drops on purpose (a NetworkPolicy, a blocked port); an accept must not
   * be before those.
   */
  readonly after: number
}

/**
 * Chains in which NetworkPolicy engines and kube-proxy drop packets on purpose (Calico, kube-router, kube-proxy, Weave,
 * Cilium, Antrea): an accept before them would disable the policies. Names from their sources, November 2026.
 */
const policyChain = /^(cali-|KUBE-|WEAVE-NPC|CILIUM_|ANTREA-)/
const policyTable = /^(kube-|kindnet|calico|cilium|antrea)/

/**
 * Docker's, which only isolate its own bridges: they drop what enters by one and leaves by another. Packets of pods
 * never match.
 */
const dockerIsolation = /^DOCKER-ISOLATION-STAGE-[12]$/

/** Whether a table belongs to a policy engine or to kube-proxy's nftables mode. */
export const isPolicyTable = (table: Pick<ForeignTable, 'table'>): boolean => policyTable.test(table.table)

/** What happens to packets from or to `prefix` in a chain of `table`. They pass a chain that does not exist. */
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
    // The kernel rejects loops; output read during a change may still show one.
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
    const onPurpose = conditions.some((condition) => this.#isOnPurpose(condition))
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

  /** Whether a condition shows that the drop is not about pods in general. */
  #isOnPurpose(condition: ForeignCondition): boolean {
    if (condition.kind !== 'address') return condition.kind === 'deliberate'
    return condition.negated
      ? condition.prefixes.some((prefix) => contains(prefix, this.#prefix))
      : !condition.prefixes.some((prefix) => overlaps(prefix, this.#prefix))
  }
}
