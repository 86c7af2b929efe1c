// Logs conditions as they begin, change and end.

import type { Log } from '../base/log.ts'
import { type Condition, sentence } from './conditions.ts'
import type { Health } from './health.ts'

/** A line for every condition that begins, changes or ends. */
export function logCondition(log: Log): (condition: Condition, active: boolean) => void {
  return (condition, active) => {
    const fields = { condition: condition.code, detail: condition.detail, cure: condition.cure }
    if (!active) log.info({ condition: condition.code }, 'condition is over')
    else if (condition.severity === 'error') log.error(fields, sentence(condition))
    // Every start has it; one that lasts shows in what it waits for.
    else if (condition.code === 'STARTING' || condition.severity === 'notice') log.info(fields, sentence(condition))
    else log.warn(fields, sentence(condition))
  }
}

/**
 * Variables that match no flag, most often misspelled ones; the condition lasts until weftd is restarted with others.
 */
export function reportUnknownVariables(
  health: Pick<Health, 'raise'>,
  unknown: readonly { readonly name: string; readonly text: string }[]
): void {
  if (unknown.length === 0) return
  const names = unknown.map(({ name }) => name).join(', ')
  const cure = `correct or remove ${names} in the environment of weftd (its unit, or its DaemonSet) and restart weftd`
  health.raise('VARIABLE_UNKNOWN', unknown.map(({ text }) => text).join('; '), cure)
}
