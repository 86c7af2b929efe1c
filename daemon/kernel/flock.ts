// flock(2) on a file, which Node lacks: what host-local processes and we take turns by. Never blocks a thread: tries, waits, tries again.
import { closeSync, constants, openSync } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import koffi from 'koffi'
import { WeftError } from '../error.ts'

/** <sys/file.h>; the same on every Linux. */
const LOCK_EX = 2
const LOCK_NB = 4
/** Milliseconds between two tries: a host-local call holds its lock for a fraction of the first. */
const WAIT = { first: 1, most: 20, deadline: 30_000 } as const

const { EINTR, EAGAIN } = koffi.os.errno
const cFlock = koffi.load(null).func('int flock(int fd, int operation)')

/**
 * Takes the exclusive lock on `path`, which is made (0750, as host-local's) when it is missing; disposing of the answer gives it back. The kernel gives
 * it back too when the process ends in any way. Errors: what open(2) says; LOCK_HELD after half a minute.
 */
export async function flock(path: string, deadline: number = WAIT.deadline): Promise<Disposable> {
  const fd = openSync(path, constants.O_RDONLY | constants.O_CREAT, 0o750)
  try {
    let [waited, wait] = [0, WAIT.first as number]
    while (cFlock(fd, LOCK_EX | LOCK_NB) < 0) {
      const errno = koffi.errno()
      if (errno === EINTR) continue
      if (errno !== EAGAIN) throw new Error(`flock ${path}: errno ${errno}`)
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
