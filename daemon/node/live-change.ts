// Takes a change of the network configuration while pods run, or refuses it; logs the plan, and ends the earlier
// configurations.
import type { Registry } from '../backend/registry.ts'
import { WeftError } from '../base/error.ts'
import { liesWithin } from '../lease/acquire.ts'
import type { Lease } from '../lease/lease.ts'
import type { Peers } from '../peers/peers.ts'
import type { Feature } from '../state/feature.ts'
import type { Configuration } from './configuration.ts'
import { type Configured, configured, type Earlier, type InUse, inUseWith } from './configured.ts'
import type { Remembered } from './lease-file.ts'
import type { Place } from './place.ts'
import { aloneIn, isAnother, planChange } from './plan-change.ts'
import { Transition, type TransitionDeps } from './transition.ts'

export type LiveChangeDeps = Pick<TransitionDeps, 'health' | 'log'> & {
  readonly configuration: Configuration
  readonly store: { readonly configurationPlace: string }
  readonly peers: Peers
  /** What the kernel lacks for a backend. */
  readonly missing?: (features: readonly Feature[]) => Promise<readonly WeftError[]>
  readonly pods?: () => number
  readonly changeLookMs?: number
  /** There is something to do. */
  readonly changed: () => void
}

/** Milliseconds between two looks at the leases of nodes that have not changed yet. */
const LOOK = 10_000

export class LiveChange implements Disposable {
  readonly #deps: LiveChangeDeps
  readonly #transition: Transition
  #left: readonly Earlier[] | undefined

  constructor(deps: LiveChangeDeps) {
    this.#deps = deps
    this.#transition = new Transition({
      ...{ health: deps.health, log: deps.log, now: Date.now, everyMs: deps.changeLookMs ?? LOOK },
      others: () => this.#others(),
      place: () => deps.store.configurationPlace,
      kept: (earlier) => {
        this.#left = earlier
        deps.changed()
      }
    })
  }

  #others(): readonly Lease[] {
    const { peers } = this.#deps
    return [...peers.leases].flatMap(([key, lease]) => (peers.isOwn(key, lease) ? [] : [lease]))
  }

  use(place: Place): void {
    this.#transition.use(place)
  }

  /** What is left of the earlier configurations of this place; `undefined`: all. */
  left({ earlier }: InUse): readonly Earlier[] | undefined {
    const left = this.#left
    this.#left = undefined
    // A change since has brought other ones, or ended some.
    if (left === undefined) return undefined
    const kept = earlier.filter((each) => left.some(({ text }) => text === each.text))
    return kept.length < earlier.length ? kept : undefined
  }

  /** What follows this place by the configuration in the store; `undefined`: nothing, or what is refused. */
  async next(place: Place, isUnsure: boolean): Promise<InUse | undefined> {
    const { configuration, peers, missing, pods } = this.#deps
    const { pending } = configuration
    if (pending === undefined) return undefined
    const lacks = (await missing?.(pending.backend.features)) ?? []
    if (lacks.length > 0) {
      configuration.refuse({ reasons: lacks.map(({ message }) => message), by: 'restart' })
      return undefined
    }
    const others = this.#others()
    if (pending.backend.asksRoutes) await peers.learnRoutes(others)
    const decision = planChange(place, pending, {
      ...{ node: place.node, lease: place.lease, isUnsure, others, pods: pods?.() ?? 0, now: Date.now() },
      routesOf: ({ publicIp }) => peers.routes.of(publicIp)
    })
    if (configuration.pending !== pending) return undefined
    if (decision.kind === 'refused') {
      configuration.refuse(decision)
      return undefined
    }
    this.#logPlan(decision)
    return decision.inUse
  }

  #logPlan({ changes, steps }: { readonly changes: readonly string[]; readonly steps: readonly string[] }): void {
    const { log } = this.#deps
    log.info({ changes }, 'the network configuration has changed and is taken without a restart')
    for (const [index, step] of steps.entries()) log.info({ step: `${index + 1} of ${steps.length}` }, `plan: ${step}`)
  }

  /**
   * What other nodes may still use of the configurations that an earlier weftd knew, other than `read`. `check` throws
   * for what this host can't use.
   */
  atStart(
    { text, lease, earlier = [] }: Remembered,
    read: Configured,
    backends: Pick<Registry, 'configure'>,
    check: (inUse: InUse) => void
  ): readonly Earlier[] {
    if (!liesWithin(lease.subnet, read.conf)) return []
    const known = [...(read.backend.serves(lease) ? [] : [{ text, since: Date.now() }]), ...earlier]
    return known.flatMap(({ text: each, since }): Earlier[] => {
      try {
        const found = { ...configured(each, 'the remembered configuration', backends), since }
        if (!isAnother(found, read) || aloneIn(found, read) !== undefined) return []
        check(inUseWith(read, [found]))
        return [found]
      } catch (error) {
        if (!(error instanceof WeftError)) throw error
        return []
      }
    })
  }

  [Symbol.dispose](): void {
    this.#transition[Symbol.dispose]()
  }
}
