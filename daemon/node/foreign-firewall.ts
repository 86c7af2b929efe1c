// Keeps an accept for pods in each chain of another program that would drop their packets, and reports whose chain it
// is.
import type { PerFamily, Prefix } from '../../ipam/address.ts'
import type { Log } from '../base/log.ts'
import { dropCure, dropReasons, foreignAccepts, foreignDrops } from '../firewall/foreign-accepts.ts'
import { purposeOf } from '../firewall/subnet-chain.ts'
import type { Health } from '../health/health.ts'
import type { Reconciler } from '../reconcile/reconciler.ts'
import type { ForeignView } from '../state/foreign-chain.ts'

export type ForeignDeps = {
  readonly reconciler: Pick<Reconciler, 'want' | 'desired'>
  readonly health: Health
  readonly log: Log
}

export class ForeignFirewall {
  readonly #cluster: PerFamily<Prefix>
  readonly #deps: ForeignDeps
  readonly #first = Promise.withResolvers<void>()
  #view: ForeignView | undefined
  /** The networks for which accepts in this view are in place. */
  #updatedFor = ''
  #trouble = ''

  constructor(cluster: PerFamily<Prefix>, deps: ForeignDeps) {
    this.#cluster = cluster
    this.#deps = deps
  }

  /** Resolves when the accepts for the first view are in place. */
  get ready(): Promise<void> {
    return this.#first.promise
  }

  /** Updates the accepts for each view, until the iterable ends. */
  async follow(views: AsyncIterable<ForeignView>): Promise<void> {
    for await (const view of views) {
      this.#view = view
      this.#updatedFor = ''
      await this.update()
      this.#logTrouble(view)
      this.#first.resolve()
    }
  }

  /** Puts accepts in place for the cluster's networks, and for those that the firewall plugin accepts by now. */
  async update(): Promise<void> {
    const view = this.#view
    if (view === undefined) return
    const networks = [this.#cluster, ...this.#pluginNetworks()]
    const text = networks
      .map((each) => JSON.stringify(each, (_, value) => (typeof value === 'bigint' ? `${value}` : value)))
      .join()
    if (text === this.#updatedFor) return
    this.#updatedFor = text
    const drops = networks.flatMap((each) => foreignDrops(view.tables, each))
    await this.#deps.reconciler.want('foreign drops', foreignAccepts(drops))
    if (drops.length === 0) this.#deps.health.clear('FORWARD_DROPPED')
    else this.#deps.health.raise('FORWARD_DROPPED', dropReasons(drops).join('; '), dropCure(drops))
  }

  #pluginNetworks(): readonly PerFamily<Prefix>[] {
    return [...this.#deps.reconciler.desired.values()].flatMap((object) => {
      const found = object.kind === 'nft-chain' ? purposeOf(object.chain) : undefined
      return found?.purpose === 'forward' ? [{ [found.subnet.ip.family]: found.subnet }] : []
    })
  }

  #logTrouble({ trouble }: ForeignView): void {
    const now = trouble?.message ?? ''
    if (now !== '' && now !== this.#trouble)
      this.#deps.log.warn({ err: trouble }, "can't read some firewall rules of other programs")
    this.#trouble = now
  }
}
