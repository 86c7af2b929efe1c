// Reads and writes small files: a missing one is no error, and a crash leaves no half-written one.
import { closeSync, constants, ftruncateSync, mkdirSync, openSync, readFileSync, writeSync } from 'node:fs'
import { dirname } from 'node:path'

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

/** The text of a file; `undefined` if there is none. Errors: as ifThere(). */
export const contentOf = (path: string): string | undefined => ifThere(path, (at) => readFileSync(at, 'utf8'))

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
 * Without truncating to zero first: ext4 takes that for a replacement that must survive a crash, and writes it to the
 * disk at close (auto_da_alloc), which takes longer than all the rest of a reservation. The worst that a crash in
 * between leaves is another address to start the search from.
 */
export function rewrite(path: string, text: string): void {
  const fd = openSync(path, constants.O_WRONLY | constants.O_CREAT, 0o600)
  try {
    ftruncateSync(fd, writeSync(fd, text))
  } finally {
    closeSync(fd)
  }
}

export const codeOf = (error: unknown): unknown => (error instanceof Error && 'code' in error ? error.code : undefined)
