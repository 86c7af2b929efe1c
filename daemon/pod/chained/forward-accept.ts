// Packets of an attachment's addresses pass this host: our own chain for their subnet, and answers to what other programs drop.
import type { Prefix } from '../../../ipam/address.ts'
import type { Attachment } from '../../../plugins/attachment.ts'
import { type Identity, markedOwnerOf, throughMark } from '../../attachment/identity.ts'
import { letThroughObjects } from '../../firewall/subnet-chain.ts'
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
  forwards: readonly Prefix[]
): Promise<void> {
  const owner = markedOwnerOf(throughMark(attachment))
  const failure = failureIn(await context.host.want(owner, throughFor(attachment, forwards)))
  if (failure !== undefined) {
    await context.host.want(owner, [])
    throw failure.error
  }
  await context.answerForeignDrops()
}

/** What was let through for this attachment is so no more. Errors: the kernel's. */
export async function removeForwardAccept(context: PodContext, attachment: Identity): Promise<void> {
  await releaseOwned(context, throughMark(attachment))
  await context.answerForeignDrops()
}

/** Errors: DIFFERENT with one line per difference. */
export function checkForwardAccept(context: PodContext, attachment: Who, forwards: readonly Prefix[]): void {
  const wrong = differencesIn(throughFor(attachment, forwards), context.host.observed, 'on the host')
  refuseDifferences(`packets of ${attachment.because} are not let through as was set up`, wrong)
}

const throughFor = (attachment: Who, forwards: readonly Prefix[]): readonly KernelObject[] =>
  letThroughObjects(forwards, throughMark(attachment), attachment.because).map((object) => ({
    ...object,
    because: attachment.because
  }))
