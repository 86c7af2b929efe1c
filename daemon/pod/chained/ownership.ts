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
import { keyOf } from '../../state/object.ts'
import { failureIn, type PodSurroundings } from '../context.ts'
import type { Listed } from '../gc.ts'

/** Withdraws what is kept under a mark, and removes it also when an earlier weftd has made it. Errors: the kernel's. */
export async function releaseMarked(around: PodSurroundings, mark: string): Promise<void> {
  const owner = markedOwnerOf(mark)
  around.attachments.ports.release(owner)
  const failure = failureIn(await around.host.want(owner, [], elementsOf(mark, around.host.observed).map(keyOf)))
  if (failure !== undefined) throw failure.error
}

/** Frees what is kept for a network's containers that the runtime does not list any more. Errors: the kernel's. */
export async function collectMarked(
  around: PodSurroundings,
  { network }: Pick<Identity, 'network'>,
  valid: readonly Listed[]
): Promise<void> {
  const all = [portMark, apartMark, throughMark]
  const kept = new Set(valid.flatMap((listed) => all.map((mark) => mark({ network, ...listed }))))
  const marks = elementsByMark(networkMark(network), around.host.observed).keys()
  for (const mark of marks) if (!kept.has(mark)) await releaseMarked(around, mark)
  await around.answerForeignDrops()
}
