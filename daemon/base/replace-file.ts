// Replaces a file atomically and durably: readers see the old content or the new one, even after a power failure.
import { closeSync, fchmodSync, fsyncSync, lstatSync, openSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'

/**
 * Hidden, and with an extension that no runtime reads as a configuration. The next writer overwrites what a killed one
 * left.
 */
const temporaryOf = (path: string): string => join(dirname(path), `.${basename(path)}.weft-new`)

/**
 * Deletes the file and what a killed writer left beside it; true when the file existed. Errors: of unlink(2), except
 * ENOENT.
 */
export function removeFile(path: string): boolean {
  const existed = lstatSync(path, { throwIfNoEntry: false }) !== undefined
  rmSync(path, { force: true })
  rmSync(temporaryOf(path), { force: true })
  return existed
}

/**
 * Writes a temporary file, syncs it and renames it to `path`. `mode` regardless of the umask. Errors: of the system
 * calls; `path` is then unchanged.
 */
export function replaceFile(path: string, content: Uint8Array, mode: number): void {
  const temporary = temporaryOf(path)
  try {
    // A new inode: never through a symbolic link that another program put there, never into a file that is being
    // executed.
    rmSync(temporary, { force: true })
    const file = openSync(temporary, 'wx', mode)
    try {
      writeFileSync(file, content)
      fchmodSync(file, mode)
      fsyncSync(file)
    } finally {
      closeSync(file)
    }
    renameSync(temporary, path)
  } catch (error) {
    rmSync(temporary, { force: true })
    throw error
  }
  syncDirectory(dirname(path))
}

/**
 * Makes the rename itself durable (fsync(2): "Calling fsync() does not necessarily ensure that the entry in the
 * directory … has also reached disk").
 */
function syncDirectory(path: string): void {
  const directory = openSync(path, 'r')
  try {
    fsyncSync(directory)
  } finally {
    closeSync(directory)
  }
}
