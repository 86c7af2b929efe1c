// Collects a chain's rules in bounded memory: alike ones that follow each other become one, and what is left of a very
// long chain is kept roughly.
import { formatPrefix, type Prefix } from '../../../ipam/address.ts'
import type { ForeignBranch, ForeignCondition, ForeignRule } from '../../state/foreign-chain.ts'

/** Rules of a chain that are read; the kernel is not asked about what comes after them. */
const MOST_READ = 200_000
/** Rules of a chain, alike ones counted once, that are kept as they are. */
export const MOST_KEPT = 4_000
/** The same of all chains together; each chain keeps at least its first ones. */
const MOST_KEPT_IN_ALL = 20_000
const KEPT_AT_LEAST = 50
/** Different verdicts, such as calls of chains, that are collected in one rule. */
const MOST_VERDICTS = 100
/** Addresses that are collected in one rule. */
const MOST_ADDRESSES = 1_000

/** How many rules one of `chains` chains may keep, where `kept` are kept already. */
export const mostKept = ({ kept = 0, chains = 1 }: { readonly kept?: number; readonly chains?: number }): number =>
  Math.max(KEPT_AT_LEAST, Math.min(MOST_KEPT, Math.floor((MOST_KEPT_IN_ALL - kept) / chains)))

/** Rules that differ in the addresses of one match at most. */
type Run = { readonly rule: ForeignRule; readonly shape: string; readonly prefixes: Prefix[]; count: number }

/** The shape of rules that are kept roughly. */
const ROUGH = 'rough'

export class RuleList {
  readonly #kept: ForeignRule[] = []
  readonly #most: number
  #run: Run | undefined
  /** Whether the last rule added is one of the run, not one without a verdict. */
  #isOfRun = false
  #read = 0
  #isPartial = false

  constructor(most = MOST_KEPT) {
    this.#most = most
  }

  /** Whether some rules were not kept as they are. */
  get isPartial(): boolean {
    return this.#isPartial
  }

  /** `false`: no more rules are taken, and what they do is unknown. */
  add(rule: ForeignRule): boolean {
    if (++this.#read > MOST_READ) {
      this.#isPartial = true
      this.#take({ ...rule, branches: [{ conditions: unknown, verdict: { kind: 'drop' } }] })
      return false
    }
    const { length } = this.#kept
    if (length < this.#most || !isPlain(rule) || (length < 2 * this.#most && isDecisive(rule))) this.#take(rule)
    else {
      this.#isPartial = true
      this.#takeRoughly(rule)
    }
    return true
  }

  /**
   * Adds a rule like the last one, with these addresses instead; `false`: it must be added as a rule of its own.
   */
  repeat(prefixes: readonly Prefix[]): boolean {
    const run = this.#run
    if (run === undefined || !this.#isOfRun || !isPlain(run.rule) || run.prefixes.length >= MOST_ADDRESSES) return false
    // Of a rule with addresses that make it no run, the same ones again.
    if (this.#read >= MOST_READ || (run.prefixes.length === 0) !== (prefixes.length === 0)) return false
    this.#read++
    run.prefixes.push(...prefixes)
    run.count++
    return true
  }

  #take(rule: ForeignRule): void {
    const run = this.#run
    const isOurs = !isPlain(rule)
    // A rule without a verdict, such as one that logs, may be part of any run.
    if (run !== undefined && isPlain(run.rule) && !isOurs && rule.branches.length === 0) {
      run.count++
      this.#isOfRun = false
      return
    }
    this.#isOfRun = true
    const { shape, prefixes } = shapeOf(rule)
    if (
      run !== undefined &&
      isPlain(run.rule) &&
      !isOurs &&
      run.shape === shape &&
      run.prefixes.length < MOST_ADDRESSES
    ) {
      run.prefixes.push(...prefixes)
      run.count++
      return
    }
    this.#endRun()
    this.#run = { rule, shape, prefixes: [...prefixes], count: rule.count ?? 1 }
  }

  /** One rule with every verdict that occurs stands for all that follow each other. */
  #takeRoughly(rule: ForeignRule): void {
    if (this.#run?.shape !== ROUGH || this.#run.rule.branches.length > MOST_VERDICTS) {
      this.#endRun()
      this.#run = { rule: { ...rule, branches: [] }, shape: ROUGH, prefixes: [], count: 0 }
    }
    const run = this.#run
    const known = new Set(run.rule.branches.map(({ verdict }) => JSON.stringify(verdict)))
    const more = rule.branches.filter(({ verdict }) => !known.has(JSON.stringify(verdict)))
    const branches = more.map(({ verdict }) => ({ conditions: unknown, verdict }))
    this.#run = { ...run, rule: { ...run.rule, branches: [...run.rule.branches, ...branches] }, count: run.count + 1 }
    this.#isOfRun = false
  }

  #endRun(): void {
    const run = this.#run
    this.#run = undefined
    if (run !== undefined) this.#kept.push(run.count === 1 ? run.rule : merged(run))
  }

  /** The rules collected; nothing may be added afterwards. */
  end(): readonly ForeignRule[] {
    this.#endRun()
    return this.#kept
  }
}

/** What is not known of a rule: it may match some packets of pods. */
const unknown: readonly ForeignCondition[] = [{ kind: 'deliberate' }]

/** Whether a rule is no more than its branches: not one of Weft's. */
function isPlain(rule: ForeignRule): boolean {
  for (const key in rule) if (key !== 'handle' && key !== 'branches' && key !== 'text' && key !== 'count') return false
  return true
}

/** Whether every packet that reaches a rule, of one family perhaps, meets its verdict. */
const isDecisive = ({ branches }: ForeignRule): boolean =>
  branches.every(({ conditions }) => conditions.every(({ kind }) => kind === 'family'))

/** What rules that may become one have in common, and the addresses that they may differ in. */
function shapeOf({ branches }: ForeignRule): { readonly shape: string; readonly prefixes: readonly Prefix[] } {
  const all = branches.flatMap(({ conditions }) => conditions.filter((one) => one.kind === 'address'))
  const [only] = all
  const mayDiffer = only !== undefined && all.length === 1 && !only.negated
  const shape = branches.map((branch) => branchText(branch, mayDiffer)).join('|')
  return { shape, prefixes: mayDiffer ? only.prefixes : [] }
}

const branchText = ({ conditions, verdict }: ForeignBranch, mayDiffer: boolean): string =>
  `${conditions.map((one) => conditionText(one, mayDiffer)).join('&')}>${verdict.kind} ${'chain' in verdict ? verdict.chain : 'numbers' in verdict ? verdict.numbers : ''}`

function conditionText(condition: ForeignCondition, mayDiffer: boolean): string {
  if (condition.kind === 'deliberate' && condition.set) return `${JSON.stringify(condition.set)}`
  if (condition.kind === 'deliberate' || condition.kind === 'other') return condition.kind
  if (condition.kind !== 'address') return JSON.stringify(condition)
  const { prefixes, ...rest } = condition
  return JSON.stringify(rest) + (mayDiffer ? '' : prefixes.map(formatPrefix).join())
}

function merged({ rule, prefixes, count }: Run): ForeignRule {
  const withAll = (condition: ForeignCondition): ForeignCondition =>
    condition.kind === 'address' && prefixes.length > 0 ? { ...condition, prefixes } : condition
  return {
    ...rule,
    count,
    branches: rule.branches.map((branch) => ({ ...branch, conditions: branch.conditions.map(withAll) })),
    text: `${rule.text} (the first of ${count} such rules)`
  }
}
