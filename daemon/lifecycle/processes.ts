// Processes in our network namespace, by name.
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'

/** By `comm` alone: command lines and environments of other programs have secrets. `among`: of these; default: of all. */
export function pidsOf(
  name: string,
  { proc = '/proc', among }: { readonly proc?: string; readonly among?: readonly number[] } = {}
): readonly number[] {
  const own = namespaceOf('self', proc)
  const pids =
    among ??
    readdirSync(proc)
      .filter((entry) => /^\d+$/.test(entry))
      .map(Number)
  return pids.filter((pid) => nameOf(pid, proc) === name && own !== undefined && namespaceOf(pid, proc) === own)
}

function nameOf(pid: number, proc: string): string | undefined {
  try {
    return readFileSync(join(proc, String(pid), 'comm'), 'utf8').trimEnd()
  } catch {
    // It has ended.
    return undefined
  }
}

/** The inode of the network namespace; `undefined` where it cannot be seen. */
function namespaceOf(pid: number | 'self', proc: string): number | undefined {
  try {
    return statSync(join(proc, String(pid), 'ns/net')).ino
  } catch {
    return undefined
  }
}

/**
 * Those that root has started, or our own user: any user may give a process this name, and its command line would become
 * weftd's. The real user counts: of a program with the set-user-ID bit the effective one is root, whoever runs it.
 */
export const trustedPidsOf = (name: string): readonly number[] => pidsOf(name).filter(isTrusted)

function isTrusted(pid: number): boolean {
  try {
    const user = /^Uid:\s+(\d+)\s/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
    return user !== undefined && [0, process.getuid?.()].includes(Number(user))
  } catch {
    // It has ended.
    return false
  }
}
