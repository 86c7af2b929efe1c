// Doubts a list of the store that suddenly lacks most leases, in case the store lost its data: keeps what is missing for
// a while, and lets the reconciler remove stale objects only once the list is believed.
import type { Log } from '../base/log.ts'
import type { Health } from '../health/health.ts'
import type { Reconciler } from '../reconcile/reconciler.ts'
import { staleRoutes } from './conflict-rules.ts'
import type { LocalView } from './peer-objects.ts'

export type ListDoubtDeps = {
  readonly reconciler: Pick<Reconciler, 'trusts' | 'trust' | 'differences'>
  readonly health: Pick<Health, 'raise' | 'clear'>
  readonly log: Pick<Log, 'error'>
  /** Milliseconds for which most leases must be missing before that is believed. */
  readonly doubtMs: number
  /** How many leases other nodes hold; counted only when needed, since that takes milliseconds among thousands. */
  readonly others: () => number
  /** Removes these leases, which are still missing after `doubtMs`; there may be none. */
  readonly confirmed: (keys: readonly string[]) => Promise<void>
}

/** How leases went missing: an event for each, or a list that lacks them, and perhaps ours. */
export type Withdrawal = 'events' | 'a list' | 'a list without us'

/** Fewer missing leases than this are believed at once, unless no other node is left. */
const FEW = 4

export class ListDoubt {
  readonly #deps: ListDoubtDeps
  /** Leases that the last list did not have and that are kept for now. */
  readonly #doubted = new Set<string>()
  #confirmation: NodeJS.Timeout | undefined
  /** The kernel's stale routes have been kept for long enough. */
  #confirmed = false

  constructor(deps: ListDoubtDeps) {
    this.#deps = deps
  }

  /**
   * Which of the other nodes' leases that are no longer in the store are kept for a while: most leases at once, the
   * last one that a list does not have, and all when the list does not have ours either. The event of a single lease is
   * believed.
   */
  kept(missing: readonly string[], by: Withdrawal): ReadonlySet<string> {
    const isByEvents = by === 'events'
    // The event of a single lease must not wait for a count.
    const isWorthACount = missing.length >= (isByEvents ? FEW : 1)
    const others = isWorthACount ? this.#deps.others() - missing.length : 0
    const isMost = missing.length >= FEW && missing.length > others
    const isDoubtful = isWorthACount && (isMost || by === 'a list without us' || (!isByEvents && others === 0))
    const kept = new Set(missing.filter((key) => isDoubtful || (!isByEvents && this.#doubted.has(key))))
    if ([...kept].every((key) => this.#doubted.has(key))) return kept
    for (const key of kept) this.#doubted.add(key)
    this.#doubt(`${kept.size} leases that the store no longer lists are kept (it lists ${others} others)`)
    return kept
  }

  /** The lease is in the store again, or removed. */
  forget(key: string): void {
    this.#doubted.delete(key)
  }

  /** Stops waiting: the store is no longer followed. */
  end(): void {
    clearTimeout(this.#confirmation)
  }

  #doubt(detail: string): void {
    const { health, log, doubtMs, confirmed } = this.#deps
    health.raise('LIST_DOUBTED', `${detail}, for ${doubtMs / 1000} s`)
    clearTimeout(this.#confirmation)
    this.#confirmation = setTimeout(() => {
      const keys = [...this.#doubted]
      this.#doubted.clear()
      this.#confirmed = true
      this.#believe()
      confirmed(keys).catch((error) => log.error({ err: error }, 'removing leases that are still missing failed'))
    }, doubtMs)
    this.#confirmation.unref()
  }

  #believe(): void {
    clearTimeout(this.#confirmation)
    this.#confirmation = undefined
    this.#deps.health.clear('LIST_DOUBTED')
  }

  /**
   * After a list: allows stale objects in the kernel to be removed, unless they are most of those present. So even the
   * first list is doubted. Without our own place and a list (`view` is undefined), nothing in the kernel can be called
   * stale.
   */
  async trustIfPlausible(view: LocalView | undefined): Promise<void> {
    if (this.#doubted.size > 0) return
    const { reconciler, others } = this.#deps
    if (view !== undefined && !reconciler.trusts && !this.#confirmed && !this.#kernelAgrees(view)) {
      if (this.#confirmation === undefined)
        this.#doubt(`the kernel still has routes to nodes that the store does not list (it lists ${others()} others)`)
      return
    }
    this.#believe()
    if (view !== undefined) await reconciler.trust()
  }

  #kernelAgrees(view: LocalView): boolean {
    const stale = staleRoutes(this.#deps.reconciler.differences(), view)
    const others = this.#deps.others()
    return stale === 0 || (others > 0 && (stale < FEW || stale <= others))
  }
}
