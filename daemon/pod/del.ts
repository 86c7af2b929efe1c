// DEL: removes the interface and its rules, then frees the address. Works if all is gone, when repeated, if unknown,
// and without a namespace.
import type { Ip } from '../../ipam/address.ts'
import type { Reservations } from '../../ipam/reservations.ts'
import type { Attachment } from '../../plugins/attachment.ts'
import { hostName } from '../attachment/identity.ts'
import { linkNamed } from '../state/object.ts'
import { throwAll } from './all-steps.ts'
import type { PodContext } from './context.ts'
import { disconnect } from './disconnect.ts'
import { openSandbox } from './netns.ts'
import { masqueradeChain, removeReferenceChain } from './reference-rules.ts'
import { release } from './release.ts'
import { timed } from './timing.ts'

/**
 * Resolves as soon as the link has left the kernel's lists and the address is free. Errors: what could not be freed,
 * flattened.
 */
export async function del(context: PodContext, attachment: Attachment): Promise<void> {
  const asked = context.now()
  return context.attachments.inTurn(attachment, () => {
    context.timings('DEL', 'queue', (context.now() - asked) / 1000)
    return detach(context, attachment)
  })
}

async function detach(context: PodContext, attachment: Attachment): Promise<void> {
  const errors: unknown[] = []
  const collect = async <T>(work: () => Promise<T>): Promise<T | undefined> => {
    try {
      return await work()
    } catch (error) {
      errors.push(error)
      return undefined
    }
  }
  const hadLink = linkNamed(context.host.observed, hostName(attachment)) !== undefined
  await collect(() => disconnect(context, attachment, 'DEL'))
  // The accepts of the firewall plugin for this interface are removed with it.
  if (attachment.isStandalone) await collect(context.updateForeignAccepts)
  // An address that is still in use must not be given to the next pod: it stays reserved until the link is gone.
  if (errors.length === 0 && attachment.ipam !== undefined) {
    const { dataDir } = attachment.ipam
    const reservations = context.networks.reservations(dataDir, attachment.network)
    if (!hadLink) await collect(() => removeForeign(context, attachment, reservations))
    await collect(() => timed(context, 'DEL', 'reserve', () => release(context, attachment, dataDir)))
  }
  throwAll(errors)
}

/**
 * A pod set up by flannel's plugins before Weft: it has a reservation in the directory, and its link has another name
 * and no alias. The end inside the container has the name that the runtime passes; removing it removes the other end.
 */
async function removeForeign(context: PodContext, attachment: Attachment, reservations: Reservations): Promise<void> {
  const held: readonly Ip[] = await reservations.of(attachment)
  if (held.length === 0) return
  await removeReferenceChain(context, masqueradeChain(attachment), attachment.because)
  if (attachment.sandbox === undefined) return
  let sandbox: Awaited<ReturnType<PodContext['kernel']['sandbox']>>
  try {
    sandbox = await openSandbox(context, attachment)
  } catch {
    // The link went with the namespace.
    return
  }
  using open = sandbox
  for (const { error } of await open.apply([{ do: 'remove', object: { kind: 'link', name: attachment.ifname } }])) {
    if (error !== undefined) throw error
  }
}
