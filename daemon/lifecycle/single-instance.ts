// Locks that allow one weftd per network namespace and per state directory: flocks and an abstract socket, which the
// kernel releases however the process ends.
import { once } from 'node:events'
import { chmodSync, statSync } from 'node:fs'
import { createServer } from 'node:net'
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
    closeToOthers(directory, log)
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
 * A directory that was there before, as the kubelet makes one for a hostPath: others must not replace our socket and
 * files. Errors: it is another user's; of chmod(2).
 */
function closeToOthers(directory: string, log: Log): void {
  const { mode, uid } = statSync(directory)
  if (uid !== process.geteuid?.()) throw new Error(`${directory} belongs to the user with id ${uid}`)
  if ((mode & 0o077) === 0) return
  chmodSync(directory, 0o700)
  const before = (mode & 0o7777).toString(8)
  log.info({ directory, before }, 'the state directory was open to other users, and is closed to them')
}

/** As main.ts names the process. */
const NAME = 'weftd'

/**
 * Any process in the namespace can take the lock of its file, and a child can inherit it; that must not prevent us from
 * starting for ever. Where the holder is no weftd, or not visible from here, the name decides.
 */
async function lockNetwork(log: Log): Promise<Disposable> {
  try {
    using parts = new DisposableStack()
    parts.use(await flock(NETWORK, TAKE_OVER))
    const name = parts.use(await takeName())
    if (name === undefined)
      log.warn({ name: `@${SOCKET}` }, "another program has the name of weftd's lock; continuing without it")
    return parts.move()
  } catch (error) {
    if (!(error instanceof WeftError)) throw error
    const holder = lockHolder(NETWORK)
    if (holder?.uid === process.geteuid?.() && holder?.name === NAME)
      throw running(
        NETWORK,
        'in this network namespace',
        'only one weftd can run per network namespace, even with a different --state-dir'
      )
    const name = await takeName()
    if (name === undefined) throw running(NETWORK, 'in this network namespace', `ss -xlp | grep @${SOCKET} names it`)
    log.warn(
      { holder: holder ?? 'a process that has ended or is not visible from here' },
      'a process that is no weftd holds the lock that prevents a second weftd in this network namespace; continuing without it'
    )
    return name
  }
}

/** A name that one process in a network namespace can have (unix(7), "abstract"); nobody connects to it. */
const SOCKET = 'weftd.lock'

/** `undefined`: another process has it. It is free when the process ends, and no child inherits it. */
async function takeName(): Promise<Disposable | undefined> {
  const server = createServer((socket) => void socket.destroy()).unref()
  try {
    server.listen({ path: `\0${SOCKET}` })
    await once(server, 'listening')
    return { [Symbol.dispose]: () => void server.close() }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error
    return undefined
  }
}

function running(path: string, where: string, why: string): WeftError {
  const holder = lockHolder(path)
  const who = holder === undefined ? 'its process is not visible from here' : `${holder.name}, pid ${holder.pid}`
  return new WeftError('DAEMON_RUNNING', `another weftd runs ${where} (${who})`, `stop it first; ${why}`)
}
