// Reads and writes small files: a missing one is no error, and a crash leaves no half-written one.
import { closeSync, constants, fstatSync, fsyncSync, ftruncateSync, mkdirSync, openSync, writeSync } from 'node:fs'
import { dirname } from 'node:path'
import { readFile } from './read-file.ts'

/** Reads `path` with `read`; `undefined` if nothing is there. Errors: all others of `read`, each with the path. */
export function ifThere<T>(path: string, read: (path: string) => T): T | undefined {
  try {
    return read(path)
  } catch (cause) {
    const code = codeOf(cause)
    if (code === 'ENOENT') return undefined
    // Node names the path after a failed open(2), but not after a failed read(2).
    if (!(cause instanceof Error) || cause.message.includes(path)) throw cause
    throw Object.assign(new Error(`${cause.message} '${path}'`, { cause }), { code })
  }
}

/** The text of a regular file of at most `most` bytes; `undefined` if there is none. Errors: as readFile(). */
export const contentOf = (path: string, most?: number): string | undefined =>
  ifThere(path, (at) => readFile(at, most).toString())

/** The same; `undefined` also for a FIFO, a device, a directory or a larger file. */
export function regularContentOf(path: string, most: number): string | undefined {
  try {
    return contentOf(path, most)
  } catch (error) {
    if (!['EINVAL', 'EFBIG', 'EISDIR'].includes(String(codeOf(error)))) throw error
    return undefined
  }
}

/**
 * With its parents. Not by mkdir's own `recursive`: in /proc, which returns ENOENT although all parents exist, Node
 * retries forever (26.10).
 */
export function makeDirectory(path: string, mode: number, isSecond = false): void {
  try {
    mkdirSync(path, { mode })
  } catch (error) {
    if (codeOf(error) === 'EEXIST') return
    if (isSecond || codeOf(error) !== 'ENOENT') throw error
    makeDirectory(dirname(path), mode)
    makeDirectory(path, mode, true)
  }
}

export function write(path: string, text: string): void {
  const fd = openSync(path, 'wx', 0o600)
  try {
    writeSync(fd, text)
  } finally {
    closeSync(fd)
  }
}

/**
 * Overwrites a regular file, or makes it. O_NONBLOCK: of a FIFO with this name open(2) would wait for a reader. Without
 * truncating to zero first: ext4 takes that for a replacement that must survive a crash, and writes it to the disk at
 * close (auto_da_alloc), which takes longer than all the rest of a reservation. The worst that a crash in between
 * leaves is another address to start the search from. Errors: those of open(2) and write(2), each with the path; EINVAL
 * for what is no regular file.
 */
export function rewrite(path: string, text: string, { sync = false } = {}): void {
  const fd = openSync(path, constants.O_WRONLY | constants.O_CREAT | constants.O_NONBLOCK | constants.O_NOCTTY, 0o600)
  try {
    if (!fstatSync(fd).isFile())
      throw Object.assign(new Error(`EINVAL: it is not a regular file, open '${path}'`), { code: 'EINVAL', path })
    ftruncateSync(fd, writeSync(fd, text))
    if (sync) fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}

export const codeOf = (error: unknown): unknown => (error instanceof Error && 'code' in error ? error.code : undefined)
