// Pods whose namespace went without a DEL: their addresses stay reserved while the DEL that a runtime owes may still come, and are freed after that.
import { formatIp } from '../../ipam/address.ts'
import { hostName, mayBeOf, ownerOf } from '../attachment/identity.ts'
import { reasonOf } from '../base/error.ts'
import { linkNamed, type State } from '../state/object.ts'
import type { Vanished } from './attachments.ts'
import type { PodContext } from './context.ts'
import { release } from './release.ts'

/**
 * Frees what has been without its link for `graceMs` milliseconds or more. Only what a weftd has seen itself is freed: a reservation alone may be of
 * another program's pod. Never rejects; what can't be freed is tried again next time. Resolves with the number of addresses.
 */
export async function releaseVanished(
  context: PodContext,
  graceMs: number,
  isMeant: (vanished: Vanished) => boolean = () => true
): Promise<number> {
  const { attachments } = context
  let freed = 0
  for (const vanished of [...attachments.vanished.values()]) {
    if (context.now() - vanished.since < graceMs || !isMeant(vanished)) continue
    // An ADD or DEL of it is under way; whoever runs short of addresses inside of its own turn must not wait for itself.
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
    await context.answerForeignDrops()
    attachments.vanished.delete(ownerOf(vanished))
    attachments.onChanged()
    attachments.freed.vanished += ips.length
    if (ips.length > 0)
      log.info(
        { freed: ips.map(formatIp), because, link, seconds: Math.round((context.now() - since) / 1000) },
        "a vanished pod's addresses are free again: no DEL came for it"
      )
    return ips.length
  } catch (error) {
    log.warn({ reason: reasonOf(error), because }, "a vanished pod's addresses can not be freed yet")
    return 0
  }
}

/** By its name, or by its alias: somebody may have renamed it. */
const isThere = (observed: State, vanished: Vanished): boolean =>
  linkNamed(observed, hostName(vanished)) !== undefined ||
  [...observed.values()].some((object) => object.kind === 'link' && object.alias && mayBeOf(vanished, object.alias))
