// Implements the firewall port (port.ts): reads Weft's tables and other programs' chains, applies changes in
// transactions, publishes other programs' changes.
import { AsyncQueue } from '../../base/async-queue.ts'
import { reasonOf } from '../../base/error.ts'
import type { Change } from '../../state/difference.ts'
import type { ForeignTable, ForeignView, PodSide } from '../../state/foreign-chain.ts'
import type { Outcome, Sender } from '../../state/kernel.ts'
import {
  type AdminCall,
  type ForeignAccept,
  type KernelObject,
  type Key,
  keyOf,
  sameObject
} from '../../state/object.ts'
import { NFT_TABLE } from '../../state/ownership.ts'
import { Lane } from '../netlink/lane.ts'
import { NETLINK_NETFILTER } from '../netlink/nfnetlink.ts'
import { RequestSocket } from '../netlink/request-socket.ts'
import { commandsFor, type Step } from './command.ts'
import { elementBatch } from './elements.ts'
import { LegacyIptables } from './iptables-legacy.ts'
import { listenToNftables, type Notified } from './notification.ts'
import type { FirewallChange, FirewallPort } from './port.ts'
import { acceptsIn, familiesOfOwn, readForeign, readOwn } from './read-tables.ts'
import { NftSession, type RunNft } from './session.ts'
import { applySteps, type Failures } from './transaction.ts'

export type FirewallSettings = {
  /** Seconds between two reads of iptables-legacy, which has no notifications (--iptables-resync). */
  readonly iptablesResyncSeconds: number
}

type Waiting = { readonly changes: readonly Change[]; readonly resolve: (outcomes: readonly Outcome[]) => void }
type Interest = (object: KernelObject) => boolean
type Dirty = { own: boolean; foreign: boolean; by: Sender | undefined; at: number }

/** Milliseconds in which further notifications share one read: iptables commands come in bursts. */
const BURST_MS = 2
/** Tables where an administrator's chain may appear that nothing calls yet. */
const ADMIN_TABLES: ReadonlySet<string> = new Set(['ip filter', 'ip6 filter'])

export class Firewall implements FirewallPort {
  readonly #nft: NftSession
  /** For elements. nf_tables transactions wait for each other, but not for the rtnl lock. */
  readonly #socket: RequestSocket
  readonly #legacy = new LegacyIptables()
  readonly #notifications: Disposable
  readonly #poll: NodeJS.Timeout
  readonly #changes = new Set<AsyncQueue<FirewallChange>>()
  readonly #views = new Set<AsyncQueue<ForeignView>>()
  #interest: Interest = (object) => isForeign(object) || ('table' in object && object.table === NFT_TABLE)
  /**
   * The kernel's state at our last read or write, to find out what another program changed. No change is made or
   * skipped because of it.
   */
  #lastRead = new Map<Key, KernelObject>()
  #foreignText = ''
  #side: PodSide = { devices: [], adminChains: [] }
  #forwardTables: ReadonlySet<string> = new Set()
  #waiting: Waiting[] = []
  #applying = false
  #dirty: Dirty | undefined

  /** Errors: NFTABLES_MISSING when libnftables is not installed. */
  constructor(settings: FirewallSettings) {
    this.#nft = new NftSession()
    this.#socket = new RequestSocket(new Lane(), NETLINK_NETFILTER)
    this.#notifications = listenToNftables(
      (port) => port === this.#socket.port || port === this.#nft.port,
      (notified) => this.#onNotified(notified)
    )
    this.#poll = setInterval(() => this.#markDirty({ foreign: true }), settings.iptablesResyncSeconds * 1000)
    this.#poll.unref()
  }

  /** See FirewallPort. Errors: KERNEL_REFUSED when nf_tables can't be read at all. */
  async read(interest: Interest): Promise<readonly KernelObject[]> {
    this.#interest = interest
    const legacy = this.#readLegacy()
    const objects = await this.#nft.exclusive(async (run) => {
      const own = await readOwn(run, this.#interest)
      const foreign = await this.#readForeign(run)
      return [...own, ...acceptsIn([...foreign, ...(await legacy).tables], this.#side)]
    })
    const wanted = objects.filter(interest)
    this.#lastRead = new Map(wanted.map((object) => [keyOf(object), object]))
    return wanted
  }

  /** See FirewallPort. Calls that arrive while a transaction runs share the next one. */
  apply(changes: readonly Change[]): Promise<readonly Outcome[]> {
    const { promise, resolve } = Promise.withResolvers<readonly Outcome[]>()
    this.#waiting.push({ changes, resolve })
    if (!this.#applying) {
      this.#applying = true
      queueMicrotask(() => void this.#applyWaiting())
    }
    return promise
  }

  changes(signal: AbortSignal): AsyncIterable<FirewallChange> {
    return subscribe(this.#changes, signal)
  }

  /**
   * Other programs' tables as they are now, and again after each change, until the signal. firewall/foreign-accepts.ts
   * interprets them.
   */
  foreign(signal: AbortSignal): AsyncIterable<ForeignView> {
    const queue = subscribe(this.#views, signal)
    this.#foreignText = ''
    this.#markDirty({ foreign: true })
    return queue
  }

  /** From now on other programs' rules are judged by this. */
  judgeBy(side: PodSide): void {
    this.#side = side
    this.#markDirty({ foreign: true })
  }

  /** See FirewallPort. */
  async removeTables(): Promise<readonly string[]> {
    try {
      return await this.#nft.exclusive(async (run) => {
        const families = await familiesOfOwn(run)
        if (families.length === 0) return []
        const result = await run(families.map((family) => `delete table ${family} ${NFT_TABLE}`).join('; '))
        return result.done ? [] : result.complaints.map(({ words }) => words)
      })
    } catch (error) {
      return [reasonOf(error)]
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#poll)
    this.#notifications[Symbol.dispose]()
    for (const queue of [...this.#changes, ...this.#views]) queue.close()
    this.#nft[Symbol.dispose]()
    this.#socket[Symbol.dispose]()
  }

  async #applyWaiting(): Promise<void> {
    while (this.#waiting.length > 0) {
      const round = this.#waiting
      this.#waiting = []
      const failures = await this.#applyRound(round.flatMap(({ changes }) => changes))
      for (const { changes, resolve } of round) {
        resolve(
          changes.map((change) => {
            const error = failures.get(change)
            if (error === undefined) this.#remember(change)
            return error === undefined ? { change } : { change, error }
          })
        )
      }
    }
    this.#applying = false
  }

  async #applyRound(changes: readonly Change[]): Promise<Failures> {
    const failures: Failures = new Map()
    const legacy = changes.filter(isLegacy)
    const native = changes.filter((change) => !isLegacy(change))
    try {
      if (native.length > 0) {
        const found = await this.#nft.exclusive((run) => this.#applyNative(run, native))
        for (const [change, error] of found) failures.set(change, error)
      }
    } catch (error) {
      for (const change of native) failures.set(change, error instanceof Error ? error : new Error(String(error)))
    }
    for (const change of legacy) {
      try {
        await this.#legacy.apply(change, this.#side)
      } catch (error) {
        failures.set(change, error instanceof Error ? error : new Error(String(error)))
      }
    }
    return failures
  }

  async #applyNative(run: RunNft, changes: readonly Change[]): Promise<Failures> {
    if (await this.#applyElements(changes)) return new Map()
    const foreign = changes.some(({ object }) => isForeign(object)) ? await this.#readForeign(run) : []
    const failures: Failures = new Map()
    const steps = changes.flatMap((change): readonly Step[] => {
      try {
        return [{ change, commands: commandsFor(change, foreign, this.#side) }]
      } catch (error) {
        failures.set(change, error instanceof Error ? error : new Error(String(error)))
        return []
      }
    })
    return new Map([...failures, ...(await applySteps(run, steps))])
  }

  /**
   * `false`: not all are elements, or the kernel refused one; nothing is applied then, and libnftables finds out which
   * can be.
   */
  async #applyElements(changes: readonly Change[]): Promise<boolean> {
    const batch = elementBatch(changes)
    return batch !== undefined && (await this.#socket.transact(batch)).every((failure) => failure === undefined)
  }

  #remember({ do: verb, object }: Change): void {
    if (verb === 'remove') this.#lastRead.delete(keyOf(object))
    else this.#lastRead.set(keyOf(object), object)
  }

  async #readForeign(run: RunNft): Promise<readonly ForeignTable[]> {
    const { tables, names } = await readForeign(run, this.#side.adminChains)
    this.#forwardTables = names
    return tables
  }

  async #readLegacy(): Promise<ForeignView> {
    try {
      return { tables: await this.#legacy.read() }
    } catch (error) {
      return { tables: [], trouble: error instanceof Error ? error : new Error(String(error)) }
    }
  }

  #onNotified(notified: Notified): void {
    const at = performance.now()
    if (notified.kind === 'lost') {
      this.#publish({ kind: 'reread', why: notified.why, at })
      this.#markDirty({ own: true, foreign: true, at })
      return
    }
    const { tables, hooked, by } = notified.touched
    const own = [...tables].some((table) => table.endsWith(` ${NFT_TABLE}`))
    const foreign = hooked || [...tables].some((table) => this.#forwardTables.has(table) || ADMIN_TABLES.has(table))
    if (own || foreign) this.#markDirty({ own, foreign, by, at })
  }

  #markDirty(what: {
    readonly own?: boolean
    readonly foreign?: boolean
    readonly by?: Sender
    readonly at?: number
  }): void {
    if (this.#changes.size === 0 && this.#views.size === 0) return
    const { own = false, foreign = false, by, at = performance.now() } = what
    if (this.#dirty) {
      this.#dirty.own ||= own
      this.#dirty.foreign ||= foreign
      this.#dirty.by ??= by
      return
    }
    this.#dirty = { own, foreign, by, at }
    setTimeout(() => void this.#reread(), BURST_MS)
  }

  /** Reads what notifications said had changed, and publishes the differences. */
  async #reread(): Promise<void> {
    const dirty = this.#dirty
    this.#dirty = undefined
    if (dirty === undefined) return
    try {
      const legacy = dirty.foreign ? await this.#readLegacy() : undefined
      await this.#nft.exclusive(async (run) => {
        if (dirty.own) this.#compare(await readOwn(run, this.#interest), (object) => !isForeign(object), dirty)
        if (!legacy) return
        const tables = [...(await this.#readForeign(run)), ...legacy.tables]
        this.#compare(acceptsIn(tables, this.#side), isForeign, dirty)
        this.#publishView({ ...legacy, tables })
      })
    } catch (error) {
      this.#publish({
        kind: 'reread',
        why: `the firewall could not be read after a change: ${reasonOf(error)}`,
        at: dirty.at
      })
    }
  }

  /** Publishes the differences among the objects of one kind. */
  #compare(now: readonly KernelObject[], ofKind: Interest, { by, at }: Dirty): void {
    const state = new Map(now.filter(this.#interest).map((object) => [keyOf(object), object]))
    const gone = [...this.#lastRead].filter(([key, object]) => ofKind(object) && !state.has(key)).map(([key]) => key)
    const who = by === undefined ? {} : { by }
    for (const key of gone) {
      this.#lastRead.delete(key)
      this.#publish({ kind: 'changed', key, object: undefined, ...who, at })
    }
    for (const [key, object] of state) {
      const before = this.#lastRead.get(key)
      if (before !== undefined && sameObject(before, object)) continue
      this.#lastRead.set(key, object)
      this.#publish({ kind: 'changed', key, object, ...who, at })
    }
  }

  #publish(change: FirewallChange): void {
    for (const queue of this.#changes) queue.push(change)
  }

  #publishView(view: ForeignView): void {
    const text = JSON.stringify(view, (_, value) =>
      value instanceof Map
        ? [...value]
        : typeof value === 'bigint'
          ? String(value)
          : value instanceof Error
            ? value.message
            : value
    )
    if (text === this.#foreignText) return
    this.#foreignText = text
    for (const queue of this.#views) queue.push(view)
  }
}

function subscribe<T>(queues: Set<AsyncQueue<T>>, signal: AbortSignal): AsyncQueue<T> {
  const queue = new AsyncQueue<T>(signal, () => queues.delete(queue))
  queues.add(queue)
  return queue
}

const isForeign = (object: KernelObject): object is ForeignAccept | AdminCall =>
  object.kind === 'accept' || object.kind === 'admin-call'

const isLegacy = (change: Change): change is Change & { readonly object: ForeignAccept | AdminCall } =>
  isForeign(change.object) && change.object.tool === 'iptables-legacy'
