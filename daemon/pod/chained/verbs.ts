// The verbs of chained plugins: portmap, bandwidth, tuning, firewall.
import type { ChainedAttachment } from '../../../plugins/attachment.ts'
import type { AttachmentResult, InterfaceChanges } from '../../attachment/result.ts'
import { reasonOf } from '../../base/error.ts'
import type { PodContext } from '../context.ts'
import type { Listed } from '../gc.ts'
import { addForwardAccept, checkForwardAccept, removeForwardAccept } from './forward-accept.ts'
import { checkPorts, mapPorts, unmapPorts } from './host-ports.ts'
import { checkIsolation, isolate, removeIsolation } from './isolation.ts'
import { checkLimits, collectLimits, limit, unlimit } from './limits.ts'
import { collectOwned } from './ownership.ts'
import { checkTuning, collectSettings, restore, tune } from './tuning.ts'

/**
 * `previous` is what the plugins before have reported. Errors: those of the plugin's own work, after which nothing of
 * it is left.
 */
export function addChained(
  context: PodContext,
  attachment: ChainedAttachment,
  previous: AttachmentResult
): Promise<InterfaceChanges> {
  return context.attachments.inTurn(attachment, async () => {
    const { tuning, forwards, adminChain, isolatedFrom, ports, limits } = attachment.interface
    if (isolatedFrom !== undefined) await isolate(context, attachment, isolatedFrom, previous)
    if (forwards !== undefined) await addForwardAccept(context, attachment, forwards, adminChain)
    if (ports !== undefined) await mapPorts(context, attachment, ports, previous)
    const limited = limits ? await limit(context, attachment, previous) : {}
    return tuning === undefined ? limited : { ...limited, ...(await tune(context, attachment, tuning)) }
  })
}

/** Errors: DIFFERENT with what is wrong. */
export async function checkChained(
  context: PodContext,
  attachment: ChainedAttachment,
  previous: AttachmentResult
): Promise<void> {
  const { tuning, forwards, adminChain, isolatedFrom, ports, limits } = attachment.interface
  if (isolatedFrom !== undefined) checkIsolation(context, attachment, isolatedFrom, previous)
  if (ports !== undefined) await checkPorts(context, attachment, ports, previous)
  if (limits) checkLimits(context, attachment, previous)
  if (tuning !== undefined) await checkTuning(context, attachment, tuning)
  if (forwards !== undefined) checkForwardAccept(context, attachment, forwards, adminChain)
}

/** An interface that is gone or never existed is no error. */
export function delChained(context: PodContext, attachment: ChainedAttachment): Promise<void> {
  return context.attachments.inTurn(attachment, async () => {
    const { tuning, forwards, ports, limits } = attachment.interface
    if (tuning !== undefined) await restore(context, attachment, tuning)
    if (forwards !== undefined) await removeIsolation(context, attachment)
    if (forwards !== undefined) await removeForwardAccept(context, attachment)
    if (ports !== undefined) await unmapPorts(context, attachment)
    if (limits) await unlimit(context, attachment)
  })
}

/**
 * Removes what is left of containers that the runtime no longer lists. `pattern` is any attachment of the network. Goes
 * on after an error.
 */
export async function gcChained(
  context: PodContext,
  pattern: ChainedAttachment,
  valid: readonly Listed[]
): Promise<void> {
  const { tuning, forwards, ports, limits } = pattern.interface
  const { network } = pattern
  const work: (() => void | Promise<void>)[] = [
    ...(ports === undefined && forwards === undefined ? [] : [() => collectOwned(context, pattern, valid)]),
    ...(limits ? [() => collectLimits(context, pattern, valid)] : []),
    ...(tuning === undefined ? [] : [() => collectSettings(context, tuning, network, valid)])
  ]
  const ended = await Promise.allSettled(work.map(async (each) => each()))
  const errors: unknown[] = ended.flatMap((each) => (each.status === 'rejected' ? [each.reason] : []))
  if (errors.length > 0) throw new AggregateError(errors, errors.map(reasonOf).join('; '))
}
