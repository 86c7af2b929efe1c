// The verbs of chained plugins: portmap, bandwidth, tuning, firewall.
import type { ChainedAttachment } from '../../../plugins/attachment.ts'
import type { AttachmentResult, InterfaceChanges } from '../../attachment/result.ts'
import { allSteps } from '../all-steps.ts'
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
    const limited = limits ? await limit(context, attachment) : {}
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
  if (isolatedFrom !== undefined) await checkIsolation(context, attachment, isolatedFrom, previous)
  if (ports !== undefined) await checkPorts(context, attachment, ports, previous)
  if (limits) await checkLimits(context, attachment)
  if (tuning !== undefined) await checkTuning(context, attachment, tuning)
  if (forwards !== undefined) checkForwardAccept(context, attachment, forwards, adminChain)
}

/** An interface that is gone or never existed is no error. Goes on after an error. */
export function delChained(context: PodContext, attachment: ChainedAttachment): Promise<void> {
  return context.attachments.inTurn(attachment, async () => {
    const { tuning, forwards, ports, limits } = attachment.interface
    await allSteps([
      ...(tuning === undefined ? [] : [() => restore(context, attachment, tuning)]),
      ...(forwards === undefined ? [] : [() => removeIsolation(context, attachment)]),
      ...(forwards === undefined ? [] : [() => removeForwardAccept(context, attachment)]),
      ...(ports === undefined ? [] : [() => unmapPorts(context, attachment)]),
      ...(limits ? [() => unlimit(context, attachment)] : [])
    ])
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
  await allSteps([
    ...(ports === undefined && forwards === undefined ? [] : [() => collectOwned(context, pattern, valid)]),
    ...(limits ? [() => collectLimits(context, pattern, valid)] : []),
    ...(tuning === undefined ? [] : [() => collectSettings(context, tuning, network, valid)])
  ])
}
