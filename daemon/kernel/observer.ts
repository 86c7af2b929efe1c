// Observes one network namespace: a dump, then notifications, and another dump whenever notifications may have been
// lost.
import { setImmediate as turn } from 'node:timers/promises'
import { Backoff } from '../base/backoff.ts'
import { reasonOf } from '../base/error.ts'
import type { Log } from '../base/log.ts'
import { Wakeup } from '../base/wakeup.ts'
import type { Observation, RoutingChange, Sender } from '../state/kernel.ts'
import { type FouPort, type KernelObject, type Key, keyOf, type Link, sameObject } from '../state/object.ts'
import { Cache } from './cache.ts'
import { coalesce } from './coalesce.ts'
import { dumpLinks, dumpObjects } from './dump.ts'
import { linkIdentity, routingChange } from './netlink/decode.ts'
import type { Message } from './netlink/message.ts'
import { NotificationSocket } from './netlink/notification-socket.ts'
import type { RequestSocket } from './netlink/request-socket.ts'
import { RTM } from './netlink/uapi.ts'
import type { FirewallChange, FirewallPort } from './nftables/port.ts'
import type { Senders } from './notification-sender.ts'
import { readOffload } from './offload.ts'
import { readSysctl } from './sysctl.ts'
import type { Wireguard } from './wireguard.ts'

/** Observations that the consumer has not fetched; beyond this a dump is cheaper. */
const QUEUE_LIMIT = 100_000
/** Notifications processed in one turn of the event loop: some 5 ms. */
const BATCH = 250
/** Milliseconds in which further reasons for a dump share it. */
const GATHER_MS = 5
/**
 * The next dump waits this many times as long as the last one took: a flapping link must not cause one dump after the
 * other.
 */
const REST_FACTOR = 4
/** Milliseconds before a dump that failed is repeated, or up to half as much again. */
const RETRY_MS = 1_000

export type ObserverParts = {
  readonly socket: RequestSocket
  readonly wireguard: Pick<Wireguard, 'read'>
  readonly firewall: FirewallPort
  readonly senders: Senders
  readonly log: Log
  readonly sysctls: () => readonly string[]
  readonly offloads: () => readonly string[]
  readonly tunnel: () => readonly KernelObject[]
  readonly fouPorts: () => Promise<readonly FouPort[]>
  /** Called when other programs changed routes or policy rules, or may have. */
  readonly routing: (change: RoutingChange) => void
  readonly receiveBytes?: number | undefined
}

/** `message` is absent for firewall changes. */
type Pending = { readonly message?: Message; readonly run: () => void }

export class Observer implements Disposable {
  readonly #parts: ObserverParts
  readonly #interest: (object: KernelObject) => boolean
  readonly #desired: (key: Key) => KernelObject | undefined
  readonly #observed: Cache
  readonly #notifications: NotificationSocket
  readonly #queue: Observation[] = []
  readonly #wakeup = new Wakeup()
  /** Notifications that have arrived and are not processed yet; during a dump they wait for its end. */
  readonly #inbox: Pending[] = []
  /** A consumer may stop iterating without its signal. */
  readonly #ended = new AbortController()
  #reading = false
  #dumping = false
  #dumpWanted: string | undefined = 'start'
  #wantedAt = 0

  constructor(
    parts: ObserverParts,
    interest: (object: KernelObject) => boolean,
    desired: (key: Key) => KernelObject | undefined = () => undefined
  ) {
    this.#parts = parts
    this.#desired = desired
    this.#interest = interest
    this.#observed = new Cache(interest, desired)
    this.#notifications = new NotificationSocket(
      { message: (message) => this.#arrived(message), lost: (why) => this.#lost(why) },
      { receiveBytes: parts.receiveBytes }
    )
    parts.senders.own.add(this.#notifications.port)
  }

  /** Observations until the signal. A dump that fails is logged and repeated. */
  async *observations(signal: AbortSignal): AsyncGenerator<Observation, void, undefined> {
    const either = AbortSignal.any([signal, this.#ended.signal])
    void this.#followFirewall(either)
    let restUntil = 0
    while (!signal.aborted) {
      // Not yield*: of an array it costs several more promises for each value.
      for (const observation of this.#queue.splice(0)) yield observation
      if (this.#queue.length > 0 || signal.aborted) continue
      const wait = this.#dumpWanted === undefined ? undefined : this.#dumpDue(restUntil) - performance.now()
      // Changes are yielded while a dump has to wait.
      if (wait === undefined || wait > 0) await this.#woken(wait, signal)
      else {
        const start = performance.now()
        yield* await this.#dump(either)
        restUntil = performance.now() + (performance.now() - start) * REST_FACTOR
      }
    }
  }

  #dumpDue(restUntil: number): number {
    return this.#dumpWanted === 'start' ? 0 : Math.max(this.#wantedAt + GATHER_MS, restUntil)
  }

  async #woken(afterMs: number | undefined, signal: AbortSignal): Promise<void> {
    const timer = afterMs === undefined ? undefined : setTimeout(() => this.#wakeup.notify(), afterMs)
    await this.#wakeup.next(signal)
    clearTimeout(timer)
  }

  #push(observation: Observation): void {
    if (this.#queue.length >= QUEUE_LIMIT) {
      this.#queue.splice(0)
      this.wantDump('the consumer is too slow: observations were dropped')
    } else this.#queue.push(observation)
    this.#wakeup.notify()
  }

  /** Requests a dump; several requests share one. */
  wantDump(why: string): void {
    if (this.#dumpWanted === undefined) {
      this.#dumpWanted = why
      this.#wantedAt = performance.now()
    }
    this.#wakeup.notify()
  }

  /**
   * Only looks up the sender. A pod's start brings a dozen notifications before the answer to the request that caused
   * them; if they were parsed here, the answer would wait for half a millisecond.
   */
  #arrived(message: Message): void {
    const at = performance.now()
    // A link's notification has port id 0, or one that belongs to no process.
    const by = this.#parts.senders.of(message.port, at)
    this.#inbox.push({ message, run: () => this.#process(message, by, at) })
    if (!this.#dumping) this.#readSoon()
  }

  #readSoon(): void {
    if (this.#reading) return
    this.#reading = true
    setImmediate(() => {
      this.#reading = false
      if (this.#dumping) return
      this.#processBatch(this.#inbox.splice(0, BATCH))
      if (this.#inbox.length > 0) this.#readSoon()
    })
  }

  #processBatch(due: readonly Pending[]): void {
    for (const { run } of coalesce(due, (index) => this.#observed.nameOf(index) !== undefined)) run()
  }

  #process(message: Message, by: Sender | undefined, at: number): void {
    try {
      const routing = routingChange(message)
      if (routing !== undefined) this.#parts.routing(routing)
      const update = this.#observed.apply(message)
      for (const change of update.changed)
        this.#push({ kind: 'changed', ...change, ...(by !== undefined && { by }), at })
      for (const path of update.reread ?? []) this.#reread(path, at)
      if (message.type === RTM.newLink) void this.#rereadOffload(linkIdentity(message).index, at)
      if (update.dumpBecause !== undefined) this.wantDump(update.dumpBecause)
    } catch (error) {
      this.wantDump(reasonOf(error))
    }
  }

  #lost(why: string): void {
    this.wantDump(why)
    this.#parts.routing({})
  }

  #reread(path: string, at: number): void {
    const object = readSysctl(path)
    // Gone with its device, whose own notification follows.
    if (object !== undefined && this.#observed.put(object) !== undefined)
      this.#push({ kind: 'changed', key: keyOf(object), object, at })
  }

  /** A changed offload is notified as a change of the link, without saying which. */
  async #rereadOffload(index: number, at: number): Promise<void> {
    const device = this.#observed.nameOf(index)
    if (device === undefined || this.#desired(`offload ${device}` as Key) === undefined) return
    try {
      const object = await readOffload(device)
      if (object === undefined || this.#observed.nameOf(index) !== device) return
      const before = this.#observed.get(keyOf(object))
      if (before !== undefined && sameObject(object, before)) return
      if (this.#observed.put(object) !== undefined) this.#push({ kind: 'changed', key: keyOf(object), object, at })
    } catch (error) {
      this.wantDump(reasonOf(error))
    }
  }

  /** A new dump, or nothing when it failed and will be repeated. */
  async #dump(signal: AbortSignal): Promise<readonly Observation[]> {
    const why = this.#dumpWanted ?? ''
    // Changes before the dump are part of it, but only their notifications name the sender. Those during it are
    // processed after it, whether or not the dump has them already: the result is the same.
    this.#processBatch(this.#inbox.splice(0).slice(0, BATCH))
    this.#dumpWanted = undefined
    this.#dumping = true
    try {
      const links = await dumpLinks(this.#parts.socket)
      const objects = await dumpObjects(this.#parts.socket, (index) => links.get(index)?.name)
      const unannouncedAt = performance.now()
      const tunnels = await this.#readWireguard([...links.values()])
      const firewall = await this.#parts.firewall.read(this.#interest)
      const fouPorts = await this.#parts.fouPorts()
      const sysctls = this.#parts.sysctls().map((path) => readSysctl(path))
      const offloads = await Promise.all(this.#parts.offloads().map(readOffload))
      const tunnel = this.#parts.tunnel()
      this.#observed.restart(links)
      const listed = [...objects, ...tunnels, ...fouPorts, ...firewall, ...sysctls, ...offloads, ...tunnel]
      for (const [at, object] of listed.entries()) {
        if (object !== undefined) this.#observed.putListed(object)
        if (at % BATCH === BATCH - 1) await turn()
      }
      await this.#catchUp()
      // Other programs' changes come first, with the sender; our own are in the state.
      const others = this.#queue.splice(0).filter((one) => one.kind === 'changed' && one.by?.self === false)
      const state = this.#observed.state()
      return [...others, { kind: 'everything', state, why, at: performance.now(), unannouncedAt }]
    } catch (error) {
      this.#parts.log.warn({ err: error, why }, 'the kernel state could not be read; trying again')
      await Backoff.constant(RETRY_MS)
        .pause(signal)
        .catch(() => undefined)
      this.wantDump(why)
      return []
    } finally {
      this.#dumping = false
      this.#readSoon()
    }
  }

  /** Keys and peers of the devices whose peers are of interest: of another program's none are read. */
  async #readWireguard(links: readonly Link[]): Promise<readonly KernelObject[]> {
    const found: KernelObject[] = []
    for (const { name: device, form } of links) {
      const any: KernelObject = { kind: 'wg-peer', device, publicKey: '', allowedIps: [] }
      if (form?.type === 'wireguard' && this.#interest(any))
        found.push(...(await this.#parts.wireguard.read(device, this.#desired)))
    }
    return found
  }

  /**
   * Processes the notifications that arrived during a dump. The kernel queues a notification before it acknowledges the
   * change, so once none is left, every change acknowledged by then is in the dump or has been processed.
   */
  async #catchUp(): Promise<void> {
    for (;;) {
      this.#notifications.readNow()
      const due = this.#inbox.splice(0, BATCH)
      if (due.length === 0) return
      this.#processBatch(due)
      await turn()
    }
  }

  async #followFirewall(signal: AbortSignal): Promise<void> {
    try {
      for await (const change of this.#parts.firewall.changes(signal)) {
        if (this.#dumping) this.#inbox.push({ run: () => void this.#processFirewall(change) })
        else await this.#processFirewall(change)
      }
    } catch (error) {
      this.#parts.log.error({ err: error }, 'firewall changes are no longer watched')
    }
  }

  async #processFirewall(change: FirewallChange): Promise<void> {
    if (change.kind === 'reread') return this.#rereadFirewall(change)
    const { key, object } = change
    const kept = object === undefined ? undefined : this.#observed.put(object)
    if (kept !== undefined) this.#push(change)
    // The cache lacks what we made since the last dump, because our own transactions are not notified: its removal is
    // still an observation.
    else if (this.#observed.drop(key) || object === undefined) this.#push({ ...change, object: undefined })
  }

  /** Pushes only what differs from before. */
  async #rereadFirewall(change: Extract<FirewallChange, { kind: 'reread' }>): Promise<void> {
    const { by, at } = change
    const push = (key: Key, object: KernelObject | undefined) =>
      this.#push({ kind: 'changed', key, object, ...(by !== undefined && { by }), at })
    try {
      const now = new Map((await this.#parts.firewall.read(this.#interest)).map((object) => [keyOf(object), object]))
      for (const [key, object] of this.#observed.state()) {
        if (isFirewall(object) && !now.has(key) && this.#observed.drop(key)) push(key, undefined)
      }
      for (const [key, object] of now) {
        const before = this.#observed.get(key)
        const same = before !== undefined && sameObject(before, object) && sameObject(object, before)
        if (this.#observed.put(object) !== undefined && !same) push(key, object)
      }
    } catch (error) {
      this.wantDump(`${change.why}: ${reasonOf(error)}`)
    }
  }

  [Symbol.dispose](): void {
    this.#ended.abort()
    this.#parts.senders.own.delete(this.#notifications.port)
    this.#notifications[Symbol.dispose]()
  }
}

const FIREWALL: ReadonlySet<KernelObject['kind']> = new Set([
  ...(['nft-chain', 'nft-set', 'nft-element', 'iptables-chain', 'accept', 'admin-call'] as const)
])

const isFirewall = ({ kind }: KernelObject): boolean => FIREWALL.has(kind)
