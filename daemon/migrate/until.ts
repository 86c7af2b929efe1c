// Waits for a condition on a node or in the cluster, with a deadline.
import { setTimeout as sleep } from 'node:timers/promises'
import { WeftError } from '../base/error.ts'

export type Deadline = {
  readonly deadlineMs: number
  /** Milliseconds between two looks. */
  readonly everyMs: number
  /** The error at the deadline, with what was still waited for. */
  readonly late: (reason: string) => WeftError
}

/** Looks until there is no reason to wait any more. Errors: what `look` throws, and `late`. */
export async function untilNothing(
  look: () => Promise<string | undefined>,
  { deadlineMs, everyMs, late }: Deadline
): Promise<void> {
  const end = performance.now() + deadlineMs
  for (;;) {
    const reason = await look()
    if (reason === undefined) return
    if (performance.now() >= end) throw late(reason)
    await sleep(everyMs)
  }
}

/** Milliseconds between two looks at files and processes. */
const POLL = 50

/** Waits for a condition. Errors: MIGRATE_FAILED with `what` at the deadline, in milliseconds. */
export const until = (
  isMet: () => boolean | Promise<boolean>,
  { what, cure, deadlineMs }: { readonly what: string; readonly cure: string; readonly deadlineMs: number }
): Promise<void> =>
  untilNothing(async () => ((await isMet()) ? undefined : what), {
    ...{ deadlineMs, everyMs: POLL },
    late: () => new WeftError('MIGRATE_FAILED', `waited ${deadlineMs / 1000} s for ${what}`, cure)
  })
