// A file replaced whole: whoever reads or executes it meets the old one or the new one, also after a power cut.
import { closeSync, fchmodSync, fsyncSync, lstatSync, openSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'

/** Hidden, and with an ending that no runtime takes for a configuration; what a killed writer leaves is overwritten by the next. */
const halfOf = (path: string): string => join(dirname(path), `.${basename(path)}.weft-new`)

/** Takes the file away, and what a killed writer left beside it; true when it was there. Errors: what unlink(2) says, but that it is gone already. */
export function removeFile(path: string): boolean {
  const isThere = lstatSync(path, { throwIfNoEntry: false }) !== undefined
  rmSync(path, { force: true })
  rmSync(halfOf(path), { force: true })
  return isThere
}

/** Writes beside `path`, to the disk, then renames. `mode` as said, whatever the umask. Errors: what the system calls say; `path` is then as it was. */
export function replaceFile(path: string, content: Uint8Array, mode: number): void {
  const half = halfOf(path)
  try {
    // Not through a link that somebody put there, and not into a file that is being executed.
    rmSync(half, { force: true })
    const file = openSync(half, 'wx', mode)
    try {
      writeFileSync(file, content)
      fchmodSync(file, mode)
      fsyncSync(file)
    } finally {
      closeSync(file)
    }
    renameSync(half, path)
  } catch (error) {
    rmSync(half, { force: true })
    throw error
  }
  syncDirectory(dirname(path))
}

/** The name itself must survive a power cut, too (fsync(2), "Calling fsync() does not necessarily ensure …"). */
function syncDirectory(path: string): void {
  const directory = openSync(path, 'r')
  try {
    fsyncSync(directory)
  } finally {
    closeSync(directory)
  }
}
