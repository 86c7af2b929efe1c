// Pods across restarts of weftd: rebuilt at start, saved for the next weftd, freed when they vanished; and their
// metrics.
import { join } from 'node:path'
import { setInterval } from 'node:timers/promises'
import type { Log } from '../../base/log.ts'
import type { Options } from '../../cli/flag-table.ts'
import type { Metrics } from '../../health/metrics.ts'
import type { Reconciler } from '../../reconcile/reconciler.ts'
import type { PodContext } from '../context.ts'
import { releaseVanished } from '../vanished.ts'
import { keepPodsFile, readPodsFile } from './pods-file.ts'
import { emptyAfterReboot, forgetVanished, rebuild } from './rebuild.ts'

export type KeepingDeps = {
  readonly options: Pick<Options, 'stateDir' | 'vanishedGrace'>
  readonly log: Log
  readonly metrics: Metrics
  readonly reconciler: Pick<Reconciler, 'onObserved'>
  /** Work that lasts as long as the daemon: if it fails, the daemon ends. */
  readonly running: (work: Promise<unknown>) => void
}

/**
 * Resolves when the pods of an earlier weftd are registered and desired again; continues until the signal. Disposing
 * writes the file a last time.
 */
export async function keepPods(
  pods: PodContext,
  { options, log, metrics, reconciler, running }: KeepingDeps,
  signal: AbortSignal
): Promise<Disposable> {
  const path = join(options.stateDir, 'pods.json')
  const attached = await rebuild(pods, undefined, readPodsFile(path, log))
  if (attached > 0) log.info({ pods: attached }, 'pods of an earlier weftd continue')
  const notes = keepPodsFile(path, pods.attachments, log)
  reconciler.onObserved(forgetVanished(pods))
  observePods(metrics, pods)
  running(emptyAfterReboot(pods))
  running(freeVanished(pods, options.vanishedGrace * 1_000, signal))
  return notes
}

/** Frees pods whose grace period is over, until the signal; rejects with it. */
async function freeVanished(pods: PodContext, graceMs: number, signal: AbortSignal): Promise<void> {
  const every = Math.min(Math.max(1_000, graceMs / 4), 60_000)
  for await (const _ of setInterval(every, undefined, { signal, ref: false })) await releaseVanished(pods, graceMs)
}

function observePods(metrics: Metrics, { attachments }: PodContext): void {
  metrics.gauge('weft_pods', 'Pods attached to this node.', [], (gauge) => gauge.set(attachments.list().length))
  metrics.gauge(
    'weft_pods_vanished',
    'Pods whose network namespace vanished and whose addresses are still reserved.',
    [],
    (gauge) => gauge.set(attachments.vanished.size)
  )
  const reported = { reboot: 0, vanished: 0, gc: 0 }
  metrics.counter(
    'weft_reservations_freed_total',
    'Addresses freed without a DEL, by reason.',
    ['reason'],
    (counter) => {
      for (const reason of ['reboot', 'vanished', 'gc'] as const) {
        const now = attachments.freed[reason]
        counter.inc({ reason }, now - reported[reason])
        reported[reason] = now
      }
    }
  )
}
