// Frees addresses of pods whose namespace was deleted without a DEL, after a grace period in which the DEL may still
// come.
import { formatIp } from '../../ipam/address.ts'
import { hostName, type Identity, mayBeOf, ownerOf } from '../attachment/identity.ts'
import { reasonOf } from '../base/error.ts'
import { linkNamed, type State } from '../state/object.ts'
import type { Vanished } from './attachments.ts'
import type { PodContext } from './context.ts'
import { release } from './release.ts'

/**
 * Frees the addresses of pods that have been without a link for `graceMs` milliseconds or more. Only of pods that a
 * weftd has seen: a reservation alone may be another program's. Never rejects; what can't be freed is tried again by
 * the next call. Resolves with the number of addresses.
 */
export async function releaseVanished(
  context: PodContext,
  graceMs: number,
  isIncluded: (vanished: Vanished) => boolean = () => true
): Promise<number> {
  const { attachments } = context
  let freed = 0
  for (const vanished of [...attachments.vanished.values()]) {
    if (context.now() - vanished.since < graceMs || !isIncluded(vanished)) continue
    // An ADD or DEL of it is running. An ADD that finds its pool full calls this in its own turn, and must not wait for
    // itself.
    if (attachments.isBusy(vanished)) continue
    freed += await attachments.inTurn(vanished, () => free(context, vanished))
  }
  return freed
}

async function free(context: PodContext, vanished: Vanished): Promise<number> {
  const { attachments, host, log } = context
  const { dataDir, because, since } = vanished
  const link = hostName(vanished)
  if (attachments.vanished.get(ownerOf(vanished)) !== vanished || isThere(host.observed, vanished)) return 0
  try {
    const ips = await release(context, vanished, dataDir)
    await context.updateForeignAccepts()
    attachments.release(vanished)
    attachments.onChanged()
    attachments.freed.vanished += ips.length
    if (ips.length > 0)
      log.info(
        { freed: ips.map(formatIp), because, link, seconds: Math.round((context.now() - since) / 1000) },
        "a vanished pod's addresses are free again: no DEL came for it"
      )
    return ips.length
  } catch (error) {
    log.warn({ reason: reasonOf(error), because }, "a vanished pod's addresses can't be freed yet")
    return 0
  }
}

/** Whether an attachment's link is there: by its name, or by its alias, since it may have been renamed. */
export const isThere = (observed: State, who: Identity): boolean =>
  linkNamed(observed, hostName(who)) !== undefined ||
  [...observed.values()].some((object) => object.kind === 'link' && object.alias && mayBeOf(who, object.alias))
