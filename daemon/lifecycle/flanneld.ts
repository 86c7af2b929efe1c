// Reports a flanneld that runs in our network namespace, by name and pid: both daemons set up the same routes and
// devices, and undo each other.
import { setTimeout as sleep } from 'node:timers/promises'
import type { Health } from '../health/health.ts'
import { pidsOf } from './processes.ts'

/** Milliseconds between two looks at a flanneld that was found. */
const AGAIN = 5_000

/** Ends with the last flanneld that ran when weftd started; a later one shows in what it undoes. */
export async function reportFlanneld(
  health: Pick<Health, 'raise' | 'clear'>,
  signal: AbortSignal,
  { proc = '/proc', againMs = AGAIN } = {}
): Promise<void> {
  let running = pidsOf('flanneld', { proc })
  while (running.length > 0) {
    const pids = `pid ${running.join(', ')}`
    health.raise(
      'FLANNELD_RUNNING',
      pids,
      `stop flanneld (${pids}), and keep its unit or DaemonSet from starting it again`
    )
    await sleep(againMs, undefined, { signal })
    running = pidsOf('flanneld', { proc, among: running })
  }
  health.clear('FLANNELD_RUNNING')
}
