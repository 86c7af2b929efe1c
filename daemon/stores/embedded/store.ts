// Lease store in an SQLite file shared by the daemons of one machine: for labs, the demo and single-host Docker, with
// no server to run.
import { existsSync } from 'node:fs'
import { codeOf } from '../../../ipam/files.ts'
import { FileReader } from '../../../ipam/read-file.ts'
import { retry } from '../../base/backoff.ts'
import { reasonOf, WeftError } from '../../base/error.ts'
import { Wakeup } from '../../base/wakeup.ts'
import { configurationToWrite } from '../../config/last.ts'
import { LONGEST_CONFIGURATION } from '../../config/net-conf.ts'
import type { Lease } from '../../lease/lease.ts'
import type { LeaseEvent, LeaseRequest, Store, StoreDeps, StoreEvent } from '../../lease/store.ts'
import { EmbeddedFile, type Row } from './file.ts'
import { LeaseKeeper } from './keeper.ts'
import { readRecord, takenBy } from './record.ts'

/** One day as in etcd, in seconds. */
const TTL = 24 * 3_600
/** Milliseconds between two checks for renewal and expiry. */
const TICK = 1_000

export class EmbeddedStore implements Store {
  readonly type = 'embedded'
  readonly #file: EmbeddedFile
  readonly #netConfigPath: string | undefined
  readonly #deps: StoreDeps
  readonly #keeper: LeaseKeeper
  readonly #tick: NodeJS.Timeout
  readonly #fileChanged = new Wakeup()
  readonly #files = new FileReader()

  /** `ttlSeconds` differs from a day in tests only. Errors: STATE_UNWRITABLE when the file can't be opened. */
  constructor(options: { readonly path: string; readonly netConfigPath?: string }, deps: StoreDeps, ttlSeconds = TTL) {
    this.#deps = deps
    this.#netConfigPath = options.netConfigPath
    const ttl = 1_000 * ttlSeconds
    this.#file = new EmbeddedFile(options.path, () => this.#changed(), deps.log)
    this.#keeper = new LeaseKeeper(this.#file, ttl, deps)
    this.#tick = setInterval(() => this.#guarded(() => this.#keeper.renewAndExpire()), Math.min(TICK, ttl / 4))
  }

  /** Writes the network configuration. Errors: STORE_UNREACHABLE. */
  configure(text: string): void {
    this.#file.configure(text)
  }

  get configurationPlace(): string {
    const from = this.#netConfigPath
    const inFile = `the lease file ${this.#file.path}`
    return from !== undefined && existsSync(from) ? `${from}, kept in ${inFile}` : inFile
  }

  /** Errors: OPTION_INVALID for a file of --net-config-path that can't be read. */
  async configuration(signal: AbortSignal): Promise<string> {
    for (;;) {
      signal.throwIfAborted()
      const written = await this.#written()
      this.#guarded(() => this.#copyConfiguration(written))
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
          ? `write ${configurationToWrite(this.#deps.lastConfiguration)} into a file, name it with --net-config-path and restart weftd`
          : `write ${configurationToWrite(this.#deps.lastConfiguration)} into ${from}`
      )
      await changed
    }
  }

  /**
   * Copies --net-config-path into the lease file, for all daemons; without that file the lease file keeps what it has.
   */
  #copyConfiguration(text: string | undefined): void {
    const path = this.#netConfigPath
    if (text !== undefined && this.#file.configure(text))
      this.#deps.log.info({ path }, 'network configuration written to the lease file')
  }

  /** The text of --net-config-path; `undefined` when there is none. Errors: OPTION_INVALID. */
  async #written(): Promise<string | undefined> {
    const path = this.#netConfigPath
    try {
      return path === undefined ? undefined : await this.#files.text(path, LONGEST_CONFIGURATION)
    } catch (cause) {
      if (codeOf(cause) === 'ENOENT') return undefined
      throw unreadable(path ?? '', cause)
    }
  }

  leaseEnds(): number | undefined {
    return this.#keeper.ends
  }

  async acquire(request: LeaseRequest, signal: AbortSignal): Promise<Lease> {
    signal.throwIfAborted()
    return retry(() => this.#guarded(() => this.#keeper.acquire(request)), { signal })
  }

  async candidates(node: string): Promise<readonly Lease[]> {
    const rows = this.#guarded(() => this.#file.rows()) ?? []
    return rows.filter((row) => row.node === null || row.node === node).flatMap((row) => takenBy(row) ?? [])
  }

  /** A file has no connections. */
  reconnect(): void {}

  /** Whoever starts later with another file has the last word: only a change of our own file is copied again. */
  async #followFile(before: string | undefined): Promise<string | undefined> {
    try {
      const text = await this.#written()
      if (text !== undefined && text !== before) this.#guarded(() => this.#copyConfiguration(text))
      return text ?? before
    } catch (error) {
      if (!(error instanceof WeftError)) throw error
      this.#deps.log.debug({ reason: reasonOf(error) }, 'the network configuration stays as it was')
      return before
    }
  }

  async *watch(signal: AbortSignal): AsyncGenerator<StoreEvent, void> {
    let written = await this.#written().catch(() => undefined)
    const known = new Map<string, Known>()
    let listed = false
    let configuration: string | undefined
    while (!signal.aborted) {
      const changed = this.#changeWithin(TICK, signal)
      written = await this.#followFile(written)
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
    this.#guarded(() => this.#keeper.keep())
  }

  /**
   * Resolves with the next change of the file, and after this time at most, so that a file that did not answer is read
   * again.
   */
  #changeWithin(milliseconds: number, signal: AbortSignal): Promise<void> {
    return this.#fileChanged.next(signal, AbortSignal.timeout(milliseconds))
  }

  /** Runs an operation on the file; `undefined`, with STORE_UNREACHABLE raised, when it fails. */
  #guarded<T>(run: () => T): T | undefined {
    try {
      const result = run()
      this.#deps.report.clear('STORE_UNREACHABLE')
      return result
    } catch (error) {
      if (!(error instanceof WeftError) || error.code !== 'STORE_UNREACHABLE') throw error
      this.#deps.report.raise('STORE_UNREACHABLE', reasonOf(error), error.cure)
      return undefined
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#tick)
    this.#keeper.release()
    this.#file[Symbol.dispose]()
  }
}

/** A row as last read; without a lease when it could never be parsed. */
type Known = Pick<Row, 'value' | 'created'> & { readonly lease: Lease | undefined }

/** What has changed since `known`, which is updated. A row that can no longer be parsed keeps its last valid lease. */
function* differences(rows: readonly Row[], known: Map<string, Known>): Generator<LeaseEvent, void> {
  const left = new Set(known.keys())
  for (const row of rows) {
    left.delete(row.key)
    const before = known.get(row.key)
    if (before?.value === row.value && before.created === row.created) continue
    const { value, created } = row
    try {
      const lease = readRecord(row)
      known.set(row.key, { value, created, lease })
      yield { kind: 'put', lease }
    } catch (error) {
      if (!(error instanceof WeftError)) throw error
      known.set(row.key, { value, created, lease: before?.lease })
      yield { kind: 'malformed', key: row.key, error }
    }
  }
  for (const key of left) {
    known.delete(key)
    yield { kind: 'gone', key }
  }
}

const unreadable = (path: string, cause: unknown): WeftError =>
  new WeftError(
    'OPTION_INVALID',
    `--net-config-path ${path} cannot be read: ${(cause as Error).message}`,
    'correct the path or the mode of the file',
    { cause }
  )
