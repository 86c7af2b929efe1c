// Disconnects an attachment: for DEL, for an ADD that failed half-way, and for GC. Everything may be gone already.
import type { Attachment } from '../../plugins/attachment.ts'
import { hostName, mayBeOf, ownersOf } from '../attachment/identity.ts'
import { elementsOf } from '../state/host-port.ts'
import { failedRemovalIn } from '../state/kernel.ts'
import { type Key, keyOf, linkNamed } from '../state/object.ts'
import { ifbName } from '../state/ownership.ts'
import type { PodContext, Verb } from './context.ts'
import { timed } from './timing.ts'

/**
 * Removes the host's link, and the container's with it, and all rules. Resolves when the link has left the kernel's
 * lists. Errors: the kernel's.
 */
export async function disconnect(context: PodContext, attachment: Attachment, verb: Verb): Promise<void> {
  const name = hostName(attachment)
  const link = linkNamed(context.host.observed, name)
  // The name's eight digits may collide with another program's random name: a link whose alias names another owner
  // stays.
  const isOwn = link?.form?.type === 'veth' && mayBeOf(attachment, link.alias)
  const isKnown = context.attachments.get(attachment) !== undefined
  context.attachments.delete(attachment)
  const outcomes = await timed(context, verb, 'host', () =>
    context.host.wantAll(
      ownersOf(attachment).map((owner) => [owner, []] as const),
      [...(isOwn ? [`link ${name}` as Key] : []), ...(isKnown ? [] : leftovers(context, attachment))]
    )
  )
  const failure = failedRemovalIn(outcomes)
  if (failure !== undefined) throw failure.error
}

/**
 * Objects that a restarted weftd could not assign to the attachment because the link was gone: host ports, found by
 * their comments, and the ifb. They are named here because until the store's first complete list nothing is removed for
 * lack of an owner.
 */
function leftovers(context: PodContext, attachment: Attachment): readonly Key[] {
  const name = hostName(attachment)
  const ifb = linkNamed(context.host.observed, ifbName(name))
  const isOurs = ifb?.form?.type === 'ifb' && mayBeOf(attachment, ifb.alias)
  return [...(isOurs ? [keyOf(ifb)] : []), ...elementsOf(name, context.host.observed).map(keyOf)]
}

/**
 * Undoes steps of a failed call, in this order, up to the first that fails. The caller throws what went wrong first;
 * what goes wrong here is logged, and the runtime's DEL tries again.
 */
export async function undo(
  context: PodContext,
  { because }: Pick<Attachment, 'because'>,
  ...steps: readonly (() => Promise<unknown>)[]
): Promise<void> {
  try {
    for (const step of steps) await step()
  } catch (error) {
    context.log.warn({ err: error, because }, 'undoing a failed ADD is incomplete; the DEL that follows tries again')
  }
}
