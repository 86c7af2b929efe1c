// Maintains 10-weft.conflist in the runtime's directory: written once pods can be served, restored when deleted or
// replaced, kept when weftd restarts. What others add behind our plugin stays.
import { existsSync, type FSWatcher, readdirSync, watch } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { contentOf, ifThere, makeDirectory, regularContentOf } from '../../ipam/files.ts'
import { Backoff } from '../base/backoff.ts'
import { reasonOf, WeftError } from '../base/error.ts'
import type { Log } from '../base/log.ts'
import { removeFile, replaceFile } from '../base/replace-file.ts'
import { Wakeup } from '../base/wakeup.ts'
import type { Health } from '../health/health.ts'
import {
  CONFLIST_NAME,
  checkedConflist,
  DEFAULT_CONFLIST,
  delegatesToUs,
  firstType,
  networkOf,
  sharedConflist,
  takenBefore
} from './conflist.ts'

export type ConflistDeps = {
  /** Where the runtime reads its configuration. */
  readonly directory: string
  /** File with the content; without it the default list is written. */
  readonly source?: string | undefined
  /** Where our part of the list is remembered, so that the next weftd can tell it from what others have added. */
  readonly record: string
  /** While this file exists, the list is not written, and removed. */
  readonly handedBack?: string
  readonly health: Pick<Health, 'blocking' | 'raise' | 'clear'>
  readonly log: Log
  /** Milliseconds between two checks without a notification. */
  readonly checkMs?: number
  /** Backoff when another program keeps changing the file. */
  readonly backoff?: Pick<Backoff, 'pause' | 'reset'>
}

/**
 * Milliseconds between two checks whether pods can be served; for which changes of the directories are collected;
 * between two checks without a notification.
 */
const POLL = 100
const SETTLE = 20
const CHECK = 30_000
/** When no other program has changed the file for this many milliseconds, the backoff is reset. */
const CALM = 60_000
/** So many restorations without such a pause in between are a condition. */
const CONTESTED = 3
/** Bytes; a larger file is no configuration that a runtime could use. */
const LARGEST = 1 << 20

/** Where `record` is, in the state directory. */
export const conflistRecord = (stateDir: string): string => join(stateDir, CONFLIST_NAME)

/** While this file is there, flannel's own list is used again: `weftctl migrate rollback` makes it. */
export const handedBackMark = (stateDir: string): string => join(stateDir, 'handed-back')

/**
 * Writes the list once no condition blocks ADD, and maintains it until the signal. It stays when weftd ends: until its
 * successor is ready, ADD fails with "try again". Rejects only with the signal: failures are conditions.
 */
export async function keepConflist(deps: ConflistDeps, signal: AbortSignal): Promise<void> {
  while (deps.health.blocking('add') !== undefined) await sleep(POLL, undefined, { signal })
  using kept = new Conflist(deps)
  const { backoff = new Backoff(), health } = deps
  let lastRestoredAt = Number.NEGATIVE_INFINITY
  let restorations = 0
  while (!signal.aborted) {
    const changed = kept.directoryChanged.next(signal, AbortSignal.timeout(deps.checkMs ?? CHECK))
    const undone = kept.check()
    const isCalm = performance.now() - lastRestoredAt > CALM
    if (isCalm) health.clear('CNI_CONF_CONTESTED')
    if (undone !== undefined) {
      if (isCalm) {
        restorations = 0
        backoff.reset()
      }
      // Two programs with different lists would otherwise write and log as fast as the disk allows.
      lastRestoredAt = performance.now()
      if (++restorations >= CONTESTED) health.raise('CNI_CONF_CONTESTED', undone)
      await backoff.pause(signal)
    }
    await changed
    await sleep(SETTLE, undefined, { signal })
  }
}

/** Deletes our list, also a partly written one; its path if it existed. Errors: of unlink(2), except ENOENT. */
export function removeConflist(directory: string, record?: string): string | undefined {
  const path = join(directory, CONFLIST_NAME)
  if (record !== undefined) removeFile(record)
  return removeFile(path) ? path : undefined
}

class Conflist implements Disposable {
  /** One of the directories has changed. */
  readonly directoryChanged = new Wakeup()
  readonly #deps: ConflistDeps
  readonly #watchers = new Map<string, FSWatcher>()
  /** Our part when a weftd last wrote the list. */
  #ours: string | undefined
  /** The content that we wrote or accepted. */
  #left: string | undefined
  /** Others' plugins in it, for a log line when they change. */
  #added = ''

  constructor(deps: ConflistDeps) {
    this.#deps = deps
    this.#ours = bounded(deps.record)
  }

  /** Writes the list if it differs; a sentence when another program had replaced or deleted it. */
  check(): string | undefined {
    const { directory, source, handedBack } = this.#deps
    if (handedBack !== undefined && existsSync(handedBack)) return this.#handBack(directory)
    if (source !== undefined) this.#watch(dirname(source))
    const wanted = this.#wanted()
    const undone = wanted === undefined ? undefined : this.#write(wanted)
    this.#watch(directory)
    this.#reportShadowing(networkOf(wanted ?? this.#ours ?? ''))
    return undone
  }

  #handBack(directory: string): undefined {
    const path = removeConflist(directory, this.#deps.record)
    if (path !== undefined) this.#deps.log.info({ path }, "removed: flannel's own list is used again")
    this.#left = undefined
    this.#watch(directory)
  }

  #reportShadowing(network: string): void {
    const { directory, health } = this.#deps
    let names: readonly string[] = []
    try {
      names = ifThere(directory, (path) => readdirSync(path)) ?? []
    } catch {
      // An unreadable directory could not be written either, which is a condition already.
    }
    // The runtime uses the first; what comes behind one that hands pods to us is used by nobody.
    const before = takenBefore(names)
    const isOurs = (name: string) => delegatesToUs(bounded(join(directory, name)) ?? '', network)
    if (before.length === 0 || isOurs(before[0] ?? '')) health.clear('CNI_CONF_SHADOWED')
    else {
      const paths = before.map((name) => join(directory, name)).join(', ')
      health.raise('CNI_CONF_SHADOWED', paths, `remove ${paths}, or rename to sort after ${CONFLIST_NAME}`)
    }
  }

  /** `undefined`: the source is not valid; the list stays as it is. */
  #wanted(): string | undefined {
    const { source, health } = this.#deps
    try {
      const wanted = source === undefined ? DEFAULT_CONFLIST : checkedConflist(sourceAt(source), source)
      health.clear('CNI_CONF_INVALID')
      return wanted
    } catch (error) {
      health.raise('CNI_CONF_INVALID', reasonOf(error), error instanceof WeftError ? error.cure : undefined)
      return undefined
    }
  }

  #write(wanted: string): string | undefined {
    const { directory, health, log } = this.#deps
    const path = join(directory, CONFLIST_NAME)
    try {
      const found = readable(path)
      const { text, added } = sharedConflist(wanted, found, this.#ours)
      const wasUndone = this.#left !== undefined && found !== this.#left && found !== text
      if (found !== text) {
        // Missing before the runtime is installed; the log line shows a misspelled flag.
        if (!existsSync(directory)) {
          makeDirectory(directory, 0o755)
          log.info({ directory }, 'created the directory of --cni-conf-dir')
        }
        replaceFile(path, Buffer.from(text), 0o644)
        this.#logWritten(path, found, wasUndone)
      }
      this.#logAdded(path, added)
      this.#left = text
      this.#remember(wanted)
      health.clear('CNI_CONF_UNWRITABLE')
      return wasUndone ? `${path} was ${found === undefined ? 'deleted' : replacedBy(found)}` : undefined
    } catch (error) {
      health.raise(
        'CNI_CONF_UNWRITABLE',
        `${path}: ${reasonOf(error)}`,
        `make ${directory} writable for weftd, or set --cni-conf-dir to the directory that the runtime reads`
      )
      return undefined
    }
  }

  #logWritten(path: string, found: string | undefined, wasUndone: boolean): void {
    const { log } = this.#deps
    if (wasUndone && found === undefined)
      log.warn({ path }, 'restored the CNI configuration list, which another program had deleted')
    else if (wasUndone && found !== undefined)
      log.warn(
        { path, found: firstType(found) },
        'restored the CNI configuration list, which another program had replaced'
      )
    else
      log.info(
        { path, before: found === undefined ? 'none' : 'another' },
        'wrote the CNI configuration list: the runtime can use Weft'
      )
  }

  #logAdded(path: string, added: readonly string[]): void {
    if (added.join() === this.#added) return
    this.#added = added.join()
    if (added.length > 0)
      this.#deps.log.info({ path, plugins: added }, "other programs' plugins in our list stay in it")
  }

  /**
   * Without the record, a plugin that leaves --cni-conf-source while no weftd runs would count as another program's.
   */
  #remember(wanted: string): void {
    if (this.#ours === wanted) return
    this.#ours = wanted
    const { record, log } = this.#deps
    try {
      replaceFile(record, Buffer.from(wanted), 0o600)
    } catch (error) {
      log.debug({ record, reason: reasonOf(error) }, 'the record of the CNI configuration list cannot be written')
    }
  }

  /**
   * Without inotify watches left, only the periodic check remains. A directory that was deleted is watched again once
   * it exists.
   */
  #watch(directory: string): void {
    if (this.#watchers.has(directory)) return
    try {
      const watcher = watch(directory, { persistent: false }, () => this.directoryChanged.notify())
      const forget = () => {
        watcher.close()
        this.#watchers.delete(directory)
        this.directoryChanged.notify()
      }
      watcher.on('error', forget)
      // inotify(7) reports the deletion of the directory itself with its name.
      watcher.on('change', (kind, name) => {
        if (kind === 'rename' && name === basename(directory)) forget()
      })
      this.#watchers.set(directory, watcher)
    } catch (error) {
      this.#deps.log.debug({ directory, reason: reasonOf(error) }, 'a directory cannot be watched')
    }
  }

  [Symbol.dispose](): void {
    for (const watcher of this.#watchers.values()) watcher.close()
  }
}

/** The text of --cni-conf-source. A missing file is an error: the default would not be what the administrator wants. */
function sourceAt(path: string): string {
  const text = readable(path)
  if (text !== undefined) return text
  throw new WeftError(
    'CNI_CONF_INVALID',
    `--cni-conf-source ${path} does not exist`,
    'correct --cni-conf-source, or leave it out to use the built-in list'
  )
}

/** The text of a file; `undefined` when it does not exist. */
function readable(path: string): string | undefined {
  try {
    return contentOf(path)
  } catch (cause) {
    throw new WeftError(
      'FILE_UNREADABLE',
      `${path} cannot be read: ${reasonOf(cause)}`,
      `make ${path} readable for weftd`,
      { cause }
    )
  }
}

const replacedBy = (found: string): string => {
  const type = firstType(found)
  return type === '' ? 'replaced by what is no list' : `replaced by a list that begins with "${type}"`
}

/** The text of another program's small file; `undefined` for anything else, such as a FIFO. */
function bounded(path: string): string | undefined {
  try {
    return regularContentOf(path, LARGEST)
  } catch {
    return undefined
  }
}
