// pods.json beside the socket: what a restarted weftd can't read from the kernel after a namespace was deleted while
// none ran.
import { rmSync } from 'node:fs'
import { contentOf } from '../../../ipam/files.ts'
import { LARGE_FILE } from '../../../ipam/read-file.ts'
import { reasonOf } from '../../base/error.ts'
import type { Log } from '../../base/log.ts'
import { replaceFile } from '../../base/replace-file.ts'
import type { Attachments, PodNote } from '../attachments.ts'

/**
 * Milliseconds for which changes are collected. A pod that came and vanished within them, and the daemon too, keeps its
 * address until its DEL.
 */
const COLLECTED = 2_000

/** What the last weftd wrote; nothing (and a warning) when that can't be read. */
export function readPodsFile(path: string, log: Log): readonly PodNote[] {
  try {
    const written = contentOf(path, LARGE_FILE)
    const notes: unknown = written === undefined ? [] : JSON.parse(written)
    if (Array.isArray(notes) && notes.every(isNote)) return notes.map(withoutNull)
    log.warn({ path, reason: 'it is not a list of pods' }, UNREADABLE)
  } catch (error) {
    if (!(error instanceof SyntaxError || (error instanceof Error && 'code' in error))) throw error
    log.warn({ path, reason: reasonOf(error) }, UNREADABLE)
  }
  return []
}

const UNREADABLE = "the last weftd's file of pods can't be read: addresses of pods that went meanwhile stay reserved"

/** `null` counts as absent. */
type Written = Omit<PodNote, 'dataDir'> & { readonly dataDir?: string | null }

function isNote(value: unknown): value is Written {
  if (typeof value !== 'object' || value === null) return false
  const { network, containerId, ifname, because, dataDir } = value as Readonly<Record<string, unknown>>
  return [network, containerId, ifname, because, dataDir ?? ''].every((each) => typeof each === 'string')
}

const withoutNull = ({ dataDir, ...note }: Written): PodNote => ({ ...note, ...(dataDir != null && { dataDir }) })

/** Writes the file after each change, and a last time when disposed of. Without pods there is no file. */
export function keepPodsFile(path: string, attachments: Attachments, log: Log): Disposable {
  let timer: NodeJS.Timeout | undefined
  const write = () => {
    timer = undefined
    const notes = [...attachments.list(), ...attachments.vanished.values()].map(
      ({ network, containerId, ifname, because, dataDir }): PodNote => ({
        ...{ network, containerId, ifname, because },
        ...(dataDir !== undefined && { dataDir })
      })
    )
    try {
      if (notes.length === 0) rmSync(path, { force: true })
      else replaceFile(path, Buffer.from(`${JSON.stringify(notes)}\n`), 0o600)
    } catch (error) {
      log.warn({ path, reason: reasonOf(error) }, "the file of pods can't be written")
    }
  }
  attachments.onChanged = () => {
    timer ??= setTimeout(write, COLLECTED).unref()
  }
  return {
    [Symbol.dispose]() {
      clearTimeout(timer)
      write()
    }
  }
}
