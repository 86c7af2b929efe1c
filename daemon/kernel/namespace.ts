// Runs a synchronous function inside another network namespace. Nothing asynchronous may come between the two setns
// calls: the main thread would run the rest of the daemon in a pod.
import { closeSync, constants, fstatSync, openSync, readlinkSync } from 'node:fs'
import { reasonOf, WeftError } from '../base/error.ts'
import { CallFailed, isNetworkNamespace, newNetworkNamespace, setNetworkNamespace } from '../os/libc.ts'

const OWN = '/proc/thread-self/ns/net'

/** Opens a namespace file. `mayBeOwn`: it may be this process's own. Errors: SANDBOX_GONE, SANDBOX_INVALID. */
export function openNamespace(path: string, mayBeOwn = false): number {
  let fd: number
  try {
    // Opening a FIFO would block.
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  } catch (error) {
    throw gone(path, error)
  }
  const fault = isNetworkNamespace(fd)
    ? !mayBeOwn && isOwn(fd)
      ? "is weftd's own"
      : undefined
    : 'is no network namespace'
  if (fault === undefined) return fd
  closeSync(fd)
  throw new WeftError(
    'SANDBOX_INVALID',
    `the network namespace ${path} ${fault}`,
    'check the CNI_NETNS that the runtime passes; a pod with hostNetwork must not be passed to a network plugin'
  )
}

const gone = (path: string, cause: unknown): WeftError =>
  new WeftError(
    'SANDBOX_GONE',
    `the network namespace ${path} can't be opened: ${reasonOf(cause)}`,
    'no action needed if the sandbox has been deleted; where weftd runs in a container, mount the directory with mountPropagation: HostToContainer',
    { cause }
  )

/** A namespace's name is its inode on nsfs, of which there is one (namespaces(7)): `net:[4026531840]`. */
function isOwn(fd: number): boolean {
  return readlinkSync(OWN) === `net:[${fstatSync(fd).ino}]`
}

/**
 * Runs `work` with the calling thread inside the namespace. If the thread can't return, the process ends: it must not
 * go on in a pod's namespace.
 */
export function inside<T>(fd: number, work: () => T): T {
  return elsewhere(() => setNetworkNamespace(fd), work)
}

/** Runs `work` in a new, empty network namespace, which exists as long as a socket that was opened in it. */
export function insideNew<T>(work: () => T): T {
  return elsewhere(newNetworkNamespace, work)
}

function elsewhere<T>(enter: () => void, work: () => T): T {
  const home = openSync(OWN, 'r')
  try {
    enter()
    try {
      return work()
    } finally {
      goBack(home)
    }
  } finally {
    closeSync(home)
  }
}

function goBack(home: number): void {
  try {
    setNetworkNamespace(home)
  } catch (error) {
    const errno = error instanceof CallFailed ? error.errnoName : String(error)
    process.stderr.write(
      `weftd: fatal: the thread can't return from a pod's network namespace (setns: ${errno}); ending at once\n`
    )
    process.abort()
  }
}
