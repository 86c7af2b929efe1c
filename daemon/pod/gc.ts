// GC: DEL for every attachment of a network that has a reservation or a link and that the runtime no longer lists.
import { type Reservation, ReservationsUnusable } from '../../ipam/unusable.ts'
import type { Attachment } from '../../plugins/attachment.ts'
import { reasonOf } from '../base/error.ts'
import type { PodContext } from './context.ts'
import { del } from './del.ts'

export type Listed = { readonly containerId: string; readonly ifname: string }

/** Whether the runtime lists the attachment; without an interface, whether it lists one of the container's. */
export const isListed = (
  valid: readonly Listed[],
  { containerId, ifname }: { readonly containerId: string; readonly ifname?: string }
): boolean => valid.some((each) => each.containerId === containerId && (ifname === undefined || each.ifname === ifname))

/**
 * `pattern` is any attachment of the network; its identity is replaced. Goes on after an error, and throws all of them
 * at the end.
 */
export async function gc(context: PodContext, pattern: Attachment, valid: readonly Listed[]): Promise<void> {
  const errors: unknown[] = []
  const collect = async (work: () => Promise<readonly Reservation[]> | undefined): Promise<readonly Reservation[]> => {
    try {
      return (await work()) ?? []
    } catch (error) {
      errors.push(error)
      return error instanceof ReservationsUnusable ? error.freed : []
    }
  }
  const reservations = pattern.ipam && context.networks.reservations(pattern.ipam.dataDir, pattern.network)
  const unowned = await collect(() =>
    reservations?.collect(({ owner }) => owner !== undefined && owner.ifname === undefined && !isListed(valid, owner))
  )
  const owners = (await collect(() => reservations?.list())).flatMap(({ owner }) =>
    owner?.ifname === undefined ? [] : [{ containerId: owner.containerId, ifname: owner.ifname }]
  )
  const linked = context.attachments.list().filter(({ network }) => network === pattern.network)
  const gone = new Map(
    [...owners, ...linked]
      .filter((each) => !isListed(valid, each))
      .map(({ containerId, ifname }) => [`${containerId} ${ifname}`, { containerId, ifname }])
  )
  const freed = unowned.length + owners.filter((each) => !isListed(valid, each)).length
  const { sandbox: _, pod: __, ...rest } = pattern
  const ended = await Promise.allSettled(
    [...gone.values()].map((who) =>
      del(context, {
        ...rest,
        ...who,
        because: `container ${who.containerId.slice(0, 12)}, ${who.ifname} in network ${pattern.network}, which the runtime no longer lists`
      })
    )
  )
  errors.push(...ended.flatMap((each) => (each.status === 'rejected' ? [each.reason] : [])))
  if (errors.length > 0) throw new AggregateError(errors, errors.map(reasonOf).join('; '))
  context.attachments.freed.gc += freed
  if (freed > 0)
    context.log.info({ network: pattern.network, freed }, 'freed reservations that the runtime no longer lists')
}
