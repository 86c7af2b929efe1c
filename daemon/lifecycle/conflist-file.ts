// Keeps 10-weft.conflist where the runtime reads it: there once pods can be served, put back when it goes, left alone by a restart.
import { existsSync, type FSWatcher, readdirSync, watch } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { contentOf, ifThere, makeDirectory } from '../../ipam/files.ts'
import { Backoff } from '../base/backoff.ts'
import { reasonOf, WeftError } from '../base/error.ts'
import type { Log } from '../base/log.ts'
import { removeFile, replaceFile } from '../base/replace-file.ts'
import { Wakeup } from '../base/wakeup.ts'
import type { Health } from '../health/health.ts'
import { CONFLIST_NAME, checkedConflist, DEFAULT_CONFLIST, takenBefore } from './conflist.ts'

export type ConflistDeps = {
  /** Where the runtime looks. */
  readonly directory: string
  /** File with the content; the default list without one. */
  readonly source?: string | undefined
  readonly health: Pick<Health, 'blocking' | 'raise' | 'clear'>
  readonly log: Log
  /** Milliseconds between two looks without a reason, the net behind the notifications. */
  readonly checkMs?: number
  /** Pauses for when somebody keeps changing the file. */
  readonly backoff?: Pick<Backoff, 'pause' | 'reset'>
}

/** Milliseconds between two looks whether pods can be served, for which changes of the directories are collected, and between two looks without a reason. */
const ASK = 100
const SETTLE = 20
const CHECK = 30_000
/** Milliseconds without a foreign change after which the next is answered at once again. */
const CALM = 60_000

/**
 * Writes the list once nothing keeps pods from being served, and keeps it there until the signal. It stays when weftd ends: its successor finds it, and a pod
 * that comes meanwhile is told to try again. Never rejects but by the signal: what goes wrong is a condition.
 */
export async function keepConflist(deps: ConflistDeps, signal: AbortSignal): Promise<void> {
  while (deps.health.blocking('add') !== undefined) await sleep(ASK, undefined, { signal })
  using kept = new Conflist(deps)
  const { backoff = new Backoff() } = deps
  let foughtAt = Number.NEGATIVE_INFINITY
  while (!signal.aborted) {
    const changed = kept.directoryChanged.next(signal, AbortSignal.timeout(deps.checkMs ?? CHECK))
    if (kept.look()) {
      // Two that want different things would write and log for ever, as fast as the disk allows.
      if (performance.now() - foughtAt > CALM) backoff.reset()
      foughtAt = performance.now()
      await backoff.pause(signal)
    }
    await changed
    await sleep(SETTLE, undefined, { signal })
  }
}

/** Takes our list away, half-written ones too; its path, if it was there. Errors: what unlink(2) says, but that it is gone already. */
export function removeConflist(directory: string): string | undefined {
  const path = join(directory, CONFLIST_NAME)
  return removeFile(path) ? path : undefined
}

class Conflist implements Disposable {
  /** One of the directories has changed. */
  readonly directoryChanged = new Wakeup()
  readonly #deps: ConflistDeps
  readonly #watchers = new Map<string, FSWatcher>()
  /** What we wrote, or found to be so. */
  #written: string | undefined

  constructor(deps: ConflistDeps) {
    this.#deps = deps
  }

  /** Puts right what is wrong; true when somebody had changed what we wrote. */
  look(): boolean {
    const { directory, source } = this.#deps
    if (source !== undefined) this.#watch(dirname(source))
    const wanted = this.#wanted()
    const wasChanged = wanted !== undefined && this.#put(wanted)
    this.#watch(directory)
    this.#tellOthers()
    return wasChanged
  }

  #tellOthers(): void {
    const { directory, health } = this.#deps
    let names: readonly string[] = []
    try {
      names = ifThere(directory, (path) => readdirSync(path)) ?? []
    } catch {
      // What can not be read could not be written either, and that is told.
    }
    const before = takenBefore(names)
    if (before.length === 0) health.clear('CNI_CONF_SHADOWED')
    else health.raise('CNI_CONF_SHADOWED', before.map((name) => join(directory, name)).join(', '))
  }

  /** `undefined`: the source is not valid, and what was written before stays. */
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

  #put(wanted: string): boolean {
    const { directory, health, log } = this.#deps
    const path = join(directory, CONFLIST_NAME)
    try {
      const found = readable(path)
      const wasChanged = this.#written !== undefined && found !== this.#written
      if (found !== wanted) {
        // A runtime that is not installed yet may lack it; where the flag is misspelled, the line tells.
        if (!existsSync(directory)) {
          makeDirectory(directory, 0o755)
          log.info({ directory }, 'made the directory of --cni-conf-dir, which did not exist')
        }
        replaceFile(path, Buffer.from(wanted), 0o644)
        if (wasChanged && found === undefined)
          log.warn({ path }, 'put back the CNI configuration list, which somebody had removed')
        else
          log.info(
            { path, before: found === undefined ? 'none' : 'another' },
            'wrote the CNI configuration list: the runtime can hand us pods'
          )
      }
      this.#written = wanted
      health.clear('CNI_CONF_UNWRITABLE')
      return wasChanged
    } catch (error) {
      health.raise('CNI_CONF_UNWRITABLE', `${path}: ${reasonOf(error)}`)
      return false
    }
  }

  /** Notifications make it quick; where there are none (no inotify left), the slow check does it. A directory that was removed is watched anew. */
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
      // inotify(7) tells of the directory's own removal by its name.
      watcher.on('change', (kind, name) => {
        if (kind === 'rename' && name === basename(directory)) forget()
      })
      this.#watchers.set(directory, watcher)
    } catch (error) {
      this.#deps.log.debug({ directory, reason: reasonOf(error) }, 'a directory can not be watched')
    }
  }

  [Symbol.dispose](): void {
    for (const watcher of this.#watchers.values()) watcher.close()
  }
}

/** The text of the source, which somebody has named: without it another list than the one that is meant would be written. */
function sourceAt(path: string): string {
  const text = readable(path)
  if (text !== undefined) return text
  throw new WeftError(
    'CNI_CONF_INVALID',
    `--cni-conf-source ${path} does not exist`,
    'correct the path, or leave the flag out for the list that weftd has built in'
  )
}

/** The text of a file; `undefined` when there is none. */
function readable(path: string): string | undefined {
  try {
    return contentOf(path)
  } catch (cause) {
    throw new WeftError(
      'FILE_UNREADABLE',
      `${path} can not be read: ${reasonOf(cause)}`,
      'make it readable for weftd',
      { cause }
    )
  }
}
