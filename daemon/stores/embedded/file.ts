// The SQLite file of the embedded store: its tables, the few statements on them, and word of what other processes write.
import { closeSync, type FSWatcher, openSync, watch } from 'node:fs'
import { basename, dirname } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { makeDirectory } from '../../../ipam/files.ts'
import { reasonOf, WeftError } from '../../base/error.ts'
import type { Log } from '../../base/log.ts'

export type Row = {
  readonly key: string
  readonly value: string
  readonly node: string | null
  /** Milliseconds since 1970 by the wall clock; null is a reservation. */
  readonly expires: number | null
  /** Grows with every write to the file. */
  readonly revision: number
}

/** Milliseconds a call waits for another process's transaction. All are tiny: some reads and a write. */
const BUSY = 5_000
/** Milliseconds between two looks at what others wrote, in case the notification stays away. */
const LOOK = 1_000
/** After a notification: milliseconds until the first further look, how much longer each pause is than the one before, and how many there are. */
const SOON = { first: 2, times: 5, looks: 3 } as const

const SCHEMA = `
  PRAGMA journal_mode = WAL;
  PRAGMA synchronous = FULL;
  CREATE TABLE IF NOT EXISTS lease (key TEXT PRIMARY KEY, value TEXT NOT NULL, node TEXT, expires INTEGER, revision INTEGER NOT NULL) STRICT;
  CREATE TABLE IF NOT EXISTS config (one INTEGER PRIMARY KEY CHECK (one = 1), text TEXT NOT NULL) STRICT;
`

export class EmbeddedFile implements Disposable {
  readonly path: string
  readonly #database: DatabaseSync
  readonly #changed: () => void
  readonly #look: NodeJS.Timeout
  readonly #watcher: FSWatcher | undefined
  #soon: NodeJS.Timeout | undefined
  #version: number

  /** Creates what is missing, for root only. `changed` is called soon after any process's write. Errors: STATE_UNWRITABLE. */
  constructor(path: string, changed: () => void, log: Log) {
    this.path = path
    this.#changed = changed
    this.#database = open(path)
    this.#version = this.#dataVersion()
    this.#look = setInterval(() => this.#lookNow(), LOOK)
    this.#watcher = this.#watch(log)
  }

  /** Runs at once or not at all, alone among all processes. Errors: STORE_UNREACHABLE. */
  transaction<T>(run: () => T): T {
    try {
      this.#database.exec('BEGIN IMMEDIATE')
      try {
        const result = run()
        this.#database.exec('COMMIT')
        return result
      } catch (error) {
        // On some errors (disk full, I/O) SQLite has rolled back by itself, and refuses to do it again: what went wrong first is what counts.
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
      // The next BEGIN tells.
    }
  }

  /** The configuration, if there is one. Errors: STORE_UNREACHABLE. */
  config(): string | undefined {
    const row = this.#ask(() => this.#database.prepare('SELECT text FROM config').get())
    return row === undefined ? undefined : String(row.text)
  }

  /** Writes the configuration; false when it was the same already. */
  configure(text: string): boolean {
    const sql = `INSERT INTO config (one, text) VALUES (1, ?)
      ON CONFLICT (one) DO UPDATE SET text = excluded.text WHERE text IS NOT excluded.text`
    const { changes } = this.#ask(() => this.#database.prepare(sql).run(text))
    if (changes === 0) return false
    queueMicrotask(this.#changed)
    return true
  }

  rows(): readonly Row[] {
    // The table is STRICT and ours: its rows have these types.
    return this.#ask(() =>
      this.#database.prepare('SELECT key, value, node, expires, revision FROM lease ORDER BY key').all()
    ) as Row[]
  }

  put(row: Omit<Row, 'revision'>): void {
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

  #lookNow(): void {
    let version = this.#version
    try {
      version = this.#dataVersion()
    } catch {
      // Locked or unreadable for now; whoever needs the file is told by its own call.
      return
    }
    if (version === this.#version) return
    this.#version = version
    this.#changed()
  }

  /** Looks now and, since a commit counts only when its mark has been written to shared memory, which tells nobody, a little later too. */
  #lookSoon(): void {
    this.#lookNow()
    if (this.#soon !== undefined) return
    this.#soon = setTimeout(() => this.#lookAgain(SOON.looks - 1, SOON.first * SOON.times), SOON.first)
  }

  #lookAgain(left: number, pause: number): void {
    this.#lookNow()
    this.#soon = left > 0 ? setTimeout(() => this.#lookAgain(left - 1, pause * SOON.times), pause) : undefined
  }

  /** Every commit writes to the -wal file beside ours; inotify tells across mount namespaces, for it goes by inode. */
  #watch(log: Log): FSWatcher | undefined {
    try {
      const watcher = watch(dirname(this.path), (_, file) => {
        if (file === null || file.startsWith(basename(this.path))) this.#lookSoon()
      })
      watcher.on('error', (error) =>
        log.warn(
          { path: this.path, reason: reasonOf(error) },
          'the lease file is no longer watched, only looked at every second'
        )
      )
      return watcher
    } catch (error) {
      log.warn(
        { path: this.path, reason: reasonOf(error) },
        'the lease file can not be watched, only looked at every second'
      )
      return undefined
    }
  }

  [Symbol.dispose](): void {
    clearInterval(this.#look)
    clearTimeout(this.#soon)
    this.#watcher?.close()
    this.#database.close()
  }
}

function open(path: string): DatabaseSync {
  try {
    makeDirectory(dirname(path), 0o700)
    // SQLite gives its -wal and -shm files the mode of the file, and makes the file itself readable by all.
    closeSync(openSync(path, 'a', 0o600))
    const database = new DatabaseSync(path, { timeout: BUSY })
    database.exec(SCHEMA)
    return database
  } catch (cause) {
    throw unusable(path, cause)
  }
}

const unusable = (path: string, cause: unknown): WeftError =>
  new WeftError(
    'STATE_UNWRITABLE',
    `the lease file ${path} can not be used: ${reasonOf(cause)}`,
    'make it writable, or name another with --embedded-path',
    { cause }
  )

const unanswered = (path: string, cause: unknown): WeftError =>
  new WeftError(
    'STORE_UNREACHABLE',
    `the lease file ${path} does not answer: ${reasonOf(cause)}`,
    'look for a full or failing disk',
    { cause }
  )
