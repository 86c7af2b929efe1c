// Reads files that others name or may have replaced: regular files only, opened without blocking, of bounded size, and,
// where the path is a caller's, in the thread pool with a deadline. Every file that weftd opens is read here, apart
// from the kernel's own below /proc/self and /proc/sys (test/unit/ipam/read-file.test.ts lists them).
import { closeSync, constants, fstatSync, openSync, readSync, type Stats, statSync } from 'node:fs'
import { open, stat } from 'node:fs/promises'
import { dirname } from 'node:path'

/** Bytes: of resolv.conf, subnet.env, reservations and other files of a few lines. */
export const SMALL_FILE = 64 << 10
/** Bytes: of what weftd itself wrote, a configuration, certificates. */
export const LARGE_FILE = 4 << 20

/**
 * Milliseconds that a file system has to answer; directories that may be read at once: daemon/main.ts makes libuv's
 * pool large enough.
 */
const DEADLINE = 5_000
const MOST_RUNNING = 3

/**
 * O_NONBLOCK: a FIFO that replaced the file after stat(2) must not stop us; files such as /proc/kmsg then give EAGAIN.
 * O_NOCTTY: a terminal does not become ours.
 */
const READ = constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY

/** With the code of a system error, so that callers handle it like one. */
const refused = (code: string, path: string, why: string): Error =>
  Object.assign(new Error(`${code}: ${why}, open '${path}'`), { code, path })

/**
 * Errors that stay until somebody corrects the file or its path. Others pass, or may: no descriptors or memory left, a
 * file system that does not answer, and ENOENT where a program is yet to write the file.
 */
const FOR_GOOD: ReadonlySet<unknown> = new Set([
  ...['EISDIR', 'EINVAL', 'EFBIG', 'ENXIO', 'ENOTDIR', 'ELOOP', 'ENAMETOOLONG', 'EACCES', 'EPERM']
])
export const isForGood = (error: unknown): boolean =>
  error instanceof Error && 'code' in error && FOR_GOOD.has(error.code)

/** What stat(2) finds must be read or refused before open(2), which has effects on devices (a watchdog, a tape). */
function check(path: string, about: Stats, most: number): void {
  if (about.isDirectory()) throw refused('EISDIR', path, 'it is a directory')
  if (!about.isFile()) throw refused('EINVAL', path, `it is ${kindOf(about)}, not a regular file`)
  if (about.size > most) throw tooLarge(path, most, `${about.size} bytes`)
}

const tooLarge = (path: string, most: number, size: string): Error =>
  refused('EFBIG', path, `it has ${size}, and at most ${most} are read`)

function kindOf(about: Stats): string {
  if (about.isFIFO()) return 'a FIFO'
  if (about.isSocket()) return 'a socket'
  return about.isBlockDevice() || about.isCharacterDevice() ? 'a device' : 'a special file'
}

/**
 * The content of a regular file of at most `most` bytes. Errors: those of open(2) and read(2); EISDIR, EINVAL for what
 * is no regular file, EFBIG for a larger one, each with the path.
 */
export function readFile(path: string, most = SMALL_FILE): Buffer {
  check(path, statSync(path), most)
  const fd = openSync(path, READ)
  try {
    const about = fstatSync(fd)
    check(path, about, most)
    const into = chunks(path, most, about.size)
    while (into.add(readSync(fd, into.next()))) {}
    return into.whole()
  } finally {
    closeSync(fd)
  }
}

/** The same in the thread pool. */
async function readInPool(path: string, most: number): Promise<Buffer> {
  check(path, await stat(path), most)
  await using file = await open(path, READ)
  const about = await file.stat()
  check(path, about, most)
  const into = chunks(path, most, about.size)
  while (into.add((await file.read(into.next())).bytesRead)) {}
  return into.whole()
}

/** Collects what read(2) returns: the size is not trusted, since files of /proc have none and others may grow. */
function chunks(path: string, most: number, size: number) {
  const parts: Buffer[] = []
  let total = 0
  let chunk = Buffer.alloc(0)
  return {
    next: (): Buffer => {
      chunk = Buffer.allocUnsafe(Math.min(SMALL_FILE, most - total + 1))
      return chunk
    },
    /** False at the end of the file; a file that has a size is read to its end when less comes than there is room. */
    add: (bytes: number): boolean => {
      total += bytes
      if (total > most) throw tooLarge(path, most, 'more')
      parts.push(chunk.subarray(0, bytes))
      return bytes > 0 && (size === 0 || bytes === chunk.length)
    },
    whole: (): Buffer => Buffer.concat(parts)
  }
}

/**
 * Reads files whose path a caller chose, which may be on a file system that does not answer (NFS, FUSE). Such a read
 * occupies a thread until the file system answers. So each directory has one at a time; while one does not answer, the
 * others of its directory are refused at once, and those of other directories go on, as long as few are stuck.
 */
export class FileReader {
  readonly #deadline: number
  /** By directory; `isStuck` when the read itself has taken as long as the deadline. */
  readonly #running = new Map<string, { isStuck: boolean }>()
  readonly #waiting = new Set<{ readonly directory: string; readonly begin: () => void }>()

  /** `deadline` in milliseconds differs in tests only. */
  constructor(deadline: number = DEADLINE) {
    this.#deadline = deadline
  }

  /** The text of a file. Errors: as readFile(), and ETIMEDOUT. */
  async text(path: string, most = SMALL_FILE): Promise<string> {
    return (await this.within(path, () => readInPool(path, most))).toString()
  }

  /** Resolves once the file system of `path` answers; whether anything is there does not matter. Errors: ETIMEDOUT. */
  async answers(path: string): Promise<void> {
    await this.within(path, () =>
      stat(path).then(
        () => undefined,
        () => undefined
      )
    )
  }

  /** Runs `work` on `path` when its directory's turn comes. Errors: those of `work`; ETIMEDOUT, waiting included. */
  async within<T>(path: string, work: () => Promise<T>): Promise<T> {
    const directory = dirname(path)
    const late = refused('ETIMEDOUT', path, `its file system has not answered for ${this.#deadline / 1000} s`)
    if (this.#running.get(directory)?.isStuck) throw late
    const behindOthers = refused('ETIMEDOUT', path, `${MOST_RUNNING} reads on other file systems do not answer`)
    const { promise, reject, resolve } = Promise.withResolvers<T>()
    const begin = () => {
      this.#waiting.delete(call)
      const running = { isStuck: false }
      this.#running.set(directory, running)
      const timer = setTimeout(() => {
        running.isStuck = true
      }, this.#deadline)
      void work()
        .then(resolve, reject)
        .finally(() => {
          clearTimeout(timer)
          this.#running.delete(directory)
          this.#next()
        })
    }
    const call = { directory, begin }
    const timer = setTimeout(() => {
      this.#waiting.delete(call)
      reject(this.#running.has(directory) ? late : behindOthers)
    }, this.#deadline)
    this.#waiting.add(call)
    this.#next()
    try {
      return await promise
    } finally {
      clearTimeout(timer)
    }
  }

  #next(): void {
    for (const { directory, begin } of this.#waiting)
      if (this.#running.size < MOST_RUNNING && !this.#running.has(directory)) begin()
  }
}

/** Milliseconds for which a file system that has answered is not asked again: a burst of calls asks once. */
const ANSWERED = 1_000

/** Asks whether the file system of one path answers, before synchronous work on it. */
export class Probe {
  readonly #path: string
  readonly #ask: ((path: string) => Promise<void>) | undefined
  #answeredAt = Number.NEGATIVE_INFINITY
  #asking: Promise<void> | undefined

  /** `ask` is FileReader's `answers`; without it nothing is asked. */
  constructor(path: string, ask: ((path: string) => Promise<void>) | undefined) {
    this.#path = path
    this.#ask = ask
  }

  /** Errors: those of `ask`. */
  async answers(): Promise<void> {
    if (this.#ask === undefined || performance.now() - this.#answeredAt < ANSWERED) return
    this.#asking ??= this.#ask(this.#path).finally(() => {
      this.#asking = undefined
    })
    await this.#asking
    this.#answeredAt = performance.now()
  }
}
