// flock(2) on a file, which Node lacks: what host-local processes and we take turns by. Never blocks a thread: tries, waits, tries again.
import { closeSync, constants, openSync, readFileSync, statSync } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import { WeftError } from '../base/error.ts'
import { ERRNO, errno, Library } from './foreign-function.ts'
import { type Process, processOf } from './process.ts'

/** <sys/file.h>; the same on every Linux. */
const LOCK_EX = 2
const LOCK_NB = 4
/** Milliseconds between two tries: a host-local call holds its lock for a fraction of the first. */
const WAIT = { first: 1, most: 20, deadline: 30_000 } as const

const cFlock = new Library().declare<(fd: number, operation: number) => number>('int flock(int fd, int operation)')

/**
 * Takes the exclusive lock on `path`, which is made with `mode` (0750, as host-local's) when it is missing; disposing of the answer gives it back. The kernel gives
 * it back too when the process ends in any way. Errors: what open(2) says; LOCK_HELD after half a minute.
 */
export async function flock(path: string, deadline: number = WAIT.deadline, mode = 0o750): Promise<Disposable> {
  const fd = openSync(path, constants.O_RDONLY | constants.O_CREAT, mode)
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
    `see which one with "lslocks" or "fuser ${path}"; a host-local process that hangs may be ended`
  )

/** Who holds the lock on `path`, by proc_locks(5); `undefined` when nobody does, or a process that can't be seen from this pid namespace. */
export function lockHolder(path: string): Process | undefined {
  const { dev, ino } = statSync(path, { bigint: true })
  // Device numbers as glibc's makedev(3) packs them.
  const [major, minor] = [((dev >> 8n) & 0xfffn) | ((dev >> 32n) & ~0xfffn), (dev & 0xffn) | ((dev >> 12n) & ~0xffn)]
  const hex = (number: bigint) => number.toString(16).padStart(2, '0')
  const file = `${hex(major)}:${hex(minor)}:${ino}`
  for (const line of readFileSync('/proc/locks', 'utf8').split('\n')) {
    // "1: FLOCK  ADVISORY  WRITE 611 00:04:4026531840 0 EOF"; those that wait have an arrow behind the number.
    const [, kind, , , pid, where] = line.split(/\s+/)
    if (kind === 'FLOCK' && where === file) return processOf(Number(pid))
  }
  return undefined
}
