// Files that a configuration names are the host's. weftd in a container may not see them: the executable, which is on
// the host, reads resolvConf, and a data directory that no mount brings into the container is refused.
import { readFileSync, statSync } from 'node:fs'
import type { Attachment } from '../../plugins/attachment.ts'
import type { CniRequest } from '../../plugins/protocol.ts'
import { WeftError } from '../base/error.ts'
import { parseResolvConf } from '../pod/resolv-conf.ts'

/** What is needed of the system, for tests. */
export type Mounts = {
  /** Device and inode of weftd's root directory, `dev:ino`. */
  readonly root: () => string
  /** /proc/self/mountinfo. */
  readonly mountinfo: () => string
}

const ownMounts: Mounts = {
  root: () => {
    const { dev, ino } = statSync('/')
    return `${dev}:${ino}`
  },
  mountinfo: () => readFileSync('/proc/self/mountinfo', 'utf8')
}

/**
 * The attachment with the host's files in the place of their paths. Errors: RESOLV_CONF_UNREADABLE,
 * DATA_DIR_UNREACHABLE; for DEL and GC none: what this weftd could not reserve it need not free.
 */
export function withHostFiles(
  attachment: Attachment,
  verb: string,
  { root, resolvConf }: Pick<CniRequest, 'root' | 'resolvConf'>,
  mounts: Mounts = ownMounts
): Attachment {
  const { ipam } = attachment
  // Absent from an older executable.
  if (ipam === undefined || root === undefined) return attachment
  if (verb === 'ADD' || verb === 'CHECK' || verb === 'STATUS') refuseUnreachable(ipam.dataDir, root, mounts)
  const { resolvConf: path, ...rest } = ipam
  if (path === undefined || resolvConf === undefined) return attachment
  if ('reason' in resolvConf)
    throw new WeftError(
      'RESOLV_CONF_UNREADABLE',
      `ipam.resolvConf ${path} can't be read: ${resolvConf.reason}`,
      'correct ipam.resolvConf in the CNI configuration: it must name a regular file of this host'
    )
  return { ...attachment, ipam: rest, dns: attachment.dns ?? parseResolvConf(resolvConf.text) }
}

function refuseUnreachable(dataDir: string, root: string, mounts: Mounts): void {
  if (root === mounts.root() || mountPointOf(dataDir, mounts.mountinfo()) !== '/') return
  throw new WeftError(
    'DATA_DIR_UNREACHABLE',
    `ipam.dataDir ${dataDir} is a directory of the host that is not mounted into the container of weftd: reservations there would be lost`,
    'mount it into the container of weftd as a hostPath at the same path, or use a directory below /var/lib/cni'
  )
}

/** proc(5), mountinfo: the fifth field, with spaces and the like in octal. */
function mountPointOf(path: string, mountinfo: string): string {
  const points = mountinfo
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '/')
    .map((point) => point.replaceAll(/\\(\d{3})/g, (_, octal) => String.fromCharCode(Number.parseInt(octal, 8))))
  const holds = (point: string) => point === '/' || path === point || path.startsWith(`${point}/`)
  return points.filter(holds).reduce((longest, point) => (point.length > longest.length ? point : longest), '/')
}
