// Registry of active conditions: raised and cleared by the daemon's parts, read by CNI errors, /readyz, logs, events
// and metrics.
import { printable } from '../base/printable.ts'
import { type Blocks, CONDITIONS, type Condition, type ConditionCode } from './conditions.ts'

const becauseOf = (condition: Condition, { title, detail, cure }: Condition): Condition => ({
  ...condition,
  detail: `${condition.detail}; ${title}: ${detail}`,
  cure
})

/** The active conditions. Starts with STARTING, so that nothing is served before it is cleared. */
export class Health {
  readonly #active = new Map<ConditionCode, Condition>()
  readonly #now: () => number
  readonly #changed: (condition: Condition, active: boolean) => void
  readonly #listeners: ((condition: Condition, active: boolean) => void)[] = []

  constructor(now: () => number, changed: (condition: Condition, active: boolean) => void) {
    this.#now = now
    this.#changed = (condition, active) => {
      changed(condition, active)
      for (const listener of this.#listeners) listener(condition, active)
    }
    this.raise('STARTING', 'nothing has been set up yet')
  }

  /** Adds a listener for changes; it is called at once with the conditions that are active already. */
  listen(listener: (condition: Condition, active: boolean) => void): void {
    this.#listeners.push(listener)
    for (const condition of this.#active.values()) listener(condition, true)
  }

  /**
   * Raises a condition or updates its detail; listeners are called only on a change. `cure` replaces the table's where
   * the cause has a more specific one.
   */
  raise(code: ConditionCode, what: string, action: string = CONDITIONS[code].cure): void {
    const [detail, cure] = [printable(what), printable(action)]
    const before = this.#active.get(code)
    if (before?.detail === detail && before.cure === cure) return
    const condition: Condition = { ...CONDITIONS[code], code, detail, cure, since: before?.since ?? this.#now() }
    this.#active.set(code, condition)
    this.#changed(condition, true)
  }

  clear(code: ConditionCode): void {
    const before = this.#active.get(code)
    if (before !== undefined && this.#active.delete(code)) this.#changed(before, false)
  }

  has(code: ConditionCode): boolean {
    return this.#active.has(code)
  }

  /** Codes of all active conditions, including a STARTING that `active` leaves out. */
  get codes(): Iterable<ConditionCode> {
    return this.#active.keys()
  }

  /** Errors before warnings before notices, older first. STARTING is left out if an error says why nothing is served yet. */
  active(): readonly Condition[] {
    const rank = { error: 0, warning: 1, notice: 2 } as const
    const sorted = [...this.#active.values()].sort((a, b) => rank[a.severity] - rank[b.severity] || a.since - b.since)
    const isExplained = sorted.some(
      ({ code, severity, blocks }) => code !== 'STARTING' && severity === 'error' && blocks.length > 0
    )
    return sorted.filter(({ code }) => code !== 'STARTING' || !isExplained)
  }

  /**
   * All conditions that block `what`, in the order of `active()`. At start nothing can be served without the store, so
   * its trouble, which blocks nothing later, is part of the sentence of STARTING.
   */
  blockers(what: Blocks): readonly Condition[] {
    const active = this.active()
    const cause = active.find(({ code }) => code.startsWith('STORE_'))
    return active
      .filter(({ blocks }) => blocks.includes(what))
      .map((condition) => (condition.code === 'STARTING' && cause ? becauseOf(condition, cause) : condition))
  }

  /** The first of them. */
  blocking(what: Blocks): Condition | undefined {
    return this.blockers(what)[0]
  }
}
