// The files in which plugins keep what they must know again at DEL: flannel's configurations, tuning's old settings.
import { dirname } from 'node:path'
import { makeDirectory, rewrite } from '../../ipam/files.ts'
import type { FileReader } from '../../ipam/read-file.ts'
import { reasonOf, WeftError } from '../base/error.ts'

/** Requires that the file system of a path answers, before synchronous work there. Errors: STATE_UNWRITABLE. */
export async function requireAnswer(files: Pick<FileReader, 'answers'>, path: string): Promise<void> {
  try {
    await files.answers(path)
  } catch (cause) {
    throw new WeftError(
      'STATE_UNWRITABLE',
      `${path} can't be used: ${reasonOf(cause)}`,
      'bring back the server of the file system it is on (findmnt names it), or configure a directory on a local one',
      { cause }
    )
  }
}

/** Makes the directory, too; `sync`: it outlasts a crash of the host. Errors: STATE_UNWRITABLE. */
export function writeState(path: string, text: string, options: { readonly sync?: boolean } = {}): void {
  try {
    makeDirectory(dirname(path), 0o700)
    rewrite(path, text, options)
  } catch (cause) {
    throw new WeftError(
      'STATE_UNWRITABLE',
      `${path} can't be written: ${reasonOf(cause)}`,
      'free space, or make its directory writable',
      { cause }
    )
  }
}
