// Isolates a container from others, whichever plugin made its interface: the firewall plugin's `ingressPolicy`.
import type { ChainedAttachment, Existing } from '../../../plugins/attachment.ts'
import { isolationMark, markedOwnerOf } from '../../attachment/identity.ts'
import type { AttachmentResult } from '../../attachment/result.ts'
import { WeftError } from '../../base/error.ts'
import { isolatedBridge, isolatedPort, isolationBase } from '../../firewall/bridge-ports.ts'
import { failureIn } from '../../state/kernel.ts'
import { type KernelObject, type LinkForm, linkNamed } from '../../state/object.ts'
import { differencesIn, refuseDifferences } from '../check.ts'
import type { PodContext } from '../context.ts'
import { hostEnd } from './limits.ts'
import { releaseOwned } from './ownership.ts'

type Policy = NonNullable<Existing['isolatedFrom']>
type Interfaces = Pick<AttachmentResult, 'interfaces'>

/** Errors: INTERFACE_MISSING, the kernel's; the container is not isolated then, and the ADD must fail. */
export async function isolate(
  context: PodContext,
  attachment: ChainedAttachment,
  policy: Policy,
  previous: Interfaces
): Promise<void> {
  const { shared, own } = await wantedFor(context, attachment, policy, previous)
  const owner = markedOwnerOf(isolationMark(attachment))
  const outcomes = await context.host.wantAll([context.attachments.shared.with(shared), [owner, own]])
  const failure = failureIn(outcomes, [...shared, ...own])
  if (failure === undefined) return
  await context.host.want(owner, [])
  throw failure.error
}

/** Errors: DIFFERENT with one line per difference; INTERFACE_MISSING. */
export async function checkIsolation(
  context: PodContext,
  attachment: ChainedAttachment,
  policy: Policy,
  previous: Interfaces
): Promise<void> {
  const { shared, own } = await wantedFor(context, attachment, policy, previous)
  const wrong = differencesIn([...shared, ...own], context.host.observed, 'on the host')
  refuseDifferences(`the isolation of ${attachment.because} is not as it was set up`, wrong)
}

/** The bridge stays isolated from others as long as it exists, as in the reference. */
export const removeIsolation = (context: PodContext, attachment: ChainedAttachment): Promise<void> =>
  releaseOwned(context, isolationMark(attachment))

async function wantedFor(
  context: PodContext,
  attachment: ChainedAttachment,
  policy: Policy,
  previous: Interfaces
): Promise<{ readonly shared: readonly KernelObject[]; readonly own: readonly KernelObject[] }> {
  const { because } = attachment
  const bridge = isolatedBridge(bridgeIn(context, attachment, previous))
  if (policy === 'other bridges') return { shared: bridge, own: [] }
  const port = await hostEnd(context, attachment)
  return {
    shared: [...bridge, ...isolationBase()],
    own: [{ ...isolatedPort(port.name, isolationMark(attachment), because), because }]
  }
}

function bridgeIn({ host }: PodContext, { because }: ChainedAttachment, previous: Interfaces): string {
  const onHost = previous.interfaces.filter(({ sandbox }) => !sandbox)
  const formOf = (name: string) => linkNamed(host.observed, name)?.form
  const found = onHost.find(({ name }) => formOf(name)?.type === 'bridge')
  // Packets of a VLAN are routed by its own device.
  const isGateway = (form: LinkForm | undefined) => form?.type === 'vlan' && form.parent === found?.name
  const device = onHost.find(({ name }) => isGateway(formOf(name))) ?? found
  if (device !== undefined) return device.name
  throw new WeftError(
    'INTERFACE_MISSING',
    `prevResult names no bridge of this host to isolate ${because} on`,
    'chain the plugin behind one that connects containers to a bridge, or omit ingressPolicy'
  )
}
