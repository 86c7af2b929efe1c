// The verbs of plugins that give addresses and make no interface: host-local and static, called by the plugin that
// makes one.
import { formatIp, formatPrefix, sameIp, samePrefix } from '../../ipam/address.ts'
import { type Reservation, ReservationsUnusable } from '../../ipam/unusable.ts'
import type { Attachment, IpamResult } from '../../plugins/attachment.ts'
import type { AttachmentResult } from '../attachment/result.ts'
import { WeftError } from '../base/error.ts'
import { allocate } from './allocate.ts'
import type { PodContext } from './context.ts'
import { isListed, type Listed } from './gc.ts'
import { placeForAdd } from './place.ts'
import { release } from './release.ts'
import { readResolvConf } from './resolv-conf.ts'

/** Errors: those of allocate(); RESOLV_CONF_UNREADABLE. */
export async function addAddresses(context: PodContext, attachment: Attachment): Promise<AttachmentResult> {
  const { ipam, ipamResult } = attachment
  if (ipam === undefined) return resultOf(ipamResult ?? { addresses: [], routes: [], dns: {} })
  const dns = ipam.resolvConf === undefined ? {} : await readResolvConf(context, ipam.resolvConf)
  const place = placeForAdd(context, attachment)
  const addresses = await context.attachments.inTurn(attachment, () => allocate(context, attachment, ipam, place))
  return resultOf({ addresses, routes: ipam.routes, dns: attachment.dns ?? dns })
}

const resultOf = (found: IpamResult): AttachmentResult => ({ interfaces: [], ...found })

/** Addresses of a pool must be reserved. Errors: DIFFERENT. */
export async function checkReserved(context: PodContext, attachment: Attachment): Promise<void> {
  const { ipam, because, network } = attachment
  if (ipam === undefined) return
  const reservations = context.networks.reservations(ipam.dataDir, network)
  if ((await reservations.of(attachment)).length > 0) return
  throw new WeftError(
    'DIFFERENT',
    `${because} has no reservation in ${reservations.directory}`,
    'restart the pod: its address may be given to another pod'
  )
}

/** Configured addresses must be in `previous` with the same gateway. Errors: DIFFERENT. */
export function checkConfigured({ ipamResult, because }: Attachment, previous: AttachmentResult): void {
  for (const { prefix, gateway } of ipamResult?.addresses ?? []) {
    const listed = previous.addresses.find(
      (each) => samePrefix(each.prefix, prefix) && sameIp(each.prefix.ip, prefix.ip)
    )
    if (listed === undefined || gateway === undefined || sameIp(listed.gateway, gateway)) continue
    const reported = listed.gateway === undefined ? 'none' : formatIp(listed.gateway)
    throw new WeftError(
      'DIFFERENT',
      `${because} has ${formatPrefix(listed.prefix)} with gateway ${reported} in prevResult, but ${formatIp(gateway)} configured`,
      'restart the pod'
    )
  }
}

/** Frees the reservations; nothing to free is no error. */
export async function delAddresses(context: PodContext, attachment: Attachment): Promise<void> {
  await context.attachments.inTurn(attachment, () => release(context, attachment, attachment.ipam?.dataDir))
}

/** Frees what belongs to none of the attachments that the runtime lists. Errors: ReservationsUnusable, at the end. */
export async function gcAddresses(
  context: PodContext,
  { ipam, network }: Attachment,
  valid: readonly Listed[]
): Promise<void> {
  if (ipam === undefined) return
  const isGone = ({ owner }: Reservation) => owner !== undefined && !isListed(valid, owner)
  let [freed, failure]: [readonly Reservation[], ReservationsUnusable?] = [[]]
  try {
    freed = await context.networks.reservations(ipam.dataDir, network).collect(isGone)
  } catch (error) {
    if (!(error instanceof ReservationsUnusable)) throw error
    failure = error
    freed = error.freed
  }
  for (const { owner } of freed) if (owner !== undefined) context.attachments.forgetReserved({ network, ...owner })
  if (freed.length > 0)
    context.log.info({ network, freed: freed.length }, 'freed reservations that the runtime no longer lists')
  if (failure !== undefined) throw failure
}
