// What plugins behind another keep in nftables for an attachment (host ports, what keeps it apart, what lets its packets through): given up by its mark.

import {
  apartMark,
  type Identity,
  markedOwnerOf,
  networkMark,
  portMark,
  throughMark
} from '../../attachment/identity.ts'
import { elementsByMark, elementsOf } from '../../state/host-port.ts'
import { failureIn } from '../../state/kernel.ts'
import { keyOf } from '../../state/object.ts'
import type { PodContext } from '../context.ts'
import type { Listed } from '../gc.ts'

/** Withdraws what is kept under a mark, and removes it also when an earlier weftd has made it. Errors: the kernel's. */
export async function releaseOwned(context: PodContext, mark: string): Promise<void> {
  const owner = markedOwnerOf(mark)
  context.attachments.ports.release(owner)
  const failure = failureIn(await context.host.want(owner, [], elementsOf(mark, context.host.observed).map(keyOf)))
  if (failure !== undefined) throw failure.error
}

/** Frees what is kept for a network's containers that the runtime does not list any more. Errors: the kernel's. */
export async function collectOwned(
  context: PodContext,
  { network }: Pick<Identity, 'network'>,
  valid: readonly Listed[]
): Promise<void> {
  const all = [portMark, apartMark, throughMark]
  const kept = new Set(valid.flatMap((listed) => all.map((mark) => mark({ network, ...listed }))))
  const marks = elementsByMark(networkMark(network), context.host.observed).keys()
  for (const mark of marks) if (!kept.has(mark)) await releaseOwned(context, mark)
  await context.answerForeignDrops()
}
