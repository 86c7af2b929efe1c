// The firewall behind port.ts: reads our tables and others' chains, applies changes in transactions, tells what somebody else changed.

import { AsyncQueue } from '../../base/async-queue.ts'
import { reasonOf } from '../../base/error.ts'
import type { Change } from '../../state/difference.ts'
import type { ForeignTable, ForeignView } from '../../state/foreign-chain.ts'
import type { Outcome, Sender } from '../../state/kernel.ts'
import { type ForeignAccept, type KernelObject, type Key, keyOf, sameObject } from '../../state/object.ts'
import { NFT_TABLE } from '../../state/ownership.ts'
import { Lane } from '../netlink/lane.ts'
import { NETLINK_NETFILTER } from '../netlink/nfnetlink.ts'
import { RequestSocket } from '../netlink/requests.ts'
import { commandsFor, type Step } from './command.ts'
import { elementBatch } from './elements.ts'
import { LegacyIptables } from './iptables-legacy.ts'
import { listenToNftables, type Notified } from './notification.ts'
import type { FirewallChange, FirewallPort } from './port.ts'
import { acceptsIn, familiesOfOwn, readForeign, readOwn } from './read.ts'
import { NftSession, type RunNft } from './session.ts'
import { applySteps, type Failures } from './transaction.ts'

export type FirewallSettings = {
  /** Seconds between two looks at iptables-legacy, which has no notifications (--iptables-resync). */
  readonly iptablesResyncSeconds: number
}

type Waiting = { readonly changes: readonly Change[]; readonly resolve: (outcomes: readonly Outcome[]) => void }
type Interest = (object: KernelObject) => boolean
type Dirty = { own: boolean; foreign: boolean; by: Sender | undefined; at: number }

/** Notifications that follow each other within this time are answered by one look: iptables commands come in bursts. */
const BURST_MS = 2

export class Firewall implements FirewallPort {
  readonly #nft: NftSession
  /** For what needs no library. Transactions wait for each other, but not for whoever holds the rtnl lock. */
  readonly #socket: RequestSocket
  readonly #legacy = new LegacyIptables()
  readonly #notifications: Disposable
  readonly #poll: NodeJS.Timeout
  readonly #changes = new Set<AsyncQueue<FirewallChange>>()
  readonly #views = new Set<AsyncQueue<ForeignView>>()
  #interest: Interest = (object) => object.kind === 'accept' || ('table' in object && object.table === NFT_TABLE)
  /** What the kernel held when we last looked or wrote: to tell afterwards what somebody changed. Nothing is done or left out because of it. */
  #seen = new Map<Key, KernelObject>()
  #foreignText = ''
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
      (notified) => this.#noted(notified)
    )
    this.#poll = setInterval(() => this.#mark({ foreign: true }), settings.iptablesResyncSeconds * 1000)
    this.#poll.unref()
  }

  /** See FirewallPort. Errors: KERNEL_REFUSED when nf_tables can't be read at all. */
  async read(interest: Interest): Promise<readonly KernelObject[]> {
    this.#interest = interest
    const legacy = this.#readLegacy()
    const objects = await this.#nft.exclusive(async (run) => {
      const own = await readOwn(run, this.#interest)
      const foreign = await this.#readForeign(run)
      return [...own, ...acceptsIn([...foreign, ...(await legacy).tables])]
    })
    const wanted = objects.filter(interest)
    this.#seen = new Map(wanted.map((object) => [keyOf(object), object]))
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

  /** Other programs' tables: as they are now, and again whenever they changed, until the signal. What they mean is firewall/foreign.ts's business. */
  foreign(signal: AbortSignal): AsyncIterable<ForeignView> {
    const stream = subscribe(this.#views, signal)
    this.#foreignText = ''
    this.#mark({ foreign: true })
    return stream
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
    for (const stream of [...this.#changes, ...this.#views]) stream.end()
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
        await this.#legacy.apply(change)
      } catch (error) {
        failures.set(change, error instanceof Error ? error : new Error(String(error)))
      }
    }
    return failures
  }

  async #applyNative(run: RunNft, changes: readonly Change[]): Promise<Failures> {
    if (await this.#applyElements(changes)) return new Map()
    const foreign = changes.some(({ object }) => object.kind === 'accept') ? await this.#readForeign(run) : []
    const failures: Failures = new Map()
    const steps = changes.flatMap((change): readonly Step[] => {
      try {
        return [{ change, commands: commandsFor(change, foreign) }]
      } catch (error) {
        failures.set(change, error instanceof Error ? error : new Error(String(error)))
        return []
      }
    })
    return new Map([...failures, ...(await applySteps(run, steps))])
  }

  /** `false`: not all are elements, or the kernel refused one; nothing was done then, and the library finds out what can be. */
  async #applyElements(changes: readonly Change[]): Promise<boolean> {
    const batch = elementBatch(changes)
    return batch !== undefined && (await this.#socket.transact(batch)).every((failure) => failure === undefined)
  }

  #remember({ do: verb, object }: Change): void {
    if (verb === 'remove') this.#seen.delete(keyOf(object))
    else this.#seen.set(keyOf(object), object)
  }

  async #readForeign(run: RunNft): Promise<readonly ForeignTable[]> {
    const { tables, names } = await readForeign(run)
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

  #noted(notified: Notified): void {
    const at = performance.now()
    if (notified.kind === 'lost') {
      this.#tell({ kind: 'reread', why: notified.why, at })
      this.#mark({ own: true, foreign: true, at })
      return
    }
    const { tables, hooked, by } = notified.touched
    const own = [...tables].some((table) => table.endsWith(` ${NFT_TABLE}`))
    const foreign = hooked || [...tables].some((table) => this.#forwardTables.has(table))
    if (own || foreign) this.#mark({ own, foreign, by, at })
  }

  #mark(what: {
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
    setTimeout(() => void this.#look(), BURST_MS)
  }

  /** Looks at what notifications pointed to, and tells the differences from what was there before. */
  async #look(): Promise<void> {
    const dirty = this.#dirty
    this.#dirty = undefined
    if (dirty === undefined) return
    try {
      const legacy = dirty.foreign ? await this.#readLegacy() : undefined
      await this.#nft.exclusive(async (run) => {
        if (dirty.own) this.#compare(await readOwn(run, this.#interest), (object) => object.kind !== 'accept', dirty)
        if (!legacy) return
        const tables = [...(await this.#readForeign(run)), ...legacy.tables]
        this.#compare(acceptsIn(tables), (object) => object.kind === 'accept', dirty)
        this.#show({ ...legacy, tables })
      })
    } catch (error) {
      this.#tell({
        kind: 'reread',
        why: `the firewall could not be read after a change: ${reasonOf(error)}`,
        at: dirty.at
      })
    }
  }

  /** Tells what is different among the objects of one kind. */
  #compare(now: readonly KernelObject[], ofKind: Interest, { by, at }: Dirty): void {
    const state = new Map(now.filter(this.#interest).map((object) => [keyOf(object), object]))
    const gone = [...this.#seen].filter(([key, object]) => ofKind(object) && !state.has(key)).map(([key]) => key)
    const who = by === undefined ? {} : { by }
    for (const key of gone) {
      this.#seen.delete(key)
      this.#tell({ kind: 'changed', key, object: undefined, ...who, at })
    }
    for (const [key, object] of state) {
      const before = this.#seen.get(key)
      if (before !== undefined && sameObject(before, object)) continue
      this.#seen.set(key, object)
      this.#tell({ kind: 'changed', key, object, ...who, at })
    }
  }

  #tell(change: FirewallChange): void {
    for (const stream of this.#changes) stream.push(change)
  }

  #show(view: ForeignView): void {
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
    for (const stream of this.#views) stream.push(view)
  }
}

function subscribe<T>(streams: Set<AsyncQueue<T>>, signal: AbortSignal): AsyncQueue<T> {
  const stream = new AsyncQueue<T>(signal, () => streams.delete(stream))
  if (!signal.aborted) streams.add(stream)
  return stream
}

const isLegacy = (change: Change): change is Change & { readonly object: ForeignAccept } =>
  change.object.kind === 'accept' && change.object.tool === 'iptables-legacy'
