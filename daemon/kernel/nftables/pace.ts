// How soon what keeps changing is read again: at once after a single change, then less and less often, until reading
// takes one part in fifty of the time.
const SHARE = 50

/** `next`: milliseconds of performance.now() from which it may be read again by itself, `pause` after the last read. */
export type Pace = { readonly pause: number; readonly next: number }

export const rested: Pace = { pause: 0, next: 0 }

/** Called at the end of a read: the pause doubles with each read that follows the one before closely. */
export function paceAfter(start: number, before: Pace): Pace {
  const now = performance.now()
  const took = now - start
  const isClose = start - before.next < before.pause
  const pause = isClose ? Math.min(Math.max(took, before.pause * 2), took * SHARE) : took
  return { pause, next: now + pause }
}
