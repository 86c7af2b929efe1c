// Reserves an attachment's addresses. In a full pool, those of pods that are gone are freed first.
import { formatIp, type Ip, inRange } from '../../ipam/address.ts'
import { capacity, describe, type PoolAddress, type RangeSet } from '../../ipam/pool.ts'
import type { Reservations } from '../../ipam/reservations.ts'
import { type Reservation, ReservationsUnusable } from '../../ipam/unusable.ts'
import type { Attachment, IpamConfig } from '../../plugins/attachment.ts'
import { hostName, ownerOf } from '../attachment/identity.ts'
import { routedDevice } from '../attachment/routed.ts'
import { WeftError } from '../base/error.ts'
import { CONDITIONS } from '../health/conditions.ts'
import type { PodContext, PodPlace } from './context.ts'
import { placeForAdd } from './place.ts'
import { rangeSetsOf } from './range-sets.ts'
import { release } from './release.ts'
import { holdersText, isStale } from './stale-reservations.ts'
import { isThere, releaseVanished } from './vanished.ts'
import { wiringOf } from './wiring.ts'

/**
 * One address from each range set, reserved for the attachment; it needs no namespace. Undone by release(). The caller
 * has the attachment's turn. Errors: ADDRESS_HELD, ADDRESS_REFUSED, POOL_EXHAUSTED, RANGE_INVALID, STATE_UNWRITABLE;
 * nothing is reserved then.
 */
export async function allocate(
  context: PodContext,
  attachment: Attachment,
  ipam: IpamConfig,
  place: PodPlace
): Promise<readonly PoolAddress[]> {
  const { dataDir, requested, ranges } = ipam
  const reservations = context.networks.reservations(dataDir, attachment.network)
  const sets = rangeSetsOf({ ipam, network: attachment.network }, place)
  const isUsed = isUsedBeside(context, reservations, attachment, place)
  const take = () => reservations.reserve(attachment, sets, requested, isUsed)
  try {
    let answer = await take()
    if (answer.kind === 'held' && hasVanished(context, attachment)) {
      const own = await release(context, attachment, dataDir)
      // If it can have its addresses again, others need not learn new ones.
      answer = await reservations.reserve(attachment, sets, requested.length > 0 ? requested : own, isUsed)
      if (answer.kind === 'refused') answer = await take()
    }
    if (answer.kind === 'exhausted') {
      await releaseVanished(
        context,
        0,
        (vanished) => vanished.network === attachment.network && vanished.dataDir === dataDir
      )
      const freed = await reservations.collect(isStale(context, attachment))
      if (freed.length > 0)
        context.log.warn(
          { network: attachment.network, freed: holdersText(freed) },
          'the pool was full: addresses of pods that ended while weftd was down are free again'
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
        throw new WeftError('ADDRESS_REFUSED', answer.why, 'request a free address, or none')
      case 'exhausted': {
        const detail = exhaustedDetail(answer.set, await reservations.list(), reservations.directory)
        // Only the node's own subnet is a condition of the node: configured ranges may be exhausted while it has free
        // addresses.
        if (ranges.length === 0) context.health.raise('POOL_EXHAUSTED', detail)
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
 * Runtimes that start a container again after a crash send no DEL for the namespace that is gone (nerdctl, Nomad,
 * Podman). Only where a weftd has seen the link of that container go: a reservation alone may be that of a running one.
 */
const hasVanished = ({ attachments, host, kernel }: PodContext, attachment: Attachment): boolean =>
  attachments.vanished.has(ownerOf(attachment)) &&
  !kernel.exists(hostName(attachment)) &&
  !isThere(host.observed, attachment)

/**
 * For a front door that connects later: an address from each range set, which counts as in use from now on although
 * there is no interface yet. Errors: those of allocate(); conditions that block ADD.
 */
export function reserve(
  context: PodContext,
  attachment: Attachment,
  ipam: IpamConfig
): Promise<readonly PoolAddress[]> {
  return context.attachments.inTurn(attachment, async () => {
    const addresses = await allocate(context, attachment, ipam, placeForAdd(context, attachment))
    context.attachments.reserved.add(ownerOf(attachment))
    return addresses
  })
}

/**
 * Whether a running pod of another network has the address: two networks may share the node's subnet, one may be
 * renamed while its pods run, and in routed mode all networks share one routing table. Reservations that pods which are
 * gone left in another network's directory do not count.
 */
function isUsedBeside(
  context: PodContext,
  own: Reservations,
  attachment: Attachment,
  place: PodPlace
): (ip: Ip) => boolean {
  const { networks, attachments, host } = context
  const { ipam, interface: config } = attachment
  const isHeld = (ip: Ip) => networks.holdersBeside(own, ip).some((who) => attachments.isInUse(who))
  if (ipam?.ranges.length === 0) return isHeld
  if (config.kind !== 'veth') return () => false
  const isRouted = wiringOf(context, { ...attachment, interface: config }, place).mode === 'routed'
  return (ip) => routedDevice(ip, host.observed) !== undefined || (isRouted && isHeld(ip))
}

/** The detail of POOL_EXHAUSTED, the same for ADD, STATUS and the condition. */
export function exhaustedDetail(set: RangeSet, reserved: readonly Reservation[], directory: string): string {
  const held = reserved.filter(({ ip }) => set.some((range) => inRange(range, ip)))
  return `no IP addresses available in range set: ${describe(set)}: all ${capacity(set)} are taken (${held.length} reservations in ${directory}: ${holdersText(held)})`
}
