// The record of a move, and what it replaced, in one directory: written before anything is changed, and read by the
// next command, however the last one ended.
import { rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { contentOf, makeDirectory } from '../../ipam/files.ts'
import { LARGE_FILE, readFile } from '../../ipam/read-file.ts'
import { reasonOf, WeftError } from '../base/error.ts'
import { replaceFile } from '../base/replace-file.ts'
import type { MoveRecord } from './facts.ts'

/** Bytes: an executable of the reference plugins. */
const LARGEST_PLUGIN = 128 << 20

const recordPath = (directory: string): string => join(directory, 'record.json')
/** flannel's list, byte by byte; weftd takes its content from here. */
export const keptConflist = (directory: string): string => join(directory, 'cni-conf.json')
export const keptPlugin = (directory: string, name: string): string => join(directory, 'plugins', name)

/** `undefined`: nothing was moved. Errors: MIGRATE_FAILED for a record that can't be read. */
export function readRecord(directory: string): MoveRecord | undefined {
  const path = recordPath(directory)
  try {
    const text = contentOf(path, LARGE_FILE)
    if (text === undefined) return undefined
    const record = JSON.parse(text) as MoveRecord
    if (record.version !== 1 || typeof record.flanneld !== 'object') throw new Error('it is of another version')
    return record
  } catch (cause) {
    throw new WeftError(
      'MIGRATE_FAILED',
      `the record of a move, ${path}, cannot be used: ${reasonOf(cause)}`,
      'use the weftctl that began the move, or go back by hand (docs/migrate.md) and delete the directory',
      { cause }
    )
  }
}

/** For root only: flanneld's environment may have a password. */
export function writeRecord(directory: string, record: MoveRecord): void {
  makeDirectory(directory, 0o700)
  replaceFile(recordPath(directory), Buffer.from(`${JSON.stringify(record, null, 2)}\n`), 0o600)
}

export const removeRecord = (directory: string): void => rmSync(directory, { recursive: true, force: true })

/** Copies a file; what is kept already stays, since the file may have been replaced since. */
export function keep(from: string, to: string, most = LARGEST_PLUGIN): void {
  if (statSync(to, { throwIfNoEntry: false }) !== undefined) return
  makeDirectory(join(to, '..'), 0o700)
  replaceFile(to, readFile(from, most), statSync(from).mode & 0o7777)
}

/** The other way, with the mode of the original. */
export function restore(from: string, to: string): void {
  replaceFile(to, readFile(from, LARGEST_PLUGIN), statSync(from).mode & 0o7777)
}
