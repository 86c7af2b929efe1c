// Reads and writes files under /proc/sys synchronously: one takes about 20 µs, and a sandbox's can be accessed only
// while the thread is inside it.
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { errnoNumber } from '../os/libc.ts'
import type { Sysctl } from '../state/object.ts'
import { KernelError, refused } from './netlink/error.ts'

/**
 * Accepts all names of the kernel's files and of devices (anything but slashes and white space), and no path that
 * leaves /proc/sys.
 */
const isPath = (path: string): boolean =>
  /^[^\s/]+(\/[^\s/]+)*$/.test(path) && !path.split('/').some((part) => part === '.' || part === '..')

/**
 * Runtimes mount a container's /proc/sys read-only, and nothing can be mounted over it; deploy/ mounts the host's net/
 * here.
 */
const MOUNTED = '/host/proc/sys'
const root = existsSync(`${MOUNTED}/net/core`) ? MOUNTED : '/proc/sys'

/** /proc/sys/net shows the network namespace of the thread that opens a file, wherever it is mounted. */
const fileOf = (path: string): string => `${isNetworkSysctl(path) ? root : '/proc/sys'}/${path}`

/** The value as trimmed text; `undefined` where this kernel or namespace has no such file. Errors: KernelError. */
export function readSysctl(path: string): Sysctl | undefined {
  const object: Sysctl = { kind: 'sysctl', path, value: '' }
  if (!isPath(path)) throw refused('read', object, errnoNumber('EINVAL'), 'not a path below /proc/sys')
  try {
    return { ...object, value: readFileSync(fileOf(path), 'utf8').trim() }
  } catch (error) {
    if (errnoOf(error) === errnoNumber('ENOENT')) return undefined
    throw new KernelError({ operation: 'read', object: `sysctl ${path}`, errno: errnoOf(error) }, { cause: error })
  }
}

/** Writes a value; returns the kernel's refusal. */
export function writeSysctl(object: Sysctl): Error | undefined {
  if (!isPath(object.path)) return refused('write', object, errnoNumber('EINVAL'), 'not a path below /proc/sys')
  try {
    writeFileSync(fileOf(object.path), object.value)
    return undefined
  } catch (error) {
    return refused('write', object, errnoOf(error))
  }
}

/** Whether the file belongs to the network namespace and not to the whole host. */
export const isNetworkSysctl = (path: string): boolean => path.startsWith('net/')

function errnoOf(error: unknown): number {
  const errno = error instanceof Error && 'errno' in error ? error.errno : undefined
  return typeof errno === 'number' ? Math.abs(errno) : errnoNumber('EIO')
}
