// Whether a base chain of another program is certain to drop the first packet of every connection between this host's
// pods and those of other nodes, with Weft's accepts in their places. What can't be known is taken for not dropped.
import { contains, overlaps, type Prefix } from '../../ipam/address.ts'
import { type ForeignBranch, type ForeignCondition, type ForeignTable, isPolicyChain } from './foreign-chain.ts'
import type { Insert } from './foreign-course.ts'
import { mayBeSame } from './foreign-match.ts'
import type { Place } from './foreign-walk.ts'

/** A packet from pod network to pod network, by its devices; one may be given as `veth*`. */
export type PodPacket = { readonly in: string; readonly out: string; readonly pods: Prefix }

/** What a chain may do with the packet; all that may happen is listed. `dropped`: where that is certain, if it is. */
type Fate = { readonly passes: boolean; readonly dropped: Place | undefined; readonly returns: boolean }

type Open = { passes: boolean; dropped: Place | undefined; returns: boolean }

const unknown: Fate = { passes: true, dropped: undefined, returns: true }

/** The rule or policy that drops the packet, whatever is not known of it; `undefined`: it may pass. */
export function certainDrop(
  table: ForeignTable,
  base: string,
  inserts: readonly Insert[],
  packet: PodPacket
): Place | undefined {
  const { passes, dropped, returns } = new Fates(table, inserts, packet).of(base)
  const chain = table.chains.get(base)
  const isEnd = returns && chain?.policy !== 'drop'
  return passes || isEnd ? undefined : (dropped ?? { chain: base, index: chain?.rules.length ?? 0 })
}

class Fates {
  readonly #table: ForeignTable
  readonly #packet: PodPacket
  readonly #known = new Map<string, Fate>()
  /** Weft's rules, each in its best place; any of them is for packets between pods, too. */
  readonly #inserts = new Map<string, 'accept' | 'return'>()

  constructor(table: ForeignTable, inserts: readonly Insert[], packet: PodPacket) {
    this.#table = table
    this.#packet = packet
    for (const { verdict = 'accept', places } of inserts) {
      const best = places.at(-1)
      const key = best && `${best.index} ${best.chain}`
      if (key !== undefined && this.#inserts.get(key) !== 'accept') this.#inserts.set(key, verdict)
    }
  }

  of(name: string): Fate {
    const known = this.#known.get(name)
    if (known) return known
    // The kernel rejects loops; output read during a change may still show one.
    this.#known.set(name, unknown)
    const fate = isPolicyChain(name) ? unknown : this.#through(name)
    this.#known.set(name, fate)
    return fate
  }

  #through(name: string): Fate {
    const chain = this.#table.chains.get(name)
    if (chain === undefined) return unknown
    const open: Open = { passes: false, dropped: undefined, returns: false }
    for (const [index, rule] of chain.rules.entries()) {
      if (this.#isInserted(name, index, open)) return open
      if (rule.ours !== undefined) continue
      if (!rule.branches.every((branch) => this.#goesOn(branch, { chain: name, index }, open))) return open
    }
    if (!this.#isInserted(name, chain.rules.length, open)) open.returns = true
    return open
  }

  #isInserted(chain: string, index: number, open: Open): boolean {
    const verdict = this.#inserts.get(`${index} ${chain}`)
    if (verdict === 'accept') open.passes = true
    if (verdict === 'return') open.returns = true
    return verdict !== undefined
  }

  /** Adds what the branch may do; returns whether the packet may get further. */
  #goesOn({ conditions, verdict }: ForeignBranch, place: Place, open: Open): boolean {
    const matches = this.#matches(conditions)
    if (matches === false) return true
    const isSure = matches === true
    switch (verdict.kind) {
      case 'accept':
        open.passes = true
        return !isSure
      case 'return':
        open.returns = true
        return !isSure
      case 'queue':
      case 'drop':
        if (verdict.kind === 'queue' && verdict.isUnheard !== true) open.passes = true
        else open.dropped = isSure ? place : (open.dropped ?? place)
        return !isSure
      case 'jump':
      case 'goto': {
        const called = this.of(verdict.chain)
        open.passes ||= called.passes
        open.dropped = (isSure && !called.returns ? called.dropped : undefined) ?? open.dropped ?? called.dropped
        if (verdict.kind === 'goto') open.returns ||= called.returns
        return !isSure || (verdict.kind === 'jump' && called.returns)
      }
    }
  }

  /** Whether all conditions are true; `undefined`: that is not known. */
  #matches(conditions: readonly ForeignCondition[]): boolean | undefined {
    const each = conditions.map((condition) => this.#isTrue(condition))
    return each.includes(false) ? false : each.includes(undefined) ? undefined : true
  }

  #isTrue(condition: ForeignCondition): boolean | undefined {
    const { pods } = this.#packet
    switch (condition.kind) {
      case 'family':
        return condition.family === pods.ip.family
      case 'new':
        return true
      case 'broken':
        return undefined
      case 'other':
        return condition.isFirst
      case 'deliberate':
        return condition.set?.holds?.some((held) => contains(held, pods)) ? !condition.set.negated : undefined
      case 'address': {
        if (condition.side === undefined) return undefined
        if (condition.prefixes.some((prefix) => contains(prefix, pods))) return !condition.negated
        return condition.prefixes.some((prefix) => overlaps(prefix, pods)) ? undefined : condition.negated
      }
      case 'interface': {
        const device = this.#packet[condition.side]
        if (condition.names.some((name) => isAll(name, device))) return !condition.negated
        return condition.names.some((name) => mayBeSame(name, device)) ? undefined : condition.negated
      }
    }
  }
}

/** Whether every device that is called `device` is one that `name` means. */
const isAll = (name: string, device: string): boolean =>
  name === device || name === '*' || (name.endsWith('*') && device.startsWith(name.slice(0, -1)))
