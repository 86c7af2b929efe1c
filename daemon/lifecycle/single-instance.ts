// One weftd for a network namespace and one for a state directory: two would undo each other. Locks of the kernel's, so that no end of a process leaves one.
import { join } from 'node:path'
import { makeDirectory } from '../../ipam/files.ts'
import { reasonOf, WeftError } from '../base/error.ts'
import type { Log } from '../base/log.ts'
import { flock, lockHolder } from '../os/flock.ts'

/** Milliseconds that a daemon which is being replaced may take to end. */
const TAKE_OVER = 5_000
/** This process's network namespace is a file too (namespaces(7)), the same one for all that are in it, whatever they see of the file system. */
const NETWORK = '/proc/self/ns/net'

/** Held until it is disposed of, or this process ends in whatever way. Errors: DAEMON_RUNNING with the other's pid, STATE_UNWRITABLE. */
export async function lockSingleInstance(directory: string, log: Log): Promise<Disposable> {
  const path = join(directory, 'weftd.lock')
  using parts = new DisposableStack()
  parts.use(await lockNetwork(log))
  try {
    makeDirectory(directory, 0o700)
    parts.use(await flock(path, TAKE_OVER, 0o600))
  } catch (cause) {
    if (cause instanceof WeftError)
      throw running(
        path,
        `with ${directory}`,
        'a directory of its own (--state-dir) is for a weftd in another network namespace'
      )
    const cure =
      process.getuid?.() === 0 ? 'make the directory writable, or choose another with --state-dir' : 'run weftd as root'
    throw new WeftError('STATE_UNWRITABLE', `${path} can not be locked: ${reasonOf(cause)}`, cure, { cause })
  }
  return parts.move()
}

/** Any process in the namespace can hold this lock: one without our rights is no weftd, and must not keep us from serving. */
async function lockNetwork(log: Log): Promise<Disposable | undefined> {
  try {
    return await flock(NETWORK, TAKE_OVER)
  } catch (error) {
    if (!(error instanceof WeftError)) throw error
    const holder = lockHolder(NETWORK)
    if (holder === undefined || holder.uid === process.geteuid?.())
      throw running(
        NETWORK,
        'in this network namespace',
        'two would undo each other, whatever their --state-dir; a network namespace of its own may have one'
      )
    log.warn(
      { holder },
      "another user's process holds the lock by which two weftds would find each other; going on without it"
    )
    return undefined
  }
}

function running(path: string, where: string, why: string): WeftError {
  const holder = lockHolder(path)
  const who = holder === undefined ? 'its process can not be seen from here' : `${holder.name}, pid ${holder.pid}`
  return new WeftError('DAEMON_RUNNING', `another weftd runs ${where} (${who})`, `stop it first; ${why}`)
}
