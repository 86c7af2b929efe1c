// Keeping a container apart from others, whoever made its interface: what firewall's `ingressPolicy` asks for.
import type { ChainedAttachment, Existing } from '../../../plugins/attachment.ts'
import { apartMark, markedOwnerOf } from '../../attachment/identity.ts'
import type { AttachmentResult } from '../../attachment/result.ts'
import { WeftError } from '../../base/error.ts'
import { isolatedBridge, isolatedPort, isolationBase } from '../../firewall/bridge-ports.ts'
import { failureIn } from '../../state/kernel.ts'
import { type KernelObject, linkNamed } from '../../state/object.ts'
import { differencesIn, refuseDifferences } from '../check.ts'
import type { PodContext } from '../context.ts'
import { hostEnd } from './limits.ts'
import { releaseOwned } from './ownership.ts'

type Policy = NonNullable<Existing['apart']>
type Interfaces = Pick<AttachmentResult, 'interfaces'>

/** Errors: INTERFACE_MISSING, the kernel's; the container is not kept apart then, and the ADD must fail. */
export async function isolate(
  context: PodContext,
  attachment: ChainedAttachment,
  policy: Policy,
  previous: Interfaces
): Promise<void> {
  const { shared, own } = wantedFor(context, attachment, policy, previous)
  const owner = markedOwnerOf(apartMark(attachment))
  const outcomes = await context.host.wantAll([context.attachments.shared.with(shared), [owner, own]])
  const failure = failureIn(outcomes)
  if (failure === undefined) return
  await context.host.want(owner, [])
  throw failure.error
}

/** Errors: DIFFERENT with one line per difference; INTERFACE_MISSING. */
export function checkIsolation(
  context: PodContext,
  attachment: ChainedAttachment,
  policy: Policy,
  previous: Interfaces
): void {
  const { shared, own } = wantedFor(context, attachment, policy, previous)
  const wrong = differencesIn([...shared, ...own], context.host.observed, 'on the host')
  refuseDifferences(`${attachment.because} is not kept apart as it was set up`, wrong)
}

/** The bridge stays isolated from others for as long as it is there, as in the reference. */
export const removeIsolation = (context: PodContext, attachment: ChainedAttachment): Promise<void> =>
  releaseOwned(context, apartMark(attachment))

function wantedFor(
  context: PodContext,
  attachment: ChainedAttachment,
  policy: Policy,
  previous: Interfaces
): { readonly shared: readonly KernelObject[]; readonly own: readonly KernelObject[] } {
  const { because } = attachment
  const bridge = isolatedBridge(bridgeIn(context, attachment, previous))
  if (policy === 'from other bridges') return { shared: bridge, own: [] }
  const port = hostEnd(context, attachment, previous)
  return {
    shared: [...bridge, ...isolationBase()],
    own: [{ ...isolatedPort(port.name, apartMark(attachment), because), because }]
  }
}

function bridgeIn({ host }: PodContext, { because }: ChainedAttachment, previous: Interfaces): string {
  const onHost = previous.interfaces.filter(({ sandbox }) => !sandbox)
  const found = onHost.find(({ name }) => linkNamed(host.observed, name)?.form?.type === 'bridge')
  if (found !== undefined) return found.name
  throw new WeftError(
    'INTERFACE_MISSING',
    `prevResult names no bridge of this host, by which ${because} could be kept apart from others`,
    'use ingressPolicy behind a plugin that connects containers by a bridge, or leave it out'
  )
}
