// Raises and clears the conditions about leases that are skipped.
import { andMore } from '../base/printable.ts'
import type { Report } from '../health/report.ts'
import type { Lease } from '../lease/lease.ts'
import { type LocalView, skipCure } from './peer-objects.ts'

export type SkippedDeps = {
  readonly health: Report
  /** A lease as its store names it, for messages; its key when absent. */
  readonly leaseName?: (key: string) => string
}

type Known = { readonly leases: ReadonlyMap<string, Lease>; readonly view: LocalView | undefined }

/** `skipped`: why, by the lease's key; `offLink`: those of them that this backend can't reach, with the cure. */
export function reportSkipped(
  { health, leaseName = (key) => key }: SkippedDeps,
  skipped: ReadonlyMap<string, string>,
  offLink: ReadonlyMap<string, string>,
  { leases, view }: Known
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
    const cure = skipCure(leases.get(key), view, leaseName(key)) ?? `correct or delete the lease ${leaseName(key)}`
    health.raise('LEASE_MALFORMED', `${why}${andMore(malformed - 1)}`, cure)
  }
}
