// STATUS: whether an ADD would succeed now. It changes nothing: runtimes call it every few seconds.
import { inRange } from '../../ipam/address.ts'
import { capacity, type RangeSet } from '../../ipam/pool.ts'
import type { Reservation } from '../../ipam/unusable.ts'
import type { Attachment, VethAttachment } from '../../plugins/attachment.ts'
import { WeftError } from '../base/error.ts'
import { CONDITIONS } from '../health/conditions.ts'
import { exhaustedDetail } from './allocate.ts'
import { conflictingAddresses, refuseSecondGateway } from './bridge-addresses.ts'
import { refuseUnfilteredVlans } from './bridge-vlans.ts'
import type { PodContext, PodPlace } from './context.ts'
import { placeForAdd } from './place.ts'
import { rangeSetsOf } from './range-sets.ts'
import { isStale } from './stale-reservations.ts'
import { wiringOf } from './wiring.ts'

/** Errors: the condition that blocks ADD, a full pool and another address on the bridge among them. */
export async function status(context: PodContext, pattern: Attachment): Promise<void> {
  const place = placeForAdd(context, pattern)
  const sets = rangeSetsOf(pattern, place)
  if (pattern.interface.kind === 'veth')
    await refuseBridge(context, { ...pattern, interface: pattern.interface }, place, sets)
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

/**
 * An ADD with any address of these would be refused because of another address on the bridge, or because the bridge or
 * the kernel does not keep VLANs apart.
 */
async function refuseBridge(
  context: PodContext,
  pattern: VethAttachment,
  place: PodPlace,
  sets: readonly RangeSet[]
): Promise<void> {
  const gateways = sets.flatMap(([range]) => {
    if (range === undefined) return []
    const { gateway, subnet } = range
    return [{ prefix: { ip: gateway, length: subnet.length }, gateway }]
  })
  const wiring = wiringOf(context, pattern, place)
  try {
    await refuseUnfilteredVlans(context, pattern, wiring)
    refuseSecondGateway(pattern, gateways, wiring, place.node.subnet, context.host.observed)
    conflictingAddresses(pattern, gateways, wiring, context.host.observed)
  } catch (error) {
    // STATUS has a number for "an ADD would fail now", which is that of conditions. What the kernel lacks stays so.
    if (!(error instanceof WeftError) || error.code === 'KERNEL_FEATURE_MISSING') throw error
    throw new WeftError('BRIDGE_FOREIGN', error.message, error.cure)
  }
}
