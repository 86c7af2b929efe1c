// Keeps an accept for pods in each chain of another program that would drop their packets, behind what an administrator
// drops on purpose; reports drops that cut pods off and stay.
import { setTimeout as pause } from 'node:timers/promises'
import { type Family, type PerFamily, type Prefix, perFamily } from '../../ipam/address.ts'
import type { Log } from '../base/log.ts'
import { adminCalls } from '../firewall/admin-calls.ts'
import { dropCure, dropReasons, foreignAccepts, foreignDrops, unansweredReasons } from '../firewall/foreign-accepts.ts'
import { adminChainOf, purposeOf } from '../firewall/subnet-chain.ts'
import { isSegment, tunnelSenders } from '../firewall/tunnel-guard.ts'
import type { Health } from '../health/health.ts'
import type { Reconciler } from '../reconcile/reconciler.ts'
import type { ForeignView, PodSide } from '../state/foreign-chain.ts'
import { failureIn } from '../state/kernel.ts'
import { type KernelObject, keyOf } from '../state/object.ts'
import { mattersToPodSide, podSide } from './pod-side.ts'

export type ForeignDeps = {
  readonly reconciler: Pick<Reconciler, 'want' | 'desired' | 'observed' | 'onObserved'>
  readonly health: Health
  readonly log: Log
  /** What the kernel's side judges accepts by. */
  readonly judgeBy: (side: PodSide) => void
  /** The administrator's chain where the firewall plugin names none; only called where it exists. */
  readonly adminChain: string
  /** The device of plain routes that may be taken once proven. */
  readonly plainDevice: () => string | undefined
  /** --iptables-forward-rules. Without it only administrators' chains are called. */
  readonly accepts: boolean
}

/** Milliseconds in which changes of devices and routes share one judgement. */
const GATHER_MS = 20
/**
 * With thousands of routes a judgement looks at all of them: the next is so many times as far away as the last took,
 * up to MOST_MS.
 */
const REST_FACTOR = 20
const MOST_MS = 500

export class ForeignFirewall {
  #cluster: PerFamily<Prefix>
  readonly #deps: ForeignDeps
  readonly #first = Promise.withResolvers<void>()
  #view: ForeignView | undefined
  /** The networks and devices for which accepts in this view are in place. */
  #updatedFor = ''
  #networks: readonly PerFamily<Prefix>[] = []
  #sideText = ''
  #plainDrop: string | undefined
  /** Counts updates. */
  #turn = 0
  /** The senders that the kernel has, and those that were wanted last. */
  #guarded = ''
  #guarding = ''
  #trouble = ''
  #reasons = ''
  #isDue = false
  /** Milliseconds that the last judgement took. */
  #took = 0

  constructor(cluster: PerFamily<Prefix>, deps: ForeignDeps) {
    this.#cluster = cluster
    this.#deps = deps
    deps.reconciler.onObserved((changed) => this.#onObserved(changed))
  }

  /** Resolves when the accepts for the first view are in place. */
  get ready(): Promise<void> {
    return this.#first.promise
  }

  /**
   * The rule that would drop packets of pods if they came by a plain route, whether or not there is one now, as a
   * sentence. That does not depend on whether the route is taken: otherwise leaving it would end the reason for it.
   */
  get plainDrop(): string | undefined {
    return this.#plainDrop
  }

  /** The pod network has changed. */
  async useNetworks(cluster: PerFamily<Prefix>): Promise<void> {
    this.#cluster = cluster
    await this.update()
  }

  /** Updates the accepts for each view, until the iterable ends. */
  async follow(views: AsyncIterable<ForeignView>): Promise<void> {
    for await (const view of views) {
      this.#view = view
      this.#updatedFor = ''
      await this.update()
      this.#logTrouble(view)
      this.#reportPartly(view)
      this.#first.resolve()
    }
  }

  /** Puts accepts in place for the cluster's networks, and for those that the firewall plugin accepts by now. */
  async update(): Promise<void> {
    const view = this.#view
    if (view === undefined) return
    const pluginNetworks = this.#pluginNetworks()
    const networks = [this.#cluster, ...pluginNetworks]
    this.#networks = networks
    const side = this.#side(networks)
    await this.#guardTunnel(side)
    const plainDevice = this.#deps.plainDevice()
    const text = textOf([networks, side, plainDevice])
    if (text === this.#updatedFor) return
    this.#updatedFor = text
    const drops = this.#deps.accepts ? networks.flatMap((each) => foreignDrops(view.tables, each, side)) : []
    const chains = side.adminChains.map((name) => ({ name, isMade: name !== this.#deps.adminChain }))
    const families = new Set<Family>(pluginNetworks.flatMap((each) => perFamily(each).map(([family]) => family)))
    const calls = pluginNetworks.length === 0 ? [] : adminCalls(view.tables, chains, families)
    const turn = ++this.#turn
    const outcomes = await this.#deps.reconciler.want('foreign drops', [...calls, ...foreignAccepts(drops)])
    // Updates overlap: what an earlier one found is out of date.
    if (turn !== this.#turn) return
    this.#report(dropReasons(drops))
    const failed = failureIn(outcomes)?.change.object.because
    const open = [...unansweredReasons(drops), ...(failed === undefined ? [] : [failed])]
    this.#plainDrop = failed ?? this.#dropOf(plainDevice, view, side)
    if (open.length === 0) this.#deps.health.clear('FORWARD_DROPPED')
    else this.#deps.health.raise('FORWARD_DROPPED', open.join('; '), dropCure(drops))
  }

  /** What would drop packets of pods that come and leave by this device. */
  #dropOf(device: string | undefined, { tables }: ForeignView, side: PodSide): string | undefined {
    if (device === undefined) return undefined
    const drops = foreignDrops(tables, this.#cluster, { ...side, carriers: [device], remote: [device] })
    return (this.#deps.accepts ? unansweredReasons(drops) : dropReasons(drops))[0]
  }

  /** Bridges, and other devices of pods, come and go. */
  async #guardTunnel({ local = [] }: PodSide): Promise<void> {
    const senders = tunnelSenders(this.#deps.reconciler.desired.values(), local)
    const text = senders.map(keyOf).join()
    if (text === this.#guarded) return
    this.#guarded = ''
    this.#guarding = text
    const outcomes = await this.#deps.reconciler.want('tunnel senders', senders)
    // Updates overlap: an earlier one may end after a later one.
    if (failureIn(outcomes) === undefined && this.#guarding === text) this.#guarded = text
  }

  #side(networks: readonly PerFamily<Prefix>[]): PodSide {
    const { observed, desired } = this.#deps.reconciler
    const adminChains = new Set([this.#deps.adminChain, ...adminChainsIn(desired.values())])
    const side = {
      ...podSide([...observed.values(), ...desired.values()], networks),
      adminChains: [...adminChains].sort()
    }
    const text = textOf(side)
    if (text !== this.#sideText) {
      this.#sideText = text
      this.#deps.judgeBy(side)
    }
    return side
  }

  #onObserved(changed: readonly KernelObject[] | 'everything'): void {
    if (this.#isDue || this.#view === undefined) return
    const matters = (object: KernelObject): boolean => mattersToPodSide(object, this.#networks) || isSegment(object)
    if (changed !== 'everything' && !changed.some(matters)) return
    this.#isDue = true
    void this.#updateSoon()
  }

  async #updateSoon(): Promise<void> {
    await pause(Math.max(GATHER_MS, Math.min(this.#took * REST_FACTOR, MOST_MS)), undefined, { ref: false })
    this.#isDue = false
    const begun = performance.now()
    try {
      await this.update()
    } catch (error) {
      this.#deps.log.error({ err: error }, "accepts in other programs' firewalls could not be updated")
    }
    this.#took = performance.now() - begun
  }

  #pluginNetworks(): readonly PerFamily<Prefix>[] {
    return [...this.#deps.reconciler.desired.values()].flatMap((object) => {
      const found = object.kind === 'nft-chain' ? purposeOf(object.chain) : undefined
      return found?.purpose === 'forward' ? [{ [found.subnet.ip.family]: found.subnet }] : []
    })
  }

  #report(reasons: readonly string[]): void {
    const now = reasons.join('; ')
    if (now !== '' && now !== this.#reasons)
      this.#deps.log.info(
        { reasons },
        'another program drops forwarded packets: pods get an accept where that is allowed'
      )
    this.#reasons = now
  }

  #reportPartly({ partly = [] }: ForeignView): void {
    if (partly.length === 0) this.#deps.health.clear('FIREWALL_TOO_LONG')
    else this.#deps.health.raise('FIREWALL_TOO_LONG', `not read rule by rule: ${partly.join(', ')}`)
  }

  #logTrouble({ trouble }: ForeignView): void {
    const now = trouble?.message ?? ''
    if (now !== '' && now !== this.#trouble)
      this.#deps.log.warn({ err: trouble }, "can't read some firewall rules of other programs")
    this.#trouble = now
  }
}

const adminChainsIn = (objects: Iterable<KernelObject>): readonly string[] =>
  [...objects].flatMap((object) => (object.kind === 'nft-chain' ? (adminChainOf(object) ?? []) : []))

const textOf = (value: unknown): string =>
  JSON.stringify(value, (_, each) => (typeof each === 'bigint' ? `${each}` : each))
