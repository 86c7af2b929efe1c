// The pods of this node on a file beside the socket: what a restarted weftd can't read off the kernel any more, when a namespace went while none ran.
import { rmSync } from 'node:fs'
import { contentOf } from '../../../ipam/files.ts'
import { entries, type Field, FieldError, member, required, text } from '../../../plugins/cni/field.ts'
import { reasonOf } from '../../base/error.ts'
import type { Log } from '../../base/log.ts'
import { replaceFile } from '../../base/replace-file.ts'
import type { Attachments, PodNote } from '../attachments.ts'

/** Milliseconds for which changes are collected. A pod that came and vanished within them, with the daemon, keeps its address until its DEL. */
const COLLECTED = 2_000

/** What the last weftd noted; nothing (and a warning) when that can't be understood. */
export function readPodsFile(path: string, log: Log): readonly PodNote[] {
  try {
    const written = contentOf(path)
    return written === undefined ? [] : entries({ path, value: JSON.parse(written) as unknown }).map(note)
  } catch (error) {
    if (!(error instanceof FieldError || error instanceof SyntaxError || (error instanceof Error && 'code' in error)))
      throw error
    log.warn({ path, reason: reasonOf(error) }, 'the notes of the last weftd on its pods are of no use')
    return []
  }
}

function note(field: Field): PodNote {
  const given = (key: string) => required(text(member(field, key)), member(field, key), 'a string')
  const dataDir = text(member(field, 'dataDir'))
  const [network, containerId, ifname, because] = ['network', 'containerId', 'ifname', 'because'].map(given)
  return {
    ...{ network: network ?? '', containerId: containerId ?? '', ifname: ifname ?? '', because: because ?? '' },
    ...(dataDir !== undefined && { dataDir })
  }
}

/** Keeps the file as the attachments are, without pods none, from the next change on and once more when disposed of. */
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
      // A weftd that leaves the node leaves no file behind.
      if (notes.length === 0) rmSync(path, { force: true })
      else replaceFile(path, Buffer.from(`${JSON.stringify(notes)}\n`), 0o600)
    } catch (error) {
      log.warn({ path, reason: reasonOf(error) }, 'the notes on pods can not be written')
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
