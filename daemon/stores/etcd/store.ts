// Lease store on etcd's v3 API, with flannel's keys and values, so that nodes running flanneld and weftd can share a
// network.
import { Backoff, retry } from '../../base/backoff.ts'
import { reasonOf, WeftError } from '../../base/error.ts'
import { configurationArgument, shownText } from '../../config/last.ts'
import { type Lease, leaseKey } from '../../lease/lease.ts'
import type { LeaseEvent, LeaseRequest, Store, StoreDeps, StoreEvent } from '../../lease/store.ts'
import { answered } from './claim.ts'
import { EtcdConnection, type EtcdOptions, isDenied } from './connection.ts'
import { LeaseKeeper } from './keeper.ts'
import { EtcdKeys } from './keys.ts'
import { nameOf, type RecordEvent, readRecord } from './record.ts'
import { EtcdReports } from './reports.ts'
import { copyCommand, V2Reader, v2Configuration } from './v2-configuration.ts'
import { type WatchEvent, watchFrom } from './watch.ts'

/** flannel's lifetime of a lease, in seconds. */
const TTL = 24 * 3_600
/** A watch that lasted this many milliseconds resets the backoff. */
const STEADY = 5_000
/** Milliseconds between two requests for a configuration that is missing. */
const CONFIG_RETRY = 1_000

export class EtcdStore implements Store {
  readonly type = 'etcd'
  readonly #connection: EtcdConnection
  readonly #keys: EtcdKeys
  readonly #v2: V2Reader
  readonly #keeper: LeaseKeeper
  readonly #reports: EtcdReports
  readonly #deps: StoreDeps
  readonly #config: string
  readonly #subnets: string

  /** `ttlSeconds` differs from flannel's day in tests only. Errors: OPTION_INVALID when a certificate can't be read. */
  constructor(options: EtcdOptions, deps: StoreDeps, ttlSeconds = TTL) {
    const prefix = options.prefix.replace(/\/+$/, '')
    this.#deps = deps
    this.#config = `${prefix}/config`
    this.#subnets = `${prefix}/subnets/`
    this.#connection = new EtcdConnection(options, deps.report)
    this.#keys = new EtcdKeys(this.#connection)
    this.#v2 = new V2Reader(() => v2Configuration(options.endpoints, this.#config, this.#connection.tls))
    const renewMarginSeconds = 60 * options.renewMarginMinutes
    const onHeld = () => this.#reports.renewed()
    this.#keeper = new LeaseKeeper(this.#keys, { prefix: this.#subnets, ttlSeconds, renewMarginSeconds, onHeld }, deps)
    this.#reports = new EtcdReports(this.#connection, `${prefix}/weft/reports/`, () => this.#keeper.held, deps.log)
  }

  get configurationPlace(): string {
    return `the key ${this.#config} in ${this.#connection.place}`
  }

  async configuration(signal: AbortSignal): Promise<string> {
    signal.throwIfAborted()
    const written = async () => {
      const found = await answered(() => this.#keys.get(this.#config), signal)
      if (found !== undefined) return found
      await this.#reportMissing()
      return undefined
    }
    const { value } = await retry(written, { signal, backoff: Backoff.constant(CONFIG_RETRY) })
    this.#deps.report.clear('CONFIG_MISSING')
    return value
  }

  /** flanneld and weftd read the v3 API only; many guides write with the v2 API. */
  async #reportMissing(): Promise<void> {
    const { lastConfiguration: last, report } = this.#deps
    const [key, place] = [this.#config, this.#connection.place]
    const v2 = last === undefined ? await this.#v2.value() : undefined
    if (v2 === undefined)
      report.raise(
        'CONFIG_MISSING',
        `${place} has no key ${key}`,
        `write it with the v3 API, ETCDCTL_API=3 etcdctl put ${key} ${configurationArgument(last)}; one that was written with the v2 API, etcdctl set or mk, is not seen`
      )
    else
      report.raise(
        'CONFIG_MISSING',
        `${place} has no key ${key} in its v3 API, but in its v2 API, which is not read: ${shownText(v2.text)}`,
        `copy it to the v3 API: ${copyCommand(v2, key)}`
      )
  }

  reconnect(): void {
    this.#connection.reconnect()
  }

  acquire(request: LeaseRequest, signal: AbortSignal): Promise<Lease> {
    return this.#keeper.acquire(request, signal)
  }

  leaseEnds(): number | undefined {
    return this.#keeper.ends
  }

  async candidates(_node: string, signal: AbortSignal): Promise<readonly Lease[]> {
    const { records } = await answered(() => this.#keeper.listing(), signal)
    return records.flatMap(({ parsed }) => (parsed.kind === 'put' ? parsed.lease : []))
  }

  publish(report: string): void {
    this.#reports.publish(report)
  }

  reports(): ReturnType<EtcdReports['list']> {
    return this.#reports.list()
  }

  async *watch(signal: AbortSignal): AsyncGenerator<StoreEvent, void> {
    const backoff = new Backoff()
    /** The last valid lease of each key, kept while its value cannot be parsed. */
    const known = new Map<string, Lease>()
    while (!signal.aborted) {
      let listed = Number.POSITIVE_INFINITY
      try {
        const revision = yield* this.#list(known)
        yield { kind: 'configuration', text: (await this.#keys.get(this.#config))?.value }
        listed = performance.now()
        const watched = [{ prefix: this.#subnets }, { key: this.#config }]
        for await (const batch of watchFrom(this.#connection, watched, revision + 1, signal))
          yield* this.#follow(batch, known)
        this.#deps.log.info({ revision }, 'etcd has compacted the revision of the watch; listing again')
      } catch (error) {
        if (signal.aborted) return
        if (isDenied(error)) this.#connection.failed(`watching ${this.#subnets}`, error)
        else if (!(error instanceof WeftError)) {
          this.#deps.log.warn({ reason: reasonOf(error) }, 'the watch on etcd broke; listing again')
        }
        if (performance.now() - listed > STEADY) backoff.reset()
        await backoff.pause(signal).catch(() => undefined)
      }
    }
  }

  /**
   * Yields a complete listing and returns its revision. A function of its own, so that the watch, which lasts for days,
   * does not keep the records in memory.
   */
  async *#list(known: Map<string, Lease>): AsyncGenerator<StoreEvent, number> {
    const listing = await this.#keeper.listing()
    this.#keeper.onListing(listing)
    yield* complete(
      listing.records.map(({ parsed }) => parsed),
      known
    )
    return listing.revision
  }

  *#follow(batch: readonly WatchEvent[], known: Map<string, Lease>): Generator<StoreEvent, void> {
    for (const event of batch) {
      if ((event.kind === 'put' ? event.record.key : event.key) === this.#config) {
        yield { kind: 'configuration', text: event.kind === 'put' ? event.record.value : undefined }
        continue
      }
      this.#keeper.onEvent(event)
      const seen: LeaseEvent =
        event.kind === 'put' ? readRecord(event.record).parsed : { kind: 'gone', key: nameOf(event.key) }
      if (seen.kind === 'put') known.set(leaseKey(seen.lease), seen.lease)
      else if (seen.kind === 'gone') known.delete(seen.key)
      yield seen
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#reports[Symbol.dispose]()
    await this.#keeper[Symbol.asyncDispose]()
    await this.#connection[Symbol.asyncDispose]()
  }
}

/** The list event, then its malformed records; the list has the last valid lease of those. */
function* complete(events: readonly RecordEvent[], known: Map<string, Lease>): Generator<LeaseEvent, void> {
  const leases = events.flatMap((event) => (event.kind === 'put' ? event.lease : (known.get(event.key) ?? [])))
  known.clear()
  for (const lease of leases) known.set(leaseKey(lease), lease)
  yield { kind: 'list', leases }
  yield* events.filter((event) => event.kind === 'malformed')
}
