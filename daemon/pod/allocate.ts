// Reserving an attachment's addresses, and what to say when that can't be done.
import { formatIp, type Ip, inRange } from '../../ipam/address.ts'
import type { Holder } from '../../ipam/networks.ts'
import { capacity, describe, type PoolAddress, type RangeSet } from '../../ipam/pool.ts'
import { type Reservation, type Reservations, ReservationsUnusable } from '../../ipam/reservations.ts'
import type { Attachment } from '../../plugins/attachment.ts'
import { WeftError } from '../base/error.ts'
import { CONDITIONS } from '../health/conditions.ts'
import { type PodContext, type PodPlace, poolsOf } from './context.ts'
import { holdersText, isStale } from './stale-reservations.ts'
import { releaseVanished } from './vanished.ts'

/** One address from each range set. Errors: ADDRESS_HELD, ADDRESS_REFUSED, POOL_EXHAUSTED, RANGE_INVALID, STATE_UNWRITABLE; nothing is reserved then. */
export async function allocate(
  context: PodContext,
  reservations: Reservations,
  attachment: Attachment,
  place: PodPlace
): Promise<readonly PoolAddress[]> {
  const sets = poolsOf(attachment, place)
  const requested = attachment.ipam?.requested ?? []
  const take = () => reservations.reserve(attachment, sets, requested, livesBeside(context, reservations, attachment))
  try {
    let answer = await take()
    if (answer.kind === 'exhausted') {
      await releaseVanished(
        context,
        0,
        ({ network, dataDir }) => network === attachment.network && dataDir === attachment.ipam?.dataDir
      )
      const freed = await reservations.collect(isStale(context, attachment))
      if (freed.length > 0)
        context.log.warn(
          { network: attachment.network, freed: holdersText(freed) },
          'the pool was full; addresses are free again whose pods went while no weftd ran'
        )
      answer = await take()
    }
    context.health.clear('STATE_UNWRITABLE')
    switch (answer.kind) {
      case 'reserved':
        context.health.clear('POOL_EXHAUSTED')
        return answer.addresses
      case 'held':
        throw new WeftError(
          'ADDRESS_HELD',
          `${formatIp(answer.ip)} has been allocated to ${attachment.containerId}, duplicate allocation is not allowed`,
          'a runtime must send DEL before it sends ADD for the same container and interface again'
        )
      case 'refused':
        throw new WeftError('ADDRESS_REFUSED', answer.why, 'ask for an address that is free, or for none')
      case 'exhausted': {
        const detail = exhaustedDetail(answer.set, await reservations.list(), reservations.directory)
        // Ranges of a configuration may run dry while the node's own subnet has room: that is no condition of the node.
        if (attachment.ipam?.ranges.length === 0) context.health.raise('POOL_EXHAUSTED', detail)
        throw new WeftError(
          'POOL_EXHAUSTED',
          `${CONDITIONS.POOL_EXHAUSTED.title}: ${detail}`,
          CONDITIONS.POOL_EXHAUSTED.cure
        )
      }
    }
  } catch (error) {
    if (!(error instanceof ReservationsUnusable)) throw error
    const cure = `free space or make ${reservations.directory} writable`
    context.health.raise('STATE_UNWRITABLE', error.message, cure)
    throw new WeftError('STATE_UNWRITABLE', `${CONDITIONS.STATE_UNWRITABLE.title}: ${error.message}`, cure, {
      cause: error
    })
  }
}

/**
 * Two networks may both take their addresses from the node's subnet, and one gets another name while its pods run: what a living pod has is not given again. What a
 * dead one left in another network's directory is nothing to this one.
 */
function livesBeside(
  { networks, attachments }: PodContext,
  own: Reservations,
  { ipam }: Attachment
): (ip: Ip) => boolean {
  if (ipam?.ranges.length !== 0) return () => false
  const lives = (who: Holder) => attachments.get(who) !== undefined || attachments.isBusy(who)
  return (ip) => networks.holdersBeside(own, ip).some(lives)
}

/** The same for ADD, STATUS and the condition. */
export function exhaustedDetail(set: RangeSet, reserved: readonly Reservation[], directory: string): string {
  const held = reserved.filter(({ ip }) => set.some((range) => inRange(range, ip)))
  return `no IP addresses available in range set: ${describe(set)}: all ${capacity(set)} are taken (${held.length} reservations in ${directory}: ${holdersText(held)})`
}
