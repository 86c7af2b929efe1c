// One observer of the kernel: a dump, then notifications, and a dump again whenever those can't be trusted.
import { setTimeout as pause, setImmediate as turn } from 'node:timers/promises'
import { reasonOf } from '../base/error.ts'
import type { Log } from '../base/log.ts'
import type { Observation, Sender } from '../state/kernel.ts'
import { type KernelObject, type Key, keyOf, sameObject } from '../state/object.ts'
import { Cache } from './cache.ts'
import { coalesce } from './coalesce.ts'
import { dumpLinks, dumpObjects } from './dump.ts'
import type { Message } from './netlink/message.ts'
import { NotificationSocket } from './netlink/notifications.ts'
import type { RequestSocket } from './netlink/requests.ts'
import type { FirewallChange, FirewallPort } from './nftables/port.ts'
import type { Senders } from './sender.ts'
import { readSysctl } from './sysctl.ts'

/** Notifications that nobody has fetched; beyond this a dump is cheaper than the rest. */
const QUEUE_LIMIT = 100_000
/** Notifications read in one turn of the event loop: some 5 ms. */
const READ_TOGETHER = 250
/** Reasons for a dump that come together share it. */
const GATHER_MS = 5
/** After a dump the next one waits this many times as long as it took: a flapping link must not keep us dumping. */
const REST_FACTOR = 4
const RETRY_MS = 1_000

export type ObserverParts = {
  readonly socket: RequestSocket
  readonly firewall: FirewallPort
  readonly culprits: Senders
  readonly log: Log
  readonly sysctls: () => readonly string[]
  readonly receiveBytes?: number | undefined
}

/** `message` is absent for news of the firewall. */
type Heard = { readonly message?: Message; readonly hear: () => void }

export class Observer implements Disposable {
  readonly #parts: ObserverParts
  readonly #interest: (object: KernelObject) => boolean
  readonly #observed: Cache
  readonly #notifications: NotificationSocket
  readonly #queue: Observation[] = []
  #wake: (() => void) | undefined
  /** Notifications that came and are not heard yet; during a dump they wait for its end. */
  readonly #inbox: Heard[] = []
  /** A consumer may leave without its signal. */
  readonly #ended = new AbortController()
  #reading = false
  #dumping = false
  #dumpWanted: string | undefined = 'start'
  #wantedAt = 0

  constructor(
    parts: ObserverParts,
    interest: (object: KernelObject) => boolean,
    held?: (key: Key) => KernelObject | undefined
  ) {
    this.#parts = parts
    this.#interest = interest
    this.#observed = new Cache(interest, held)
    this.#notifications = new NotificationSocket(
      { message: (message) => this.#arrived(message), lost: (why) => this.wantDump(why) },
      { receiveBytes: parts.receiveBytes }
    )
    parts.culprits.own.add(this.#notifications.port)
  }

  /** What is observed, until the signal. A dump that fails is logged and tried again. */
  async *observations(signal: AbortSignal): AsyncGenerator<Observation, void, undefined> {
    const wakeUp = () => this.#wake?.()
    signal.addEventListener('abort', wakeUp)
    void this.#listenToFirewall(AbortSignal.any([signal, this.#ended.signal]))
    let restUntil = 0
    try {
      while (!signal.aborted) {
        // Not yield*: of an array it costs several promises more for each.
        for (const observation of this.#queue.splice(0)) yield observation
        if (this.#queue.length > 0 || signal.aborted) continue
        const wait = this.#dumpWanted === undefined ? undefined : this.#dumpDue(restUntil) - performance.now()
        // Changes are told while a dump has to wait.
        if (wait === undefined || wait > 0) await this.#woken(wait)
        else {
          const start = performance.now()
          yield* await this.#dump()
          restUntil = performance.now() + (performance.now() - start) * REST_FACTOR
        }
      }
    } finally {
      signal.removeEventListener('abort', wakeUp)
    }
  }

  #dumpDue(restUntil: number): number {
    return this.#dumpWanted === 'start' ? 0 : Math.max(this.#wantedAt + GATHER_MS, restUntil)
  }

  async #woken(afterMs: number | undefined): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#wake = resolve
    const timer = afterMs === undefined ? undefined : setTimeout(resolve, afterMs)
    await promise
    clearTimeout(timer)
  }

  #push(observation: Observation): void {
    if (this.#queue.length >= QUEUE_LIMIT) {
      this.#queue.splice(0)
      this.wantDump('more changes came than were fetched')
    } else this.#queue.push(observation)
    this.#wake?.()
  }

  /** Asks for a dump; several askers share one. */
  wantDump(why: string): void {
    if (this.#dumpWanted === undefined) {
      this.#dumpWanted = why
      this.#wantedAt = performance.now()
    }
    this.#wake?.()
  }

  /**
   * Only notes who it was. A pod's start brings a dozen notifications before the answer to the request that caused them; were they read here, the answer
   * would wait for half a millisecond.
   */
  #arrived(message: Message): void {
    const at = performance.now()
    // A link's notification has port id 0, or one that names nobody.
    const by = this.#parts.culprits.of(message.port, at)
    this.#inbox.push({ message, hear: () => this.#hear(message, by, at) })
    if (!this.#dumping) this.#readSoon()
  }

  #readSoon(): void {
    if (this.#reading) return
    this.#reading = true
    setImmediate(() => {
      this.#reading = false
      if (this.#dumping) return
      this.#hearTogether(this.#inbox.splice(0, READ_TOGETHER))
      if (this.#inbox.length > 0) this.#readSoon()
    })
  }

  #hearTogether(due: readonly Heard[]): void {
    for (const { hear } of coalesce(due, (index) => this.#observed.nameOf(index) !== undefined)) hear()
  }

  #hear(message: Message, by: Sender | undefined, at: number): void {
    try {
      const news = this.#observed.hear(message)
      for (const change of news.changed) this.#push({ kind: 'changed', ...change, ...(by !== undefined && { by }), at })
      if (news.dumpBecause !== undefined) this.wantDump(news.dumpBecause)
    } catch (error) {
      this.wantDump(reasonOf(error))
    }
  }

  /** A new dump, or nothing when it failed and will be tried again. */
  async #dump(): Promise<readonly Observation[]> {
    const why = this.#dumpWanted ?? ''
    // What came before is part of the dump, but only now can be told who did it. What comes during it is heard after it, whether or not the dump shows it
    // already: the end is the same.
    this.#hearTogether(this.#inbox.splice(0).slice(0, READ_TOGETHER))
    this.#dumpWanted = undefined
    this.#dumping = true
    try {
      const links = await dumpLinks(this.#parts.socket)
      const objects = await dumpObjects(this.#parts.socket, (index) => links.get(index)?.name)
      const firewall = await this.#parts.firewall.read(this.#interest)
      const sysctls = this.#parts.sysctls().map((path) => readSysctl(path))
      this.#observed.restart(links)
      for (const [at, object] of [...objects, ...firewall, ...sysctls].entries()) {
        if (object !== undefined) this.#observed.put(object)
        if (at % READ_TOGETHER === READ_TOGETHER - 1) await turn()
      }
      await this.#catchUp()
      // What others did comes first, with their names; what we did is in the state.
      const others = this.#queue.splice(0).filter((one) => one.kind === 'changed' && one.by?.self === false)
      return [...others, { kind: 'everything', state: this.#observed.state(), why, at: performance.now() }]
    } catch (error) {
      this.#parts.log.warn({ err: error, why }, 'the kernel state could not be read; trying again')
      await pause(RETRY_MS)
      this.wantDump(why)
      return []
    } finally {
      this.#dumping = false
      this.#readSoon()
    }
  }

  /**
   * Hears what came during a dump. The kernel queues a notification before it acknowledges the change, so what was acknowledged by the time at which nothing
   * is left is either in the dump or heard: a dump may be old when it ends, what it comes to is not.
   */
  async #catchUp(): Promise<void> {
    for (;;) {
      this.#notifications.readNow()
      const due = this.#inbox.splice(0, READ_TOGETHER)
      if (due.length === 0) return
      this.#hearTogether(due)
      await turn()
    }
  }

  async #listenToFirewall(signal: AbortSignal): Promise<void> {
    try {
      for await (const change of this.#parts.firewall.changes(signal)) {
        if (this.#dumping) this.#inbox.push({ hear: () => void this.#hearFirewall(change) })
        else await this.#hearFirewall(change)
      }
    } catch (error) {
      this.#parts.log.error({ err: error }, 'firewall changes are no longer watched')
    }
  }

  async #hearFirewall(change: FirewallChange): Promise<void> {
    if (change.kind === 'reread') return this.#rereadFirewall(change)
    const { key, object } = change
    const kept = object === undefined ? undefined : this.#observed.put(object)
    if (kept !== undefined) this.#push(change)
    // What we made since the last dump is not known here, for our own transactions are not told: it is missed all the same when it goes.
    else if (this.#observed.drop(key) || object === undefined) this.#push({ ...change, object: undefined })
  }

  /** Only what differs from before is told. */
  async #rereadFirewall(change: Extract<FirewallChange, { kind: 'reread' }>): Promise<void> {
    const { by, at } = change
    const tell = (key: Key, object: KernelObject | undefined) =>
      this.#push({ kind: 'changed', key, object, ...(by !== undefined && { by }), at })
    try {
      const now = new Map((await this.#parts.firewall.read(this.#interest)).map((object) => [keyOf(object), object]))
      for (const [key, object] of this.#observed.state()) {
        if (isFirewall(object) && !now.has(key) && this.#observed.drop(key)) tell(key, undefined)
      }
      for (const [key, object] of now) {
        const before = this.#observed.get(key)
        const same = before !== undefined && sameObject(before, object) && sameObject(object, before)
        if (this.#observed.put(object) !== undefined && !same) tell(key, object)
      }
    } catch (error) {
      this.wantDump(`${change.why}: ${reasonOf(error)}`)
    }
  }

  [Symbol.dispose](): void {
    this.#ended.abort()
    this.#parts.culprits.own.delete(this.#notifications.port)
    this.#notifications[Symbol.dispose]()
  }
}

const isFirewall = (object: KernelObject): boolean =>
  object.kind === 'nft-chain' || object.kind === 'nft-set' || object.kind === 'nft-element' || object.kind === 'accept'
