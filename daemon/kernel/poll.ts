// Polls a kernel state that changes within a millisecond or so, and whose notification comes later than the change.
import { setImmediate, setTimeout } from 'node:timers/promises'

/**
 * Polls until `isDone()`, at most for `timeoutMs`; resolves with whether it is. For the first `eagerMs` in every turn
 * of the event loop, then every millisecond. Eager polling is for a single waiter: with many it costs more than it
 * gains.
 */
export async function pollUntil(
  isDone: () => boolean,
  eagerMs: number,
  timeoutMs = Number.POSITIVE_INFINITY
): Promise<boolean> {
  const start = performance.now()
  for (;;) {
    if (isDone()) return true
    const waited = performance.now() - start
    if (waited >= timeoutMs) return false
    if (waited >= eagerMs) await setTimeout(1)
    else await setImmediate()
  }
}
