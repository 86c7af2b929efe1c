// Frees an attachment's addresses: the undo of allocate() and reserve().
import type { Ip } from '../../ipam/address.ts'
import { type Identity, ownerOf } from '../attachment/identity.ts'
import type { PodContext } from './context.ts'

/**
 * Frees the attachment's reservations in the data directory and clears POOL_EXHAUSTED; none is no error. Resolves with
 * the freed addresses.
 */
export async function release(context: PodContext, who: Identity, dataDir: string | undefined): Promise<readonly Ip[]> {
  context.attachments.reserved.delete(ownerOf(who))
  if (dataDir === undefined) return []
  const freed = await context.networks.reservations(dataDir, who.network).release(who)
  if (freed.length > 0) context.health.clear('POOL_EXHAUSTED')
  return freed
}
