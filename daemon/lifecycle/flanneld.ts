// Reports a flanneld that runs in our network namespace, by name and pid: both daemons set up the same routes and
// devices, and undo each other.
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Health } from '../health/health.ts'

/** Milliseconds between two looks at a flanneld that was found. */
const AGAIN = 5_000

/** Ends with the last flanneld that ran when weftd started; a later one shows in what it undoes. */
export async function reportFlanneld(
  health: Pick<Health, 'raise' | 'clear'>,
  signal: AbortSignal,
  { proc = '/proc', againMs = AGAIN } = {}
): Promise<void> {
  let running = flannelds(readdirSync(proc), proc)
  while (running.length > 0) {
    const pids = `pid ${running.join(', ')}`
    health.raise(
      'FLANNELD_RUNNING',
      pids,
      `stop flanneld (${pids}), and keep its unit or DaemonSet from starting it again`
    )
    await sleep(againMs, undefined, { signal })
    running = flannelds(running, proc)
  }
  health.clear('FLANNELD_RUNNING')
}

/** By its name alone (`comm`): command lines and environments of other programs have secrets. */
function flannelds(pids: readonly string[], proc: string): readonly string[] {
  const own = namespaceOf('self', proc)
  return pids.filter(
    (pid) =>
      /^\d+$/.test(pid) && nameOf(pid, proc) === 'flanneld' && own !== undefined && namespaceOf(pid, proc) === own
  )
}

function nameOf(pid: string, proc: string): string | undefined {
  try {
    return readFileSync(join(proc, pid, 'comm'), 'utf8').trimEnd()
  } catch {
    // It has ended.
    return undefined
  }
}

/** The inode of the network namespace; `undefined` where it cannot be seen. */
function namespaceOf(pid: string, proc: string): number | undefined {
  try {
    return statSync(join(proc, pid, 'ns/net')).ino
  } catch {
    return undefined
  }
}
