// Leases in a SQLite file shared by the daemons of one machine: for labs, the demo and single-host Docker, with no store to run.
import { overlaps, perFamily } from '../../../ipam/address.ts'
import { contentOf } from '../../../ipam/files.ts'
import { retry } from '../../base/backoff.ts'
import { reasonOf, WeftError } from '../../base/error.ts'
import { Wakeup } from '../../base/wakeup.ts'
import { EXAMPLE } from '../../config/net-conf.ts'
import { grantedSubnet, publishesUs } from '../../lease/acquire.ts'
import { formatLeaseValue, type Lease, leaseKey, parseLease, parseLeaseKey } from '../../lease/lease.ts'
import type { LeaseEvent, LeaseRequest, Store, StoreDeps, StoreEvent } from '../../lease/store.ts'
import { EmbeddedFile, type Row } from './file.ts'

/** The same day as in etcd, in seconds. */
const TTL = 24 * 3_600
/** Milliseconds between two looks at the clock for renewal and expiry. */
const TICK = 1_000
/**
 * Milliseconds that a lease must have been seen expired, by a clock that stands while the machine sleeps, before it is deleted. After a resume every lease is
 * expired by the wall clock, and its daemon needs a moment to renew it.
 */
const GRACE = 60_000

type Held = { readonly wish: LeaseRequest; readonly lease: Lease }

export class EmbeddedStore implements Store {
  readonly type = 'embedded'
  readonly #file: EmbeddedFile
  readonly #netConfigPath: string | undefined
  readonly #deps: StoreDeps
  readonly #ttl: number
  readonly #tick: NodeJS.Timeout
  readonly #fileChanged = new Wakeup()
  /** When (performance.now) an expired lease was first seen, by key and revision. */
  readonly #expiredSince = new Map<string, number>()
  #held: Held | undefined

  /** `ttlSeconds` is a day unless a test is in a hurry. Errors: STATE_UNWRITABLE when the file can't be opened. */
  constructor(options: { readonly path: string; readonly netConfigPath?: string }, deps: StoreDeps, ttlSeconds = TTL) {
    this.#deps = deps
    this.#netConfigPath = options.netConfigPath
    this.#ttl = 1_000 * ttlSeconds
    this.#file = new EmbeddedFile(options.path, () => this.#changed(), deps.log)
    this.#tick = setInterval(() => this.#guarded(() => this.#look()), Math.min(TICK, this.#ttl / 4))
  }

  /** Writes the network configuration. Errors: STORE_UNREACHABLE. */
  configure(text: string): void {
    this.#file.configure(text)
  }

  get configurationPlace(): string {
    const from = this.#netConfigPath
    const inFile = `the lease file ${this.#file.path}`
    return from !== undefined && readIfThere(from) !== undefined ? `${from}, kept in ${inFile}` : inFile
  }

  /** Errors: OPTION_INVALID for a file of --net-config-path that can't be read. */
  async configuration(signal: AbortSignal): Promise<string> {
    for (;;) {
      signal.throwIfAborted()
      this.#guarded(() => this.#takeOver())
      const changed = this.#changeWithin(TICK, signal)
      const text = this.#guarded(() => this.#file.config())
      if (text !== undefined) {
        this.#deps.report.clear('CONFIG_MISSING')
        return text
      }
      const from = this.#netConfigPath
      this.#deps.report.raise(
        'CONFIG_MISSING',
        `the lease file ${this.#file.path} holds none, and ${from === undefined ? 'no --net-config-path is given' : `${from} does not exist`}`,
        from === undefined
          ? `write ${EXAMPLE} into a file, name it with --net-config-path and restart weftd`
          : `write ${EXAMPLE} into ${from}`
      )
      await changed
    }
  }

  /** The file that people edit becomes what all daemons of the lease file have; where it is missing, theirs stays. */
  #takeOver(): void {
    const path = this.#netConfigPath
    const text = path === undefined ? undefined : readIfThere(path)
    if (text !== undefined && this.#file.configure(text))
      this.#deps.log.info({ path }, 'network configuration written to the lease file')
  }

  async acquire(wish: LeaseRequest, signal: AbortSignal): Promise<Lease> {
    signal.throwIfAborted()
    const take = () => this.#guarded(() => this.#file.transaction(() => this.#take(wish)))
    const { lease, because } = await retry(take, { signal })
    this.#held = { wish, lease }
    this.#deps.report.clear('LEASE_LOST')
    this.#deps.log.debug({ lease: leaseKey(lease), because }, 'lease held in the lease file')
    return lease
  }

  /** Chooses and writes in one transaction, so that no other daemon can choose the same. */
  #take(wish: LeaseRequest): { readonly lease: Lease; readonly because: string } {
    const rows = this.#file.rows()
    const held = this.#held === undefined ? {} : { held: this.#held.lease.subnet }
    const leases = rows.flatMap((row) => leaseOf(row) ?? [])
    const choice = grantedSubnet({ ...wish, leases, random: Math.random, ...held }, this.#file.path)
    for (const unfit of choice.unfit) this.#file.remove(leaseKey(unfit))
    const before = choice.kind === 'keep' ? choice.lease : choice.instead
    const { publicIp, backendType, node } = wish
    const subnet = choice.kind === 'keep' ? choice.lease.subnet : choice.subnet
    const lease = { subnet, publicIp, backendType, backendData: wish.backendData(before), node }
    const reservation = rows.some((row) => row.key === leaseKey(lease) && row.expires === null)
    this.#write(lease, reservation)
    return { lease, because: choice.because }
  }

  #write(lease: Lease, reservation: boolean): void {
    const expires = reservation ? null : Date.now() + this.#ttl
    this.#file.put({ key: leaseKey(lease), value: formatLeaseValue(lease), node: lease.node ?? null, expires })
  }

  /** A file has no connections. */
  reconnect(): void {}

  async *watch(signal: AbortSignal): AsyncGenerator<StoreEvent, void> {
    const known = new Map<string, { readonly value: string; readonly lease: Lease | undefined }>()
    let listed = false
    let configuration: string | undefined
    while (!signal.aborted) {
      const changed = this.#changeWithin(TICK, signal)
      const now = this.#guarded(() => ({ rows: this.#file.rows(), configuration: this.#file.config() }))
      if (now !== undefined) {
        const { rows } = now
        const events = [...differences(rows, known)]
        const leases = [...known.values()].flatMap(({ lease }) => lease ?? [])
        yield* listed
          ? events
          : [{ kind: 'list' as const, leases }, ...events.filter(({ kind }) => kind === 'malformed')]
        if (!listed || now.configuration !== configuration) yield { kind: 'configuration', text: now.configuration }
        listed = true
        configuration = now.configuration
      }
      await changed
    }
  }

  #changed(): void {
    this.#fileChanged.notify()
    this.#guarded(() => this.#keep())
  }

  /** Resolves with the next change of the file, and after this time at most, so that a file that did not answer is read again. */
  #changeWithin(milliseconds: number, signal: AbortSignal): Promise<void> {
    return this.#fileChanged.next(signal, AbortSignal.timeout(milliseconds))
  }

  /** Renews our lease when half of its life is over, and deletes others' that have ended. */
  #look(): void {
    const now = Date.now()
    const held = this.#held
    const rows = this.#file.rows()
    const own = rows.find((row) => held !== undefined && row.key === leaseKey(held.lease))
    if (held !== undefined && own?.expires != null && own.expires - now < this.#ttl / 2)
      this.#file.transaction(() => this.#renew(held))
    const expired = rows.filter((row) => row !== own && row.expires !== null && row.expires < now)
    const ids = new Map(expired.map((row) => [`${row.key} ${row.revision}`, row]))
    for (const id of this.#expiredSince.keys()) if (!ids.has(id)) this.#expiredSince.delete(id)
    for (const [id, row] of ids) {
      const since = this.#expiredSince.get(id) ?? performance.now()
      this.#expiredSince.set(id, since)
      if (performance.now() - since >= Math.min(GRACE, this.#ttl)) this.#file.transaction(() => this.#expire(row))
    }
  }

  #renew(held: Held): void {
    const own = this.#file.rows().find((row) => row.key === leaseKey(held.lease))
    if (own?.expires != null && isFor(own, held.wish)) this.#write(held.lease, false)
  }

  #expire(seen: Row): void {
    const now = this.#file.rows().find((row) => row.key === seen.key)
    if (now?.revision !== seen.revision) return
    this.#file.remove(seen.key)
    this.#deps.log.info({ lease: seen.key, node: seen.node, because: 'it has not been renewed' }, 'lease deleted')
  }

  /** Our lease must be in the file: written again when it is gone or garbled, unless another node has taken its place. */
  #keep(): void {
    const held = this.#held
    if (held === undefined) return
    const key = leaseKey(held.lease)
    const own = this.#file.rows().find((row) => row.key === key)
    if (own !== undefined && isFor(own, held.wish)) this.#deps.report.clear('LEASE_LOST')
    else this.#file.transaction(() => this.#writeAgain(held))
  }

  #writeAgain(held: Held): void {
    const key = leaseKey(held.lease)
    const rows = this.#file.rows()
    const there = rows.find((row) => row.key === key)
    const inTheWay = rows.find((row) => {
      const lease = leaseOf(row)
      if (row.key === key) return lease !== undefined && perFamily(lease.publicIp).length > 0
      return perFamily(held.lease.subnet).some(([family, prefix]) => {
        const other = lease?.subnet[family]
        return other !== undefined && overlaps(prefix, other)
      })
    })
    if (inTheWay !== undefined) {
      this.#deps.report.raise(
        'LEASE_LOST',
        `${inTheWay.key} in ${this.#file.path} now has the value ${inTheWay.value.slice(0, 200)}`
      )
      return
    }
    this.#write(held.lease, there !== undefined && there.expires === null)
    this.#deps.report.clear('LEASE_LOST')
    this.#deps.log.warn(
      { lease: key, because: there === undefined ? 'it was deleted' : 'its value could not be understood' },
      'our lease was gone and is written again'
    )
  }

  /** Runs something on the file; when the file does not answer, the condition says so and the result is `undefined`. */
  #guarded<T>(run: () => T): T | undefined {
    try {
      const result = run()
      this.#deps.report.clear('STORE_UNREACHABLE')
      return result
    } catch (error) {
      if (!(error instanceof WeftError) || error.code !== 'STORE_UNREACHABLE') throw error
      this.#deps.report.raise('STORE_UNREACHABLE', reasonOf(error))
      return undefined
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#tick)
    this.#held = undefined
    this.#file[Symbol.dispose]()
  }
}

/** A row whose value can't be understood takes its subnet all the same: as a lease that nobody publishes. */
function leaseOf(row: Row): Lease | undefined {
  const subnet = parseLeaseKey(row.key)
  if (subnet === undefined) return undefined
  try {
    return withNode(parseLease(row.key, row.value), row)
  } catch {
    return { subnet, publicIp: {}, backendType: '', backendData: {} }
  }
}

const withNode = (lease: Lease, row: Row): Lease => (row.node === null ? lease : { ...lease, node: row.node })

const isFor = (row: Row, wish: LeaseRequest): boolean => {
  const lease = leaseOf(row)
  return lease !== undefined && publishesUs(lease, wish.publicIp)
}

/** What has changed since `known`, which is brought up to date. A lease that can no longer be understood stays as it was known. */
function* differences(
  rows: readonly Row[],
  known: Map<string, { readonly value: string; readonly lease: Lease | undefined }>
): Generator<LeaseEvent, void> {
  const left = new Set(known.keys())
  for (const row of rows) {
    left.delete(row.key)
    const before = known.get(row.key)
    if (before?.value === row.value) continue
    try {
      const lease = withNode(parseLease(row.key, row.value), row)
      known.set(row.key, { value: row.value, lease })
      yield { kind: 'put', lease }
    } catch (error) {
      if (!(error instanceof WeftError)) throw error
      known.set(row.key, { value: row.value, lease: before?.lease })
      yield { kind: 'malformed', key: row.key, error }
    }
  }
  for (const key of left) {
    known.delete(key)
    yield { kind: 'gone', key }
  }
}

function readIfThere(path: string): string | undefined {
  try {
    return contentOf(path)
  } catch (cause) {
    throw unreadable(path, cause)
  }
}

const unreadable = (path: string, cause: unknown): WeftError =>
  new WeftError(
    'OPTION_INVALID',
    `--net-config-path ${path} can not be read: ${(cause as Error).message}`,
    'correct the path or the mode of the file',
    { cause }
  )
