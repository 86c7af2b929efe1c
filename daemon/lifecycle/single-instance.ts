// Locks that allow one weftd per network namespace and per state directory. They are flocks, which the kernel releases
// however the process ends.
import { join } from 'node:path'
import { makeDirectory } from '../../ipam/files.ts'
import { reasonOf, WeftError } from '../base/error.ts'
import type { Log } from '../base/log.ts'
import { flock, lockHolder } from '../os/flock.ts'

/** Milliseconds to wait for a predecessor to end. */
const TAKE_OVER = 5_000
/**
 * The network namespace as a file (namespaces(7)): the same inode for all processes in it, whatever their mount
 * namespace.
 */
const NETWORK = '/proc/self/ns/net'

/** Held until disposed or the process ends. Errors: DAEMON_RUNNING with the other's pid, STATE_UNWRITABLE. */
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
        'only a weftd in another network namespace can run beside it, with another --state-dir'
      )
    const cure =
      process.getuid?.() === 0 ? 'make the directory writable, or choose another with --state-dir' : 'run weftd as root'
    throw new WeftError('STATE_UNWRITABLE', `${path} cannot be locked: ${reasonOf(cause)}`, cure, { cause })
  }
  return parts.move()
}

/**
 * Any process in the namespace can take this lock: one of another user is no weftd, and must not prevent us from
 * starting.
 */
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
        'only one weftd can run per network namespace, even with a different --state-dir'
      )
    log.warn(
      { holder },
      "another user's process holds the lock that prevents a second weftd in this network namespace; continuing without it"
    )
    return undefined
  }
}

function running(path: string, where: string, why: string): WeftError {
  const holder = lockHolder(path)
  const who = holder === undefined ? 'its process is not visible from here' : `${holder.name}, pid ${holder.pid}`
  return new WeftError('DAEMON_RUNNING', `another weftd runs ${where} (${who})`, `stop it first; ${why}`)
}
