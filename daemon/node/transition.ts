// Ends a change of the network configuration: finds out when no node uses the earlier one any more, and reports those
// that still do.
import type { Log } from '../base/log.ts'
import type { Report } from '../health/report.ts'
import type { Lease } from '../lease/lease.ts'
import type { Earlier, InUse } from './configured.ts'
import { nodesText, stillNeeded } from './plan-change.ts'

export type TransitionDeps = {
  readonly health: Report
  readonly log: Log
  readonly others: () => readonly Lease[]
  /** Where the configuration is, for the cure. */
  readonly place: () => string
  /** Milliseconds since 1970. */
  readonly now: () => number
  /**
   * Milliseconds between two looks. What no node needs at two of them ends: nodes that have changed may not know yet
   * that this one has.
   */
  readonly everyMs: number
  /** Only these are needed from now on. */
  readonly kept: (earlier: readonly Earlier[]) => void
}

/** Milliseconds after which a change ends although nodes still use the earlier configuration: the life of a lease. */
const LONGEST = 24 * 3_600_000

export class Transition implements Disposable {
  readonly #deps: TransitionDeps
  #inUse: InUse | undefined
  #unneeded: ReadonlySet<string> = new Set()
  #timer: NodeJS.Timeout | undefined

  constructor(deps: TransitionDeps) {
    this.#deps = deps
  }

  use(inUse: InUse): void {
    this.#inUse = inUse
    if (inUse.earlier.length === 0) this[Symbol.dispose]()
    else this.#timer ??= setInterval(() => this.#look(), this.#deps.everyMs).unref()
  }

  #look(): void {
    const inUse = this.#inUse
    if (inUse === undefined) return
    const { health, log, now, others, place, kept } = this.#deps
    const needed = stillNeeded(inUse, others())
    const overdue = inUse.earlier.filter(({ since }) => now() - since > LONGEST)
    for (const each of overdue)
      log.warn({ nodes: nodesText(needed.get(each) ?? []) }, 'an earlier network configuration ends after a day')
    const unneeded = inUse.earlier.filter((each) => !needed.has(each))
    const ended = new Set([...overdue, ...unneeded.filter(({ text }) => this.#unneeded.has(text))])
    this.#unneeded = new Set(unneeded.map(({ text }) => text))
    const late = [...needed].filter(([each]) => !ended.has(each)).flatMap(([, leases]) => leases)
    if (late.length === 0) health.clear('CONFIG_MIXED')
    else {
      const cure = `nodes of weftd change once they read ${place()}; restart flanneld where it runs, and delete the leases of nodes that are gone`
      health.raise('CONFIG_MIXED', `${nodesText(late)}: reached as before`, cure)
    }
    if (ended.size > 0) kept(inUse.earlier.filter((each) => !ended.has(each)))
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer)
    this.#timer = undefined
    this.#unneeded = new Set()
    this.#deps.health.clear('CONFIG_MIXED')
  }
}
