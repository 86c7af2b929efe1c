// STATUS: whether an ADD would succeed now. It changes nothing: runtimes call it every few seconds.
import { inRange } from '../../ipam/address.ts'
import { capacity } from '../../ipam/pool.ts'
import type { Reservation } from '../../ipam/unusable.ts'
import type { Attachment } from '../../plugins/attachment.ts'
import { WeftError } from '../base/error.ts'
import { CONDITIONS } from '../health/conditions.ts'
import { exhaustedDetail } from './allocate.ts'
import type { PodContext } from './context.ts'
import { placeForAdd } from './place.ts'
import { rangeSetsOf } from './range-sets.ts'
import { isStale } from './stale-reservations.ts'

/** Errors: the condition that blocks ADD, a full pool among them. */
export async function status(context: PodContext, pattern: Attachment): Promise<void> {
  const sets = rangeSetsOf(pattern, placeForAdd(context, pattern))
  if (pattern.ipam === undefined) return
  const reservations = context.networks.reservations(pattern.ipam.dataDir, pattern.network)
  const vanished = [...context.attachments.vanished.values()].filter(
    (each) => each.network === pattern.network && each.dataDir === pattern.ipam?.dataDir
  )
  // An ADD would free these before it reports a full pool.
  const isOrphaned = isStale(context, pattern)
  const isFree = (reservation: Reservation) => {
    const { owner } = reservation
    const isOwner = (each: { containerId: string; ifname: string }) =>
      each.containerId === owner?.containerId && each.ifname === owner.ifname
    return owner === undefined || vanished.some(isOwner) || isOrphaned(reservation)
  }
  const held = (await reservations.list()).filter((each) => !isFree(each))
  for (const set of sets) {
    const taken = held.filter(({ ip }) => set.some((range) => inRange(range, ip))).length
    if (BigInt(taken) < capacity(set)) continue
    const { title, cure } = CONDITIONS.POOL_EXHAUSTED
    throw new WeftError('POOL_EXHAUSTED', `${title}: ${exhaustedDetail(set, held, reservations.directory)}`, cure)
  }
}
