// Removes the nftables elements of chained plugins (host ports, isolation, forwarding) by the mark in their comments.
import {
  forwardMark,
  type Identity,
  isolationMark,
  markedOwnerOf,
  networkMark,
  portMark
} from '../../attachment/identity.ts'
import { elementsByMark, elementsOf } from '../../state/host-port.ts'
import { removalFailureIn } from '../../state/kernel.ts'
import { keyOf } from '../../state/object.ts'
import { allSteps } from '../all-steps.ts'
import type { PodContext } from '../context.ts'
import type { Listed } from '../gc.ts'

/** Removes the elements with this mark, those of an earlier weftd included. Errors: the kernel's. */
export async function releaseOwned(context: PodContext, mark: string): Promise<void> {
  const owner = markedOwnerOf(mark)
  context.attachments.ports.release(owner)
  const keys = elementsOf(mark, context.host.observed).map(keyOf)
  const failure = removalFailureIn(await context.host.want(owner, [], keys))
  if (failure !== undefined) throw failure
}

/** Removes the elements of a network's containers that the runtime no longer lists. Errors: the kernel's. */
export async function collectOwned(
  context: PodContext,
  { network }: Pick<Identity, 'network'>,
  valid: readonly Listed[]
): Promise<void> {
  const all = [portMark, isolationMark, forwardMark]
  const kept = new Set(valid.flatMap((listed) => all.map((mark) => mark({ network, ...listed }))))
  const marks = [...elementsByMark(networkMark(network), context.host.observed).keys()]
  const gone = marks.filter((mark) => !kept.has(mark))
  await allSteps([...gone.map((mark) => () => releaseOwned(context, mark)), () => context.updateForeignAccepts()])
}
