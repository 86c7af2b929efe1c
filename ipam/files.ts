// Small files and their directories: read though they may be missing, which is no fault, and written so that a crash leaves none half made.
import { closeSync, constants, ftruncateSync, mkdirSync, openSync, readFileSync, writeSync } from 'node:fs'
import { dirname } from 'node:path'

/** What `read` makes of what is at `path`, or `undefined` where nothing is. Errors: all others of `read`, and each names the path. */
export function ifThere<T>(path: string, read: (path: string) => T): T | undefined {
  try {
    return read(path)
  } catch (cause) {
    const code = codeOf(cause)
    if (code === 'ENOENT') return undefined
    // Node says the path after a failed open(2), and not after a failed read(2).
    if (!(cause instanceof Error) || cause.message.includes(path)) throw cause
    throw Object.assign(new Error(`${cause.message} '${path}'`, { cause }), { code })
  }
}

/** The text of a file, or `undefined` where there is none. Errors: as ifThere. */
export const contentOf = (path: string): string | undefined => ifThere(path, (at) => readFileSync(at, 'utf8'))

/** With those above it. Not by mkdir's own `recursive`: in /proc, where ENOENT is the answer although all above is there, Node tries for ever (26.10). */
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
 * Not by truncating to nothing first: ext4 takes that for a replacement that must survive a crash and sends it to the disk at close (auto_da_alloc),
 * which takes longer than all the rest of a reservation. A crash in between leaves at worst another address to start the walk from.
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
