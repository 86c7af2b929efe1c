// flock(2), which Node lacks: serialises weftd and host-local processes. Never blocks a thread: tries again after a
// pause.
import { closeSync, constants, openSync, readFileSync, statSync } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import { WeftError } from '../base/error.ts'
import { ERRNO, errno, Library } from './foreign-function.ts'
import { type Process, processOf } from './process.ts'

/** <sys/file.h>; the same on every Linux. */
const LOCK_EX = 2
const LOCK_NB = 4
/** Milliseconds between two attempts: a host-local call holds its lock for a fraction of the first. */
const WAIT = { first: 1, most: 20, deadline: 30_000 } as const

const cFlock = new Library().declare<(fd: number, operation: number) => number>('int flock(int fd, int operation)')

/**
 * Takes the exclusive lock on `path`, which is created with `mode` (0750, as host-local's) if it does not exist;
 * disposing the result releases it, as does the end of the process. Errors: those of open(2); LOCK_HELD after half a
 * minute.
 */
export async function flock(path: string, deadline: number = WAIT.deadline, mode = 0o750): Promise<Disposable> {
  const fd = openSync(path, constants.O_RDONLY | constants.O_CREAT | constants.O_NONBLOCK, mode)
  try {
    let [waited, wait] = [0, WAIT.first as number]
    while (cFlock(fd, LOCK_EX | LOCK_NB) < 0) {
      const failure = errno()
      if (failure === ERRNO.EINTR) continue
      if (failure !== ERRNO.EAGAIN) throw new Error(`flock ${path}: errno ${failure}`)
      if (waited >= deadline) throw held(path, deadline)
      await pause(wait)
      waited += wait
      wait = Math.min(wait * 2, WAIT.most)
    }
  } catch (error) {
    closeSync(fd)
    throw error
  }
  return { [Symbol.dispose]: () => closeSync(fd) }
}

const held = (path: string, deadline: number): WeftError =>
  new WeftError(
    'LOCK_HELD',
    `the lock ${path} has been held by another process for ${deadline / 1000} s`,
    `find the process with "fuser ${path}", and end it if it hangs`
  )

/**
 * The process that holds the lock on `path`, by proc_locks(5); `undefined` when none does, or one of another pid
 * namespace.
 */
export function lockHolder(path: string): Process | undefined {
  const { dev, ino } = statSync(path, { bigint: true })
  // Device numbers as glibc's makedev(3) packs them.
  const [major, minor] = [((dev >> 8n) & 0xfffn) | ((dev >> 32n) & ~0xfffn), (dev & 0xffn) | ((dev >> 12n) & ~0xffn)]
  const hex = (number: bigint) => number.toString(16).padStart(2, '0')
  const file = `${hex(major)}:${hex(minor)}:${ino}`
  for (const line of readFileSync('/proc/locks', 'utf8').split('\n')) {
    // "1: FLOCK  ADVISORY  WRITE 611 00:04:4026531840 0 EOF"; waiting ones have an arrow after the number.
    const [, kind, , , pid, where] = line.split(/\s+/)
    if (kind === 'FLOCK' && where === file) return processOf(Number(pid))
  }
  return undefined
}
