// Follows a base chain of another program as packets of pods do: each rule that they meet, with what it asks of each
// kind of accept.
import type { Prefix } from '../../ipam/address.ts'
import {
  type ForeignBranch,
  type ForeignChain,
  type ForeignRule,
  type ForeignTable,
  isPolicyChain,
  type PodSide
} from './foreign-chain.ts'
import {
  ACCEPT_MATCHES,
  type AcceptMatch,
  type Bits,
  bitsOf,
  coversAll,
  cutsOff,
  type Effect,
  effectOfDrop,
  MISSES,
  type Owner,
  SOMETIMES,
  together
} from './foreign-match.ts'

export type PerMatch<T> = Readonly<Record<AcceptMatch, T>>

/** Where an accept belongs: before the rule at `index` of `chain`; at its end if there is no such rule. */
export type Place = { readonly chain: string; readonly index: number }

/** A rule, or the end of a chain, in the order in which packets meet them. */
export type Step = Place & {
  readonly effects: PerMatch<Effect>
  /** Packets may have left the chain before, and would not meet an accept here. */
  readonly isLeft: PerMatch<boolean>
  /** A rule before this one drops all packets: without an accept or a RETURN of Weft none comes here. */
  readonly isBehind: PerMatch<boolean>
  readonly scope: Scope
}

/** The steps that a RETURN skips. */
export type Scope = {
  /** The step that comes after them, where the chain was called; `undefined`: it was not, so the policy applies. */
  end: number | undefined
}

/** Those of kube-proxy alone: broken connections and Services, not traffic between pods. */
const proxyChain = /^KUBE-(FORWARD|SERVICES|EXTERNAL-SERVICES|PROXY-FIREWALL)$/

/**
 * Docker jumps to this chain first and does not change its rules (Docker's documentation, "Packet filtering and
 * firewalls").
 */
export const DOCKER_USER = 'DOCKER-USER'
const dockerIsolation = /^DOCKER-ISOLATION-STAGE-[12]$/
/** Docker 20 to 29; `docker-bridges` is the table of its nftables backend. */
const dockerChain = /^DOCKER(-(FORWARD|CT|BRIDGE|INTERNAL|INGRESS))?$/

export const perMatch = <T>(of: (match: AcceptMatch) => T): Record<AcceptMatch, T> => ({
  pair: of('pair'),
  source: of('source'),
  destination: of('destination')
})

/**
 * `dropped`: what comes later is walked as if that rule were not there, since packets that Weft lets past it meet what
 * the administrator wrote behind it.
 */
type Ending = 'decided' | 'dropped' | 'goes on'

/** A chain that all packets enter, while they are in it. */
type Frame = {
  readonly scope: Scope
  /** Packets may have returned from it, or from a chain around it. */
  isLeft: PerMatch<boolean>
  /** All of them have. */
  isDone: PerMatch<boolean>
  /** Packets may have returned from this very chain: what decides at its end does not decide for all. */
  returns: boolean
  /** No packet gets to its end. */
  ends: boolean
}

export class Walk {
  readonly steps: Step[] = []
  readonly cutOff: Place[] = []
  readonly #table: ForeignTable
  readonly #prefix: Prefix
  readonly #side: PodSide
  readonly #entered = new Set<string>()
  readonly #called = new Map<string, PerMatch<Effect>>()
  readonly #final = new Map<string, boolean>()
  readonly #leaving = new Map<string, boolean>()
  #callers: ReadonlyMap<string, readonly string[]> | undefined
  #isolated: number | undefined
  #base = ''
  readonly #drops = new Map<string, PerMatch<Effect>>()
  /** No packet of these goes on. */
  #settled: PerMatch<boolean> = never
  /** See Step. */
  #behind: PerMatch<boolean> = never

  constructor(table: ForeignTable, prefix: Prefix, side: PodSide) {
    this.#table = table
    this.#prefix = prefix
    this.#side = side
  }

  base(name: string): void {
    const chain = this.#table.chains.get(name)
    if (chain === undefined) return
    this.#base = name
    const scope: Scope = { end: undefined }
    const frame: Frame = { scope, isLeft: never, isDone: never, returns: false, ends: false }
    const isEnd = this.#chain(chain, frame) === 'decided'
    if (isEnd || chain.policy !== 'drop') return
    const effects = perMatch((match): Effect => (this.#settled[match] ? undefined : 'stop'))
    const isLeft = perMatch((match) => frame.ends || frame.isLeft[match])
    this.steps.push({ chain: name, index: chain.rules.length, effects, isLeft, isBehind: this.#behind, scope })
  }

  /**
   * An accept in a chain that is called from several places, or under a condition, would accept more than what is meant
   * here; so would one in a chain that such a chain calls.
   */
  readonly mayInsert = (chain: string): boolean => {
    this.#callers ??= callersIn(this.#table)
    let name = chain
    for (let depth = 0; name !== this.#base; depth++) {
      const [caller, ...more] = this.#callers.get(name) ?? []
      if (caller === undefined || more.length > 0 || depth > DEEPEST || this.#ownerOf(name) !== 'anybody') return false
      name = caller
    }
    return true
  }

  readonly isBase = (chain: string): boolean => chain === this.#base

  #step(chain: string, index: number, effects: PerMatch<Effect>, { isLeft, isDone, scope }: Frame): void {
    const isBehind = this.#behind
    const isDead = (match: AcceptMatch): boolean =>
      // What drops everything drops what is invalid, too: a rule behind it that does the same keeps nothing closed.
      isDone[match] || this.#settled[match] || (isBehind[match] && effects[match] === 'weak')
    const live = effects === nothing ? nothing : perMatch((match) => (isDead(match) ? undefined : effects[match]))
    this.steps.push({ chain, index, effects: live, isLeft, isBehind, scope })
  }

  /** Adds the steps of a chain that all packets enter. */
  #chain(chain: ForeignChain, frame: Frame): Ending {
    this.#entered.add(chain.name)
    const owner = this.#ownerOf(chain.name)
    let ending: Ending | undefined
    let isDropped = false
    for (const [index, rule] of chain.rules.entries()) {
      this.#rule(rule, { chain: chain.name, index }, owner, frame)
      if (rule.ours !== undefined) continue
      ending = this.#ending(rule, chain, frame)
      isDropped ||= ending === 'dropped'
      if (ending === 'dropped') this.#behind = withAll(this.#behind, frame)
      else if (ending !== undefined) break
    }
    // Of which no packet has returned, all have met their end here.
    if (ending === 'decided') this.#settled = withAll(this.#settled, frame)
    frame.ends = isDropped || ending !== undefined
    if (!frame.ends && chain.name !== this.#base) this.#step(chain.name, chain.rules.length, nothing, frame)
    return ending === 'decided' && !frame.returns ? 'decided' : 'goes on'
  }

  #rule(rule: ForeignRule, { chain, index }: Place, owner: Owner, frame: Frame): void {
    const isOurs = rule.ours !== undefined
    const effects = isOurs ? nothing : this.#effects(rule, owner)
    // An accept before a rule that asks for nothing, and lets packets go on, may as well be before the next one.
    if (effects !== nothing || isOurs || index === 0 || calls(rule)) this.#step(chain, index, effects, frame)
    if (effects !== nothing && rule.branches.some((branch) => cutsOff(branch, this.#prefix, this.#side)))
      this.cutOff.push({ chain, index })
  }

  /** What the rule does with all packets; `undefined`: some reach the next one. */
  #ending({ branches }: ForeignRule, chain: ForeignChain, frame: Frame): Ending | undefined {
    for (const branch of branches) {
      if (branch.verdict.kind === 'drop' && !isForAll(branch)) continue
      const bits = this.#bits(branch)
      const ending = bits === undefined ? undefined : this.#endingOf(branch, bits, chain, frame)
      if (ending !== undefined) return ending
    }
    return undefined
  }

  #endingOf(branch: ForeignBranch, bits: Bits, chain: ForeignChain, frame: Frame): Ending | undefined {
    const { verdict } = branch
    const isAlways = (bits & SOMETIMES) === 0
    if (verdict.kind === 'jump') return isAlways ? this.#jump(verdict.chain, frame) : undefined
    if (!isAlways) return this.#leave(branch, bits, chain, frame)
    if (verdict.kind === 'return') return 'goes on'
    if (verdict.kind === 'goto') return this.#enter(verdict.chain, frame)
    return verdict.kind === 'drop' ? 'dropped' : 'decided'
  }

  #jump(name: string, frame: Frame): Ending | undefined {
    const scope: Scope = { end: undefined }
    const ending = this.#enter(name, { ...frame, scope, returns: false, ends: false })
    scope.end = this.steps.length
    return ending === 'decided' ? 'decided' : undefined
  }

  /** Some packets are accepted, or return to the caller. */
  #leave({ conditions, verdict }: ForeignBranch, bits: Bits, chain: ForeignChain, frame: Frame): undefined {
    const isAccept = verdict.kind === 'accept' || (verdict.kind === 'return' && chain.policy === 'accept')
    const isReturn = verdict.kind === 'return' || (verdict.kind === 'goto' && !this.#decides(verdict.chain))
    if (!isAccept && !isReturn) return
    for (const match of ACCEPT_MATCHES) {
      if (bits & MISSES[match]) continue
      const isAll = coversAll(conditions, match, this.#prefix)
      if (isAll && isAccept && !frame.isLeft[match]) this.#settled = { ...this.#settled, [match]: true }
      if (isAll && verdict.kind !== 'goto') frame.isDone = { ...frame.isDone, [match]: true }
      if (!isAccept && !frame.isLeft[match]) frame.isLeft = { ...frame.isLeft, [match]: true }
    }
    if (!isAccept) frame.returns = true
  }

  /** Whether no packet returns from a chain. */
  #decides(name: string): boolean {
    const known = this.#final.get(name)
    if (known !== undefined) return known
    // See #calledEffects for loops.
    this.#final.set(name, false)
    const isFinal = this.#isFinal(name)
    this.#final.set(name, isFinal)
    return isFinal
  }

  #isFinal(name: string): boolean {
    for (const { branches } of this.#table.chains.get(name)?.rules ?? []) {
      for (const { conditions, verdict } of branches) {
        const isAlways = conditions.length === 0
        if (verdict.kind === 'return') return false
        if (isAlways && (verdict.kind === 'accept' || verdict.kind === 'drop')) return true
        if (verdict.kind !== 'goto') continue
        const isFinal = this.#decides(verdict.chain)
        if (isAlways || !isFinal) return isFinal
      }
    }
    return false
  }

  #enter(name: string, frame: Frame): Ending {
    const chain = this.#table.chains.get(name)
    // A chain that was entered before is judged as a whole by #effects, as are those whose content is somebody's law.
    return chain === undefined || !this.#mayEnter(name) ? 'goes on' : this.#chain(chain, frame)
  }

  #mayEnter(name: string): boolean {
    return !this.#entered.has(name) && !isPolicyChain(name) && !this.#side.adminChains.includes(name)
  }

  #ownerOf(chain: string): Owner {
    if (dockerIsolation.test(chain)) return this.#isolatedBridges() < 2 ? 'docker isolation' : 'docker'
    return dockerChain.test(chain) || this.#table.table === 'docker-bridges' ? 'docker' : 'anybody'
  }

  /** Of the bridges that Docker isolates, those with pods behind them. */
  #isolatedBridges(): number {
    this.#isolated ??= new Set(
      [...this.#table.chains.values()]
        .filter(({ name }) => dockerIsolation.test(name))
        .flatMap(({ rules }) => rules.flatMap(({ branches }) => branches.flatMap(({ conditions }) => conditions)))
        .flatMap((condition) => (condition.kind === 'interface' ? condition.names : []))
        .filter((name) => this.#side.devices.includes(name))
    ).size
    return this.#isolated
  }

  #bits(branch: Pick<ForeignBranch, 'conditions'>): Bits | undefined {
    return bitsOf(branch, this.#prefix, this.#side)
  }

  #effects({ branches }: ForeignRule, owner: Owner): PerMatch<Effect> {
    let all = nothing
    for (const branch of branches) all = both(all, this.#effect(branch, 0, owner, true))
    return all
  }

  #dropEffects(bits: Bits, owner: Owner): PerMatch<Effect> {
    const key = `${bits} ${owner}`
    const known = this.#drops.get(key)
    if (known) return known
    const effects = perMatch((match) => effectOfDrop(bits, match, owner))
    const shared = ACCEPT_MATCHES.every((match) => effects[match] === undefined) ? nothing : effects
    this.#drops.set(key, shared)
    return shared
  }

  #effect(branch: ForeignBranch, outer: Bits, owner: Owner, isEntered: boolean): PerMatch<Effect> {
    const { verdict } = branch
    const own = this.#bits(branch)
    if (own === undefined) return nothing
    const bits = outer | own
    switch (verdict.kind) {
      case 'accept':
      case 'return':
        return nothing
      case 'queue':
        return perMatch((match) => (bits & MISSES[match] ? undefined : 'barrier'))
      case 'drop':
        return this.#dropEffects(bits, owner)
      case 'jump':
      case 'goto': {
        const { chain } = verdict
        if (this.#side.adminChains.includes(chain)) return perMatch(() => 'barrier')
        if (isPolicyChain(chain))
          return perMatch((match) => (match === 'pair' && proxyChain.test(chain) ? undefined : 'barrier'))
        // Its rules are steps of their own.
        if (isEntered && (bits & SOMETIMES) === 0 && this.#mayEnter(chain)) return nothing
        return this.#calledEffects(chain, bits)
      }
    }
  }

  /** Whether a new connection may be accepted in a chain, or return from it or from one that it calls. */
  #mayLeave(name: string): boolean {
    const known = this.#leaving.get(name)
    if (known !== undefined) return known
    this.#leaving.set(name, false)
    const leaves = ({ conditions, verdict }: ForeignBranch): boolean =>
      !conditions.some((condition) => condition.kind === 'other' && condition.isFirst === false) &&
      ('chain' in verdict ? this.#mayLeave(verdict.chain) : verdict.kind !== 'drop')
    const found =
      this.#table.chains.get(name)?.rules.some(({ ours, branches }) => !ours && branches.some(leaves)) ?? true
    this.#leaving.set(name, found)
    return found
  }

  /** All that a chain does with packets that come to it under conditions; each chain once for each combination. */
  #calledEffects(name: string, outer: Bits): PerMatch<Effect> {
    const key = `${outer} ${name}`
    const known = this.#called.get(key)
    if (known) return known
    let all: PerMatch<Effect> = nothing
    // The kernel rejects loops; output read during a change may still show one.
    this.#called.set(key, all)
    const owner = this.#ownerOf(name)
    for (const { branches, ours } of this.#table.chains.get(name)?.rules ?? []) {
      if (ours !== undefined) continue
      for (const branch of branches) all = both(all, this.#effect(branch, outer, owner, false))
    }
    // Packets that may leave it are not certain to meet what drops everything.
    if (this.#mayLeave(name)) all = perMatch((match) => (all[match] === 'closed' ? 'barrier' : all[match]))
    this.#called.set(key, all)
    return all
  }
}

/** How deep the kernel lets chains call each other (NFT_JUMP_STACK_SIZE). */
const DEEPEST = 16

const nothing: PerMatch<Effect> = perMatch(() => undefined)

const never: PerMatch<boolean> = perMatch(() => false)

const both = (a: PerMatch<Effect>, b: PerMatch<Effect>): PerMatch<Effect> =>
  a === nothing || a === b ? b : b === nothing ? a : perMatch((match) => together(a[match], b[match]))

/** And those of which no packet has returned. */
const withAll = (some: PerMatch<boolean>, { isLeft }: Frame): PerMatch<boolean> =>
  perMatch((match) => some[match] || !isLeft[match])

const isForAll = ({ conditions }: ForeignBranch): boolean => conditions.every(({ kind }) => kind === 'family')

/** Whether packets may go elsewhere from here. */
const calls = ({ branches }: ForeignRule): boolean =>
  branches.some(({ verdict: { kind } }) => kind === 'jump' || kind === 'goto' || kind === 'return')

/** The chains that call each chain, once for each call. */
function callersIn(table: ForeignTable): ReadonlyMap<string, readonly string[]> {
  const callers = new Map<string, string[]>()
  for (const { name, rules, isCalledElsewhere } of table.chains.values()) {
    if (isCalledElsewhere) callers.set(name, [...(callers.get(name) ?? []), ''])
    for (const { branches } of rules) {
      for (const { verdict } of branches) {
        if (verdict.kind !== 'jump' && verdict.kind !== 'goto') continue
        const known = callers.get(verdict.chain)
        if (known === undefined) callers.set(verdict.chain, [name])
        else known.push(name)
      }
    }
  }
  return callers
}
