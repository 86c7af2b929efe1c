// Whether a base chain of another program is certain to drop the first packet of every connection between this host's
// pods and those of other nodes, with Weft's accepts in their places. What can't be known is taken for not dropped.
import { contains, overlaps, type Prefix } from '../../ipam/address.ts'
import { type ForeignBranch, type ForeignCondition, type ForeignTable, isPolicyChain } from './foreign-chain.ts'
import type { Insert } from './foreign-course.ts'
import { mayBeSame } from './foreign-match.ts'
import type { Place } from './foreign-walk.ts'

/** A packet from pod network to pod network, by its devices; one may be given as `veth*`. */
export type PodPacket = { readonly in: string; readonly out: string }

/** What a chain may do with the packet; all that may happen is listed. `dropped`: where that is certain, if it is. */
type Result = { readonly passes: boolean; readonly dropped: Place | undefined; readonly returns: boolean }

type Open = { passes: boolean; dropped: Place | undefined; returns: boolean }

const unknown: Result = { passes: true, dropped: undefined, returns: true }

/** A place in a chain that may decide about a packet from pod network to pod network. */
type Stop = { readonly index: number; readonly branches: readonly ForeignBranch[]; readonly insert?: Verdict }
type Verdict = 'accept' | 'return'

/** What happens to packets between pods in one base chain; `inserts` are Weft's accepts there. */
export class Verdicts {
  readonly #table: ForeignTable
  readonly #base: string
  readonly #pods: Prefix
  /** Weft's rules, each in its best place; any of them is for packets between pods, too. */
  readonly #inserts = new Map<string, Map<number, Verdict>>()
  /** By chain: what does not depend on devices is found out once. */
  readonly #stops = new Map<string, readonly Stop[]>()

  constructor(table: ForeignTable, base: string, inserts: readonly Insert[], pods: Prefix) {
    this.#table = table
    this.#base = base
    this.#pods = pods
    for (const { verdict = 'accept', places } of inserts) {
      const best = places.at(-1)
      if (best === undefined) continue
      const inChain = this.#inserts.get(best.chain) ?? new Map<number, Verdict>()
      if (inChain.get(best.index) !== 'accept') inChain.set(best.index, verdict)
      this.#inserts.set(best.chain, inChain)
    }
  }

  /** The rule or policy that drops the packet, whatever is not known of it; `undefined`: it may pass. */
  certainDrop(packet: PodPacket): Place | undefined {
    const { passes, dropped, returns } = this.#of(this.#base, packet, new Map())
    const chain = this.#table.chains.get(this.#base)
    if (passes || (returns && chain?.policy !== 'drop')) return undefined
    return dropped ?? { chain: this.#base, index: chain?.rules.length ?? 0 }
  }

  #of(name: string, packet: PodPacket, found: Map<string, Result>): Result {
    const known = found.get(name)
    if (known) return known
    // The kernel rejects loops; output read during a change may still show one.
    found.set(name, unknown)
    const result = isPolicyChain(name) || !this.#table.chains.has(name) ? unknown : this.#through(name, packet, found)
    found.set(name, result)
    return result
  }

  #through(name: string, packet: PodPacket, found: Map<string, Result>): Result {
    const open: Open = { passes: false, dropped: undefined, returns: false }
    for (const { index, branches, insert } of this.#stopsIn(name)) {
      if (insert === 'accept') open.passes = true
      if (insert === 'return') open.returns = true
      if (insert !== undefined) return open
      const place = { chain: name, index }
      if (!branches.every((branch) => this.#goesOn(branch, place, packet, { open, found }))) return open
    }
    open.returns = true
    return open
  }

  /** The rules and Weft's inserts that may decide, in their order. */
  #stopsIn(name: string): readonly Stop[] {
    const known = this.#stops.get(name)
    if (known) return known
    const rules = this.#table.chains.get(name)?.rules ?? []
    const inserts = this.#inserts.get(name)
    const stops = rules.flatMap(({ ours, branches }, index): readonly Stop[] => {
      const insert = inserts?.get(index)
      if (insert !== undefined) return [{ index, branches: [], insert }]
      const left = ours === undefined ? branches.filter((branch) => this.#mayMatter(branch)) : []
      return left.length === 0 ? [] : [{ index, branches: left }]
    })
    const last = inserts?.get(rules.length)
    const all = last === undefined ? stops : [...stops, { index: rules.length, branches: [], insert: last }]
    this.#stops.set(name, all)
    return all
  }

  /** Not what never applies, nor a drop that is not certain whatever the devices are. */
  #mayMatter({ conditions, verdict }: ForeignBranch): boolean {
    let isKnown = true
    for (const condition of conditions) {
      if (condition.kind === 'interface') continue
      const is = this.#isTrue(condition)
      if (is === false) return false
      isKnown &&= is !== undefined
    }
    return isKnown || verdict.kind !== 'drop'
  }

  /** Adds what the branch may do; returns whether the packet may get further. */
  #goesOn(
    { conditions, verdict }: ForeignBranch,
    place: Place,
    packet: PodPacket,
    { open, found }: { readonly open: Open; readonly found: Map<string, Result> }
  ): boolean {
    const matches = this.#matches(conditions, packet)
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
        if (verdict.kind === 'queue' && verdict.hasNoListener !== true) open.passes = true
        else open.dropped = isSure ? place : (open.dropped ?? place)
        return !isSure
      case 'jump':
      case 'goto': {
        const called = this.#of(verdict.chain, packet, found)
        open.passes ||= called.passes
        open.dropped = (isSure && !called.returns ? called.dropped : undefined) ?? open.dropped ?? called.dropped
        if (verdict.kind === 'goto') open.returns ||= called.returns
        return !isSure || (verdict.kind === 'jump' && called.returns)
      }
    }
  }

  /** Whether all conditions are true; `undefined`: that is not known. */
  #matches(conditions: readonly ForeignCondition[], packet: PodPacket): boolean | undefined {
    let all: boolean | undefined = true
    for (const condition of conditions) {
      const is = condition.kind === 'interface' ? isBy(condition, packet[condition.side]) : this.#isTrue(condition)
      if (is === false) return false
      if (is === undefined) all = undefined
    }
    return all
  }

  #isTrue(condition: Exclude<ForeignCondition, Interface>): boolean | undefined {
    const pods = this.#pods
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
    }
  }
}

type Interface = Extract<ForeignCondition, { readonly kind: 'interface' }>

function isBy({ names, negated }: Interface, device: string): boolean | undefined {
  if (names.some((name) => isAll(name, device))) return !negated
  return names.some((name) => mayBeSame(name, device)) ? undefined : negated
}

/** Whether every device that is called `device` is one that `name` means. */
const isAll = (name: string, device: string): boolean =>
  name === device || name === '*' || (name.endsWith('*') && device.startsWith(name.slice(0, -1)))
