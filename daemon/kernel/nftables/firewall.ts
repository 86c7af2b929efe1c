// Implements the firewall port (port.ts): reads Weft's tables and other programs' chains, and publishes other programs'
// changes; change-queue.ts applies Weft's.
import { AsyncQueue } from '../../base/async-queue.ts'
import { reasonOf, toError } from '../../base/error.ts'
import type { Change } from '../../state/difference.ts'
import { type ForeignTable, type ForeignView, NO_SIDE, type PodSide } from '../../state/foreign-chain.ts'
import { type ForeignFacts, withFacts } from '../../state/foreign-facts.ts'
import type { Outcome, Sender } from '../../state/kernel.ts'
import { type IptablesTool, type KernelObject, type Key, keyOf, sameObject } from '../../state/object.ts'
import { NFT_TABLE } from '../../state/ownership.ts'
import { Lane } from '../netlink/lane.ts'
import { NETLINK_NETFILTER } from '../netlink/nfnetlink.ts'
import { RequestSocket } from '../netlink/request-socket.ts'
import { ChangeQueue, isForeign, isIptablesChain } from './change-queue.ts'
import { FactsReader, factsText } from './facts-reader.ts'
import { ForeignReader } from './foreign-reader.ts'
import { followIptables } from './iptables-in-use.ts'
import { LegacyIptables } from './iptables-legacy.ts'
import { OwnIptables } from './iptables-own.ts'
import { listenToNftables, type Notified } from './notification.ts'
import { otherChains, removeOtherChains } from './other-chains.ts'
import type { FirewallChange, FirewallPort } from './port.ts'
import { acceptsIn, familiesOfOwn, readOwn } from './read-tables.ts'
import { NftSession } from './session.ts'

export type FirewallSettings = {
  /** Seconds between two looks at iptables-legacy, which has no notifications (--iptables-resync). */
  readonly iptablesResyncSeconds: number
}

type Interest = (object: KernelObject) => boolean
/** What must be read again, besides what the reader of other programs' chains has marked itself. */
type Dirty = {
  own: boolean
  legacy: boolean
  /** Weft's own chains in iptables. */
  iptables: boolean
  /** Whether other programs' rules are to be judged by another PodSide. */
  side: boolean
  /** Why notifications were lost, so that only a new `read` shows what changed. */
  lost: string | undefined
  by: Sender | undefined
  at: number
}

/** Milliseconds in which further notifications share one read: iptables commands come in bursts. */
const BURST_MS = 2
/** Reads for lost notifications take at most one part in so many of the time. */
const LOST_SHARE = 20
/** After a failure. */
const RETRY_MS = 1_000
/** Between looks at Weft's chains in iptables-legacy. */
const OWN_POLL_MS = 700

export class Firewall implements FirewallPort {
  readonly #nft: NftSession
  readonly #socket: RequestSocket
  readonly #legacy = new LegacyIptables()
  readonly #iptables = new OwnIptables()
  #iptablesTrouble: Error | undefined
  #ownPoll: NodeJS.Timeout | undefined
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
  readonly #foreign = new ForeignReader()
  readonly #facts = new FactsReader()
  readonly #queue: ChangeQueue
  /** What was read for the last view. */
  #viewed = ''
  #side: PodSide = NO_SIDE
  #legacyView: ForeignView | undefined
  /**
   * Milliseconds that the last complete read took, and performance.now() from which notifications may be lost again.
   */
  #readTook = 0
  #nextLost = 0
  #retryAt = 0
  #timer: { readonly handle: NodeJS.Timeout; readonly due: number } | undefined
  #dirty: Dirty = clean()

  /** Errors: NFTABLES_MISSING when libnftables is not installed. */
  constructor(settings: FirewallSettings) {
    this.#nft = new NftSession()
    this.#socket = new RequestSocket(new Lane(), NETLINK_NETFILTER)
    this.#notifications = listenToNftables(
      (port) => port === this.#socket.port || port === this.#nft.port,
      (notified) => this.#onNotified(notified)
    )
    this.#queue = new ChangeQueue({
      ...{ nft: this.#nft, socket: this.#socket, legacy: this.#legacy, foreign: this.#foreign },
      iptables: this.#iptables,
      side: () => this.#side,
      onDone: (change) => this.#remember(change),
      // Chains with our accepts changed, without a notification.
      onApplied: () => this.#schedule()
    })
    this.#poll = setInterval(() => this.#markDirty({ legacy: true }), settings.iptablesResyncSeconds * 1000)
    this.#poll.unref()
  }

  /** See FirewallPort. Errors: KERNEL_REFUSED when nf_tables can't be read at all. */
  async read(interest: Interest): Promise<readonly KernelObject[]> {
    this.#interest = interest
    const start = performance.now()
    const legacy = this.#readLegacy()
    const chains = this.#readIptables('all')
    this.#foreign.touchBases()
    const objects = await this.#nft.exclusive(async (run) => {
      const own = await readOwn(run, this.#socket, this.#interest)
      return [
        ...own,
        ...(await chains),
        ...acceptsIn([...(await this.#foreign.read()), ...(await legacy).tables], this.#side)
      ]
    })
    const wanted = objects.filter(interest)
    this.#lastRead = new Map(wanted.map((object) => [keyOf(object), object]))
    this.#readTook = performance.now() - start
    return wanted
  }

  /** See FirewallPort. Calls that arrive while a transaction runs share the next one. */
  apply(changes: readonly Change[]): Promise<readonly Outcome[]> {
    return this.#queue.apply(changes)
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
    this.#viewed = ''
    this.#markDirty({ legacy: true })
    return queue
  }

  /**
   * The iptables that this host uses, and again whenever that changes, until the signal. For who has chains there: from
   * this call on changes in iptables-legacy are looked for several times in each five seconds.
   */
  iptables(signal: AbortSignal): AsyncIterable<IptablesTool> {
    this.#ownPoll ??= setInterval(() => this.#markDirty({ iptables: true }), OWN_POLL_MS).unref()
    return followIptables(this.#iptables, signal)
  }

  /** What was asked of the kernel about other programs' chains so far. */
  get asked(): ForeignReader['asked'] {
    return this.#foreign.asked
  }

  /** From now on other programs' rules are judged by this. */
  judgeBy(side: PodSide): void {
    this.#side = side
    this.#foreign.alsoRead(side.adminChains)
    this.#markDirty({ side: true })
  }

  /** See FirewallPort. */
  async removeTables(): Promise<readonly string[]> {
    try {
      return await this.#nft.exclusive(async (run) => {
        const families = await familiesOfOwn(this.#socket)
        if (families.length === 0) return []
        const result = await run(families.map((family) => `delete table ${family} ${NFT_TABLE}`).join('; '))
        return result.done ? [] : result.complaints.map(({ words }) => words)
      })
    } catch (error) {
      return [reasonOf(error)]
    }
  }

  /** See FirewallPort. */
  removeOtherChains(names: readonly string[]): Promise<void> {
    const wanted = { isTable: () => false, isChain: (name: string) => names.includes(name) }
    return this.#nft.exclusive(async (run) => removeOtherChains(run, await otherChains(run, wanted)))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#poll)
    clearInterval(this.#ownPoll)
    clearTimeout(this.#timer?.handle)
    this.#notifications[Symbol.dispose]()
    for (const queue of [...this.#changes, ...this.#views]) queue.close()
    this.#nft[Symbol.dispose]()
    this.#socket[Symbol.dispose]()
    this.#foreign[Symbol.dispose]()
    this.#facts[Symbol.dispose]()
    this.#legacy[Symbol.dispose]()
    this.#iptables[Symbol.dispose]()
  }

  #remember({ do: verb, object }: Change): void {
    if (verb === 'remove') this.#lastRead.delete(keyOf(object))
    else this.#lastRead.set(keyOf(object), object)
  }

  async #readLegacy(): Promise<ForeignView> {
    try {
      const tables = await this.#legacy.read()
      this.#legacyView = { tables, partly: this.#legacy.partly }
    } catch (error) {
      this.#legacyView = { tables: [], trouble: toError(error) }
    }
    return this.#legacyView
  }

  /** What can't be read now is what it was: other objects do not depend on it. */
  async #readIptables(what: 'all' | 'due'): Promise<readonly KernelObject[]> {
    try {
      const chains = await this.#iptables.read(what)
      this.#iptablesTrouble = undefined
      return chains
    } catch (error) {
      this.#iptablesTrouble = toError(error)
      return [...this.#lastRead.values()].filter(isIptablesChain)
    }
  }

  #onNotified(notified: Notified): void {
    const at = performance.now()
    if (notified.kind === 'lost') {
      this.#foreign.touchAll()
      this.#iptables.touchAll()
      this.#markDirty({ lost: notified.why, at })
      return
    }
    const { tables, by } = notified.touched
    const own = [...tables].some((table) => table.endsWith(` ${NFT_TABLE}`))
    const foreign = this.#foreign.touch(notified.touched)
    const iptables = this.#iptables.touch(notified.touched)
    if (own || foreign || iptables) this.#markDirty({ own, by, at })
  }

  #markDirty({ own = false, legacy = false, iptables = false, side = false, lost, by, at }: Partial<Dirty>): void {
    const dirty = this.#dirty
    this.#dirty = {
      own: dirty.own || own,
      legacy: dirty.legacy || legacy,
      iptables: dirty.iptables || iptables,
      side: dirty.side || side,
      lost: dirty.lost ?? lost,
      by: dirty.by ?? by,
      at: Math.min(dirty.at, at ?? performance.now())
    }
    this.#schedule()
  }

  /** Sets the timer for what may be read first. */
  #schedule(): void {
    if (this.#changes.size === 0 && this.#views.size === 0) return
    const now = performance.now()
    const waits: number[] = []
    const { own, legacy, iptables, side } = this.#dirty
    if (own || legacy || iptables || side) waits.push(0)
    if (this.#dirty.lost !== undefined) waits.push(this.#nextLost - now)
    for (const due of [this.#foreign.due(now), this.#iptables.due(now)])
      if (due !== undefined) waits.push(Math.max(due, this.#retryAt - now))
    if (waits.length === 0) return
    const due = now + Math.max(BURST_MS, Math.min(...waits))
    if (this.#timer !== undefined && this.#timer.due <= due) return
    clearTimeout(this.#timer?.handle)
    this.#timer = { due, handle: setTimeout(() => void this.#reread(), due - now) }
  }

  /** Reads what notifications said had changed, and publishes the differences. */
  async #reread(): Promise<void> {
    this.#timer = undefined
    const dirty = this.#dirty
    const lost = dirty.lost !== undefined && performance.now() >= this.#nextLost ? dirty.lost : undefined
    this.#dirty = { ...clean(), lost: lost === undefined ? dirty.lost : undefined }
    try {
      if (lost !== undefined) {
        this.#nextLost = performance.now() + this.#readTook * LOST_SHARE
        this.#publish({ kind: 'reread', why: lost, at: dirty.at })
      }
      if (dirty.own) {
        const own = await this.#nft.exclusive((run) => readOwn(run, this.#socket, this.#interest))
        this.#compare(own, (object) => !isForeign(object) && !isIptablesChain(object), dirty)
      }
      if (dirty.iptables || this.#iptables.due() === 0)
        this.#compare(await this.#readIptables('due'), isIptablesChain, dirty)
      const legacy = (dirty.legacy ? undefined : this.#legacyView) ?? (await this.#readLegacy())
      const read = async () => [...(await this.#foreign.read('due')), ...legacy.tables]
      const tables = await read()
      const { version } = this.#foreign
      const facts = await this.#facts.read(tables, this.#side.networks ?? [])
      // Without the accepts that Weft has put there meanwhile they would look removed by another program.
      this.#judge(version === this.#foreign.version ? tables : await read(), legacy, facts, dirty)
    } catch (error) {
      this.#retryAt = performance.now() + RETRY_MS
      const why = `the firewall could not be read after a change: ${reasonOf(error)}`
      this.#publish({ kind: 'reread', why, at: dirty.at })
    }
    this.#schedule()
  }

  /** Publishes what changed of our rules in other programs' tables, and a view if something of those was read. */
  #judge(tables: readonly ForeignTable[], legacy: ForeignView, facts: ForeignFacts, dirty: Dirty): void {
    const trouble = legacy.trouble ?? this.#iptablesTrouble
    const read = `${this.#foreign.version} ${this.#legacy.version} ${trouble?.message} ${factsText(facts)}`
    const isNew = read !== this.#viewed
    this.#viewed = read
    if (isNew || dirty.side) this.#compare(acceptsIn(tables, this.#side), isForeign, dirty)
    if (!isNew) return
    const partly = [...this.#foreign.partly, ...(legacy.partly ?? [])]
    for (const queue of this.#views)
      queue.push({ ...(trouble && { trouble }), tables: withFacts(tables, facts), partly })
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
}

function subscribe<T>(queues: Set<AsyncQueue<T>>, signal: AbortSignal): AsyncQueue<T> {
  const queue = new AsyncQueue<T>(signal, () => queues.delete(queue))
  queues.add(queue)
  return queue
}

const clean = (): Dirty => ({
  own: false,
  legacy: false,
  iptables: false,
  side: false,
  lost: undefined,
  by: undefined,
  at: Number.POSITIVE_INFINITY
})
