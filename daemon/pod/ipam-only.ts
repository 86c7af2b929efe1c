// The verbs of plugins that give addresses and make no interface: host-local and static, asked by whatever plugin makes one.
import { formatIp, formatPrefix, parsePrefix, sameIp, samePrefix } from '../../ipam/address.ts'
import type { Attachment } from '../../plugins/attachment.ts'
import type { Result } from '../../plugins/cni/types.ts'
import { WeftError } from '../base/error.ts'
import { allocate } from './allocate.ts'
import type { PodContext } from './context.ts'
import type { Listed } from './gc.ts'
import { requireAddress } from './ipam-result.ts'
import { placeForAdd } from './place.ts'
import { readResolvConf } from './resolv-conf.ts'
import { giveBack } from './teardown.ts'

/** Errors: those of reserve(); RESOLV_CONF_UNREADABLE. */
export async function addAddresses(context: PodContext, attachment: Attachment): Promise<Result> {
  const { ipam, given } = attachment
  if (ipam === undefined) return resultOf(given?.addresses ?? [], given?.routes ?? [], given?.dns ?? {})
  const dns = ipam.resolvConf === undefined ? {} : readResolvConf(ipam.resolvConf)
  const reservations = context.networks.reservations(ipam.dataDir, attachment.network)
  const place = placeForAdd(context, attachment)
  const addresses = await context.attachments.inTurn(attachment, () =>
    allocate(context, reservations, attachment, place)
  )
  return resultOf(addresses, ipam.routes, dns)
}

const resultOf = (
  addresses: NonNullable<Attachment['given']>['addresses'],
  routes: Result['routes'],
  dns: Result['dns']
): Result => ({
  interfaces: [],
  ips: addresses.map(({ prefix, gateway }) => ({
    address: formatPrefix(prefix),
    ...(gateway === undefined ? {} : { gateway: formatIp(gateway) })
  })),
  routes,
  dns
})

/** A pool's addresses must be reserved; given ones must be in `previous` with the same gateway. Errors: DIFFERENT, PREVIOUS_MISSING. */
export async function checkAddresses(
  context: PodContext,
  attachment: Attachment,
  previous: Result | undefined
): Promise<void> {
  const { ipam, because } = attachment
  if (ipam === undefined) return checkGiven(attachment, previous)
  const reservations = context.networks.reservations(ipam.dataDir, attachment.network)
  if ((await reservations.of(attachment)).length > 0) return
  throw new WeftError(
    'DIFFERENT',
    `${because} has no reservation in ${reservations.directory}`,
    'restart the pod: its address may be given to another one'
  )
}

function checkGiven({ given, because }: Attachment, previous: Result | undefined): void {
  requireAddress(previous)
  for (const { prefix, gateway } of given?.addresses ?? []) {
    const listed = previous.ips.find(({ address }) => {
      const parsed = parsePrefix(address)
      return parsed !== undefined && samePrefix(parsed, prefix) && sameIp(parsed.ip, prefix.ip)
    })
    const wanted = gateway === undefined ? undefined : formatIp(gateway)
    if (listed === undefined || wanted === undefined || listed.gateway === wanted) continue
    throw new WeftError(
      'DIFFERENT',
      `${because} has ${listed.address} with gateway ${listed.gateway ?? 'none'} in prevResult, but ${wanted} configured`,
      'restart the pod'
    )
  }
}

/** Frees the reservations; nothing to free is no error. */
export async function delAddresses(context: PodContext, attachment: Attachment): Promise<void> {
  const { ipam } = attachment
  if (ipam === undefined) return
  const reservations = context.networks.reservations(ipam.dataDir, attachment.network)
  await context.attachments.inTurn(attachment, () => giveBack(context, reservations, attachment))
}

/** Frees what belongs to none of the attachments that the runtime lists. */
export async function gcAddresses(
  context: PodContext,
  { ipam, network }: Attachment,
  valid: readonly Listed[]
): Promise<void> {
  if (ipam === undefined) return
  const freed = await context.networks
    .reservations(ipam.dataDir, network)
    .collect(
      ({ owner }) =>
        owner !== undefined &&
        !valid.some(
          ({ containerId, ifname }) =>
            containerId === owner.containerId && (owner.ifname === undefined || ifname === owner.ifname)
        )
    )
  if (freed.length > 0)
    context.log.info({ network, freed: freed.length }, 'reservations freed that nobody uses any more')
}
