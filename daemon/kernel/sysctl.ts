// Files under /proc/sys, read and written synchronously: one takes some 20 µs, and those of a sandbox must be touched while the thread is inside it.
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { errnoNumber } from '../os/libc.ts'
import type { Sysctl } from '../state/object.ts'
import { KernelError, refused } from './netlink/error.ts'

/** Letters of the kernel's own files and of device names, which hold anything but a slash and white space. No way out of /proc/sys. */
const isPath = (path: string): boolean =>
  /^[^\s/]+(\/[^\s/]+)*$/.test(path) && !path.split('/').some((part) => part === '.' || part === '..')

/** Runtimes mount a container's /proc/sys read-only, over which nothing can be mounted; deploy/ mounts the host's net/ here. */
const MOUNTED = '/host/proc/sys'
const root = existsSync(`${MOUNTED}/net/core`) ? MOUNTED : '/proc/sys'

/** The file, in the network namespace of the calling thread: /proc/sys/net shows that of whoever opens it, wherever it is mounted. */
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

/** Writes a value; returns what the kernel has against it. */
export function writeSysctl(object: Sysctl): Error | undefined {
  if (!isPath(object.path)) return refused('write', object, errnoNumber('EINVAL'), 'not a path below /proc/sys')
  try {
    writeFileSync(fileOf(object.path), object.value)
    return undefined
  } catch (error) {
    return refused('write', object, errnoOf(error))
  }
}

/** Whether the file belongs to the network namespace; the others would be the host's. */
export const isNetworkSysctl = (path: string): boolean => path.startsWith('net/')

function errnoOf(error: unknown): number {
  const errno = error instanceof Error && 'errno' in error ? error.errno : undefined
  return typeof errno === 'number' ? Math.abs(errno) : errnoNumber('EIO')
}
