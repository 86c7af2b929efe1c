// One line of the log for each change of the network with the reason for it, and one with counts for very many at once.
import type { Log } from '../base/log.ts'
import type { Change } from '../state/difference.ts'
import { textOf } from '../state/text.ts'

/** More changes than this in one batch are told in one line. */
const TOLD_SINGLY = 50

export function logChanges(log: Log, changes: readonly Change[]): void {
  if (changes.length <= TOLD_SINGLY) {
    for (const change of changes)
      log.info({ object: textOf(change.object), because: change.object.because }, word(change))
    return
  }
  const counts: Record<string, number> = {}
  for (const change of changes) {
    const what = `${word(change)} ${change.object.kind}`
    counts[what] = (counts[what] ?? 0) + 1
  }
  log.info({ counts }, 'many changes')
}

const word = ({ do: what, instead }: Change): string =>
  what === 'remove' ? 'removed' : instead === undefined ? 'added' : 'changed'
