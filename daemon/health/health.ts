// Registry of active conditions: raised and cleared by the daemon's parts, read by CNI errors, /readyz, logs, events and metrics.
import { type Blocks, CONDITIONS, type Condition, type ConditionCode } from './conditions.ts'

const becauseOf = (condition: Condition, { title, detail, cure }: Condition): Condition => ({
  ...condition,
  detail: `${condition.detail}; ${title}: ${detail}`,
  cure
})

/** The active conditions. STARTING is active from the start, so that no pod is served before this node is set up. */
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

  /** Calls the listener for each active condition now, and for every change later. */
  listen(listener: (condition: Condition, active: boolean) => void): void {
    this.#listeners.push(listener)
    for (const condition of this.#active.values()) listener(condition, true)
  }

  /** Raises a condition or updates its detail; listeners are called only on a change. `cure` replaces the table's where the cause has a more specific one. */
  raise(code: ConditionCode, detail: string, cure: string = CONDITIONS[code].cure): void {
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

  /** Codes of all active conditions, also of those that `active()` leaves out. */
  get codes(): Iterable<ConditionCode> {
    return this.#active.keys()
  }

  /** Errors before warnings, then the oldest first. STARTING is left out if an error explains why pods are not served yet. */
  active(): readonly Condition[] {
    const rank = { error: 0, warning: 1 } as const
    const sorted = [...this.#active.values()].sort((a, b) => rank[a.severity] - rank[b.severity] || a.since - b.since)
    const isExplained = sorted.some(
      ({ code, severity, blocks }) => code !== 'STARTING' && severity === 'error' && blocks.length > 0
    )
    return sorted.filter(({ code }) => code !== 'STARTING' || !isExplained)
  }

  /**
   * All that block `what`, in the order of `active()`. At start no pod can be served without the store: its condition, which later blocks nothing, is added to
   * the detail of STARTING.
   */
  blockers(what: Blocks): readonly Condition[] {
    const active = this.active()
    const cause = active.find(({ code }) => code === 'STORE_UNREACHABLE' || code === 'STORE_DENIED')
    return active
      .filter(({ blocks }) => blocks.includes(what))
      .map((condition) => (condition.code === 'STARTING' && cause ? becauseOf(condition, cause) : condition))
  }

  /** The first of `blockers`. */
  blocking(what: Blocks): Condition | undefined {
    return this.blockers(what)[0]
  }
}
