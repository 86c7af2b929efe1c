// The embedded store's SQLite file: schema, statements, and notification of other processes' writes.
import { closeSync, type FSWatcher, fstatSync, openSync, statSync, watch } from 'node:fs'
import { basename, dirname } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { makeDirectory } from '../../../ipam/files.ts'
import { reasonOf, WeftError } from '../../base/error.ts'
import type { Log } from '../../base/log.ts'
import { LONGEST_CONFIGURATION } from '../../config/net-conf.ts'

export type Row = {
  readonly key: string
  readonly value: string
  readonly node: string | null
  /** Milliseconds since 1970 (wall clock); null for a reservation. */
  readonly expires: number | null
  /** Grows with every write to the file. */
  readonly revision: number
  /** SQLite's rowid: a later row has a larger one, and a row that is written again keeps its own. */
  readonly created: number
}

/** Milliseconds that a call waits for another process's transaction. All are short: a few reads and a write. */
const BUSY = 5_000
/** Milliseconds between two checks for other processes' writes, in case a notification is missing. */
const POLL = 1_000
/**
 * Checks after a notification: milliseconds until the first, the factor by which each pause is longer than the one
 * before, and their number.
 */
const RECHECK = { first: 2, factor: 5, count: 3 } as const

/** Milliseconds between two attempts to open the file. */
const BUSY_RETRY = 10

const SCHEMA = `
  PRAGMA synchronous = FULL;
  CREATE TABLE IF NOT EXISTS lease (key TEXT PRIMARY KEY, value TEXT NOT NULL, node TEXT, expires INTEGER, revision INTEGER NOT NULL) STRICT;
  CREATE TABLE IF NOT EXISTS config (one INTEGER PRIMARY KEY CHECK (one = 1), text TEXT NOT NULL) STRICT;
`

export class EmbeddedFile implements Disposable {
  readonly path: string
  #database: DatabaseSync
  #inode: bigint
  readonly #changed: () => void
  readonly #poll: NodeJS.Timeout
  readonly #watcher: FSWatcher | undefined
  #recheck: NodeJS.Timeout | undefined
  #version: number
  readonly #log: Log
  readonly #busyMs: number
  #reopenFailed = false

  /**
   * Creates what is missing, readable by root only. `changed` is called shortly after a write of any process.
   * `busyMs`: for how long opening waits for other processes. Errors: STATE_UNWRITABLE.
   */
  constructor(path: string, changed: () => void, log: Log, busyMs = BUSY) {
    this.path = path
    this.#busyMs = busyMs
    this.#changed = changed
    this.#log = log
    ;({ database: this.#database, inode: this.#inode } = open(path, busyMs))
    this.#version = this.#dataVersion()
    this.#poll = setInterval(() => this.#check(), POLL)
    this.#watcher = this.#watch()
  }

  /** Runs in a transaction that excludes every other process. Errors: STORE_UNREACHABLE. */
  transaction<T>(run: () => T): T {
    try {
      this.#database.exec('BEGIN IMMEDIATE')
      try {
        const result = run()
        this.#database.exec('COMMIT')
        return result
      } catch (error) {
        // After some errors (disk full, I/O) SQLite has already rolled back and rejects a second rollback, which would
        // hide the first error.
        if (this.#database.isTransaction) this.#rollBack()
        throw error
      }
    } catch (cause) {
      throw cause instanceof WeftError ? cause : unanswered(this.path, cause)
    }
  }

  #rollBack(): void {
    try {
      this.#database.exec('ROLLBACK')
    } catch {
      // The next BEGIN reports the error.
    }
  }

  /**
   * The configuration, if there is one; instead of a too long one, a text that is refused. Errors: STORE_UNREACHABLE.
   */
  config(): string | undefined {
    // octet_length() does not read the text (sqlite.org/lang_corefunc.html).
    const sql = 'SELECT iif(octet_length(text) > ?, NULL, text) AS text FROM config'
    const row = this.#ask(() => this.#database.prepare(sql).get(LONGEST_CONFIGURATION))
    return row && String(row.text ?? ' '.repeat(LONGEST_CONFIGURATION + 1))
  }

  /** Writes the configuration; false when it is unchanged. */
  configure(text: string): boolean {
    const sql = `INSERT INTO config (one, text) VALUES (1, ?)
      ON CONFLICT (one) DO UPDATE SET text = excluded.text WHERE text IS NOT excluded.text`
    const { changes } = this.#ask(() => this.#database.prepare(sql).run(text))
    if (changes === 0) return false
    queueMicrotask(this.#changed)
    return true
  }

  rows(): readonly Row[] {
    // The table is STRICT: its rows have these types.
    return this.#ask(() =>
      this.#database
        .prepare('SELECT key, value, node, expires, revision, rowid AS created FROM lease ORDER BY key')
        .all()
    ) as Row[]
  }

  put(row: Omit<Row, 'revision' | 'created'>): void {
    const sql = `INSERT INTO lease (key, value, node, expires, revision) VALUES (?, ?, ?, ?, (SELECT coalesce(max(revision), 0) + 1 FROM lease))
      ON CONFLICT (key) DO UPDATE SET value = excluded.value, node = excluded.node, expires = excluded.expires, revision = excluded.revision`
    this.#ask(() => this.#database.prepare(sql).run(row.key, row.value, row.node, row.expires))
    queueMicrotask(this.#changed)
  }

  remove(key: string): void {
    this.#ask(() => this.#database.prepare('DELETE FROM lease WHERE key = ?').run(key))
    queueMicrotask(this.#changed)
  }

  #ask<T>(run: () => T): T {
    try {
      return run()
    } catch (cause) {
      throw unanswered(this.path, cause)
    }
  }

  /** A number that changes when another connection has written. */
  #dataVersion(): number {
    return Number(this.#database.prepare('PRAGMA data_version').get()?.data_version)
  }

  #check(): void {
    if (this.#isMoved()) this.#reopen()
    let version = this.#version
    try {
      version = this.#dataVersion()
    } catch {
      // Locked or unreadable for now; calls that need the file report it.
      return
    }
    if (version === this.#version) return
    this.#version = version
    this.#changed()
  }

  #isMoved(): boolean {
    try {
      return statSync(this.path, { bigint: true, throwIfNoEntry: false })?.ino !== this.#inode
    } catch {
      // Not readable for now: the open file stays in use.
      return false
    }
  }

  /**
   * The file was deleted or replaced: other daemons use what has its name now, or make a new one. The configuration
   * goes with us unless there is one; each daemon writes its own lease again. SQLite leaves the -wal file of the new
   * one alone when the old one is closed (pager.c, databaseIsUnmoved).
   */
  #reopen(): void {
    const old = this.#database
    try {
      const config = this.config()
      ;({ database: this.#database, inode: this.#inode } = open(this.path, this.#busyMs))
      this.#version = Number.NaN
      old.close()
      if (config !== undefined && this.config() === undefined) this.configure(config)
      this.#log.warn(
        { path: this.path },
        'the lease file was deleted or replaced; the one of this name is used from now on'
      )
      this.#reopenFailed = false
    } catch (error) {
      if (!this.#reopenFailed)
        this.#log.error(
          { path: this.path, reason: reasonOf(error) },
          'the lease file was deleted or replaced, and no new one can be opened; trying again'
        )
      this.#reopenFailed = true
    }
  }

  /**
   * Checks now and a few times more: a commit becomes visible only with its write to shared memory, for which there is
   * no notification.
   */
  #checkSoon(): void {
    this.#check()
    if (this.#recheck !== undefined) return
    this.#recheck = setTimeout(() => this.#checkAgain(RECHECK.count - 1, RECHECK.first * RECHECK.factor), RECHECK.first)
  }

  #checkAgain(left: number, pause: number): void {
    this.#check()
    this.#recheck = left > 0 ? setTimeout(() => this.#checkAgain(left - 1, pause * RECHECK.factor), pause) : undefined
  }

  /**
   * Every commit writes to the -wal file beside ours. inotify works across mount namespaces, since it watches inodes.
   */
  #watch(): FSWatcher | undefined {
    try {
      const watcher = watch(dirname(this.path), (_, file) => {
        if (file === null || file.startsWith(basename(this.path))) this.#checkSoon()
      })
      watcher.on('error', (error) =>
        this.#log.warn(
          { path: this.path, reason: reasonOf(error) },
          'the lease file is no longer watched, only polled every second'
        )
      )
      return watcher
    } catch (error) {
      this.#log.warn(
        { path: this.path, reason: reasonOf(error) },
        'the lease file cannot be watched, only polled every second'
      )
      return undefined
    }
  }

  [Symbol.dispose](): void {
    clearInterval(this.#poll)
    clearTimeout(this.#recheck)
    this.#watcher?.close()
    this.#database.close()
  }
}

function open(path: string, busyMs: number): { readonly database: DatabaseSync; readonly inode: bigint } {
  try {
    makeDirectory(dirname(path), 0o700)
    for (const suffix of ['', '-wal', '-shm', '-journal']) refuseSpecial(path + suffix)
    // SQLite gives its -wal and -shm files the mode of the database, which it would create readable by all.
    const fd = openSync(path, 'a', 0o600)
    const { ino: inode } = fstatSync(fd, { bigint: true })
    closeSync(fd)
    const database = new DatabaseSync(path, { timeout: 0 })
    try {
      setUp(database, busyMs)
      database.exec(`PRAGMA busy_timeout = ${BUSY}`)
    } catch (error) {
      database.close()
      throw error
    }
    return { database, inode }
  } catch (cause) {
    throw unusable(path, cause)
  }
}

/**
 * Write-ahead log and tables, with one deadline for all: SQLite's own timeout is one for each statement, and counts for
 * none that first reads the file's header and then wants more while another process writes (SQLITE_BUSY at once,
 * sqlite.org/c3ref/busy_handler.html), as of two daemons that open a new file at the same time.
 */
function setUp(database: DatabaseSync, busyMs: number): void {
  const deadline = performance.now() + busyMs
  const pause = new Int32Array(new SharedArrayBuffer(4))
  const attempt = (): boolean => {
    try {
      database.exec(`PRAGMA journal_mode = WAL; ${SCHEMA}`)
      return true
    } catch (error) {
      if (!isResult(error, BUSY_RESULT) || performance.now() > deadline) throw error
      return false
    }
  }
  while (!attempt()) Atomics.wait(pause, 0, 0, BUSY_RETRY)
}

/** SQLite would wait for the writer of a FIFO, and read a device without end. */
function refuseSpecial(path: string): void {
  const about = statSync(path, { throwIfNoEntry: false })
  if (about !== undefined && !about.isFile()) throw new Error(`${path} is not a regular file`)
}

/** SQLITE_BUSY, and SQLITE_CORRUPT and SQLITE_NOTADB (sqlite.org/rescode.html). */
const BUSY_RESULT = [5]
const DAMAGED_RESULTS = [11, 26]

/** node:sqlite has the extended result code as `errcode`. */
function isResult(error: unknown, results: readonly number[]): boolean {
  const { errcode } = (error ?? {}) as { readonly errcode?: unknown }
  return typeof errcode === 'number' && results.includes(errcode & 0xff)
}

function damageCure(path: string, cause: unknown): string | undefined {
  if (!isResult(cause, DAMAGED_RESULTS)) return undefined
  return `the file is damaged: stop each weftd that uses it, move ${path}, ${path}-wal and ${path}-shm away, and start them again with --net-config-path; each node takes the subnet of its subnet.env again, and pods keep their addresses`
}

const unusable = (path: string, cause: unknown): WeftError =>
  new WeftError(
    'STATE_UNWRITABLE',
    `the lease file ${path} cannot be used: ${reasonOf(cause)}`,
    damageCure(path, cause) ?? 'make it writable, or name another with --embedded-path',
    { cause }
  )

const unanswered = (path: string, cause: unknown): WeftError =>
  new WeftError(
    'STORE_UNREACHABLE',
    `the lease file ${path} does not answer: ${reasonOf(cause)}`,
    damageCure(path, cause) ?? `check the disk of ${path}: it may be full or failing`,
    { cause }
  )
