// Waiting for what the kernel does by itself in a moment, and announces later than it can be seen.
import { setImmediate, setTimeout } from 'node:timers/promises'
import { sleepNow } from '../os/libc.ts'

/** Microseconds between two looks. To look without a pause would hold the processor that the kernel may be waiting for. */
const MOMENT_US = 20

/**
 * Looks until it is so, or for `patienceMs`; resolves with which. For the first `eagerMs` in every turn of the event loop: for one who waits alone; among many
 * that would cost more than it gains. Then every millisecond.
 */
export async function pollUntil(
  isSo: () => boolean,
  eagerMs: number,
  patienceMs = Number.POSITIVE_INFINITY
): Promise<boolean> {
  const start = performance.now()
  for (;;) {
    if (isSo()) return true
    const waited = performance.now() - start
    if (waited >= patienceMs) return false
    if (waited >= eagerMs) await setTimeout(1)
    else {
      await setImmediate()
      sleepNow(MOMENT_US)
    }
  }
}
