// Raises and clears the conditions about leases that are skipped.
import { andMore } from '../base/printable.ts'
import type { Report } from '../health/report.ts'

/** `skipped`: why, by the lease's key; `offLink`: those of them that this backend can't reach, with the cure. */
export function reportSkipped(
  health: Report,
  skipped: ReadonlyMap<string, string>,
  offLink: ReadonlyMap<string, string>
): void {
  const [unreached] = offLink
  const reason = unreached && skipped.get(unreached[0])
  if (reason === undefined) health.clear('PEER_OFF_LINK')
  else health.raise('PEER_OFF_LINK', `${reason}${andMore(offLink.size - 1)}`, unreached?.[1])
  const malformed = skipped.size - offLink.size
  const [first] = malformed === 0 ? [] : [...skipped].filter(([key]) => !offLink.has(key))
  if (first === undefined) health.clear('LEASE_MALFORMED')
  else {
    const [key, why] = first
    health.raise('LEASE_MALFORMED', `${why}${andMore(malformed - 1)}`, `correct or delete the lease ${key}`)
  }
}
