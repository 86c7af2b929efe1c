// Logs each change with its reason; very many at once in one line with counts.
import type { Log } from '../base/log.ts'
import type { Change } from '../state/difference.ts'
import { textOf } from '../state/text.ts'

/** More changes than this in one batch are logged in one line. */
const LOGGED_SINGLY = 50

export function logChanges(log: Log, changes: readonly Change[]): void {
  if (changes.length <= LOGGED_SINGLY) {
    for (const change of changes)
      log.info({ object: textOf(change.object), because: change.object.because }, verb(change))
    return
  }
  const counts: Record<string, number> = {}
  for (const change of changes) {
    const what = `${verb(change)} ${change.object.kind}`
    counts[what] = (counts[what] ?? 0) + 1
  }
  log.info({ counts }, 'many changes')
}

const verb = ({ do: what, instead }: Change): string =>
  what === 'remove' ? 'removed' : instead === undefined ? 'added' : 'changed'
