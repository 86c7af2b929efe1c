// Reports repairs and refused changes: log lines, metrics, and the conditions UNDONE_REPEATEDLY and KERNEL_REFUSED.
import type { Log } from '../base/log.ts'
import { andMore } from '../base/printable.ts'
import type { Health } from '../health/health.ts'
import type { Metrics } from '../health/metrics.ts'
import type { DriftReport } from './drift.ts'
import type { RecentChanges } from './recent-changes.ts'
import type { ReconcilerDeps } from './reconciler.ts'

/**
 * Repairs are one line and one count each, with who made them necessary and how long they took; a fight and refusals
 * become conditions. `recent` keeps the last repairs.
 */
export function repairReport(
  log: Log,
  metrics: Metrics,
  health: Health,
  recent?: Pick<RecentChanges, 'add'>
): Pick<ReconcilerDeps, 'drift' | 'refused'> {
  const repairs = metrics.counter('weft_repairs_total', 'Objects repaired after another program changed them.', [
    'kind',
    'by'
  ])
  const seconds = metrics.histogram(
    'weft_repair_seconds',
    'Time from the notification of a foreign change to its repair.'
  )
  let fight: NodeJS.Timeout | undefined
  return {
    drift(report: DriftReport) {
      const by = report.by === undefined ? undefined : `${report.by.name} (${report.by.pid})`
      recent?.add(report)
      repairs.inc({ kind: report.kind, by: report.by?.name ?? 'unknown' })
      seconds.observe(report.afterMs / 1000)
      const fields = {
        repaired: report.kind,
        object: report.object,
        what: report.what,
        by,
        unnamed: report.unnamed,
        afterMs: Math.round(report.afterMs * 10) / 10,
        because: report.because
      }
      log.warn(fields, 'repaired what another program changed')
      if (!report.isRepeated) return
      health.raise(
        'UNDONE_REPEATEDLY',
        `${by ?? `an unknown program (${report.unnamed})`} did it ${report.times} times in 10 s, last to ${report.object}`,
        cureFor(report)
      )
      clearTimeout(fight)
      fight = setTimeout(() => health.clear('UNDONE_REPEATEDLY'), 60_000)
      fight.unref()
    },
    refused(errors, cure) {
      const [first] = errors
      if (first === undefined) health.clear('KERNEL_REFUSED')
      else
        health.raise(
          'KERNEL_REFUSED',
          `${first}${andMore(errors.length - 1)}`,
          cure && `${cure}; weftd retries with increasing delays`
        )
    }
  }
}

function cureFor({ by, object, device }: DriftReport): string | undefined {
  if (by !== undefined) return `configure ${by.name} to leave ${object} alone`
  return (
    device &&
    `find the program that manages ${device} (networkctl status ${device}; nmcli device show ${device}) and configure it to leave ${device} alone`
  )
}
