// Accepts forwarded packets of an attachment's addresses: a chain of Weft's for their subnet, and accepts inside chains
// of other programs that drop them; the administrator's chain comes before those.
import type { Prefix } from '../../../ipam/address.ts'
import { type Attachment, DEFAULT_ADMIN_CHAIN } from '../../../plugins/attachment.ts'
import { forwardMark, type Identity, markedOwnerOf } from '../../attachment/identity.ts'
import { forwardAcceptObjects } from '../../firewall/subnet-chain.ts'
import { failureIn } from '../../state/kernel.ts'
import type { KernelObject } from '../../state/object.ts'
import { differencesIn, refuseDifferences } from '../check.ts'
import type { PodContext } from '../context.ts'
import { releaseOwned } from './ownership.ts'

type Who = Identity & Pick<Attachment, 'because'>

/** Errors: the kernel's. */
export async function addForwardAccept(
  context: PodContext,
  attachment: Who,
  forwards: readonly Prefix[],
  adminChain?: string
): Promise<void> {
  const owner = markedOwnerOf(forwardMark(attachment))
  const failure = failureIn(await context.host.want(owner, acceptsFor(attachment, forwards, adminChain)))
  if (failure !== undefined) {
    await context.host.want(owner, [])
    throw failure.error
  }
  await context.updateForeignAccepts()
}

/** Ends the accepts for this attachment. Errors: the kernel's. */
export async function removeForwardAccept(context: PodContext, attachment: Identity): Promise<void> {
  await releaseOwned(context, forwardMark(attachment))
  await context.updateForeignAccepts()
}

/** Errors: DIFFERENT with one line per difference. */
export function checkForwardAccept(
  context: PodContext,
  attachment: Who,
  forwards: readonly Prefix[],
  adminChain?: string
): void {
  const wrong = differencesIn(acceptsFor(attachment, forwards, adminChain), context.host.observed, 'on the host')
  refuseDifferences(`the forwarding of packets of ${attachment.because} is not as it was set up`, wrong)
}

const acceptsFor = (
  attachment: Who,
  forwards: readonly Prefix[],
  adminChain = DEFAULT_ADMIN_CHAIN
): readonly KernelObject[] =>
  forwardAcceptObjects(forwards, forwardMark(attachment), attachment.because, adminChain).map((object) => ({
    ...object,
    because: attachment.because
  }))
