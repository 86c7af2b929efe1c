// The verbs of plugins that change what an earlier plugin of the chain has made, and hand its result on.
import type { Attachment } from '../../../plugins/attachment.ts'
import type { Result } from '../../../plugins/cni/types.ts'
import { reasonOf, WeftError } from '../../base/error.ts'
import type { ChainedAttachment, PodSurroundings } from '../context.ts'
import type { Listed } from '../gc.ts'
import { checkThrough, letThrough, stopLettingThrough } from './forward-accept.ts'
import { checkPorts, mapPorts, unmapPorts } from './host-ports.ts'
import { bringTogether, checkApart, keepApart } from './isolation.ts'
import { checkLimits, collectLimits, limit, unlimit } from './limits.ts'
import { collectMarked } from './ownership.ts'
import { checkTuning, collectSettings, restore, tune } from './tuning.ts'

const mustBeChained = ({ plugin }: Attachment): WeftError =>
  new WeftError(
    'PREVIOUS_MISSING',
    `Required prevResult missing: ${plugin} must be called as a chained plugin`,
    `write ${plugin} behind the plugin that makes the interface, in "plugins" of a .conflist`
  )

/** `previous` with what was changed. Errors: PREVIOUS_MISSING; those of the plugin's own work, after which nothing of it is left. */
export function addChained(
  around: PodSurroundings,
  attachment: ChainedAttachment,
  previous: Result | undefined
): Promise<Result> {
  return around.attachments.inTurn(attachment, async () => {
    if (previous === undefined) throw mustBeChained(attachment)
    const { tuning, forwards, apart, ports, limits } = attachment.interface
    if (apart !== undefined) await keepApart(around, attachment, apart, previous)
    if (forwards !== undefined) await letThrough(around, attachment, forwards)
    if (ports !== undefined) await mapPorts(around, attachment, ports, previous)
    const limited = limits ? await limit(around, attachment, previous) : previous
    return tuning === undefined ? limited : await tune(around, attachment, tuning, limited)
  })
}

/** Errors: PREVIOUS_MISSING; DIFFERENT with what is wrong. */
export async function checkChained(
  around: PodSurroundings,
  attachment: ChainedAttachment,
  previous: Result | undefined
): Promise<void> {
  if (previous === undefined) throw mustBeChained(attachment)
  const { tuning, forwards, apart, ports, limits } = attachment.interface
  if (apart !== undefined) checkApart(around, attachment, apart, previous)
  if (ports !== undefined) await checkPorts(around, attachment, ports, previous)
  if (limits) checkLimits(around, attachment, previous)
  if (tuning !== undefined) await checkTuning(around, attachment, tuning)
  if (forwards !== undefined) checkThrough(around, attachment, forwards)
}

/** An interface that is gone already is no error, nor what never was. */
export function delChained(around: PodSurroundings, attachment: ChainedAttachment): Promise<void> {
  return around.attachments.inTurn(attachment, async () => {
    const { tuning, forwards, ports, limits } = attachment.interface
    if (tuning !== undefined) await restore(around, attachment, tuning)
    if (forwards !== undefined) await bringTogether(around, attachment)
    if (forwards !== undefined) await stopLettingThrough(around, attachment)
    if (ports !== undefined) await unmapPorts(around, attachment)
    if (limits) await unlimit(around, attachment)
  })
}

/** What is left of containers that the runtime does not list any more. `pattern` is any attachment of the network. Goes on after an error. */
export async function gcChained(
  around: PodSurroundings,
  pattern: ChainedAttachment,
  valid: readonly Listed[]
): Promise<void> {
  const { tuning, forwards, ports, limits } = pattern.interface
  const { network } = pattern
  const work: (() => void | Promise<void>)[] = [
    ...(ports === undefined && forwards === undefined ? [] : [() => collectMarked(around, pattern, valid)]),
    ...(limits ? [() => collectLimits(around, pattern, valid)] : []),
    ...(tuning === undefined ? [] : [() => collectSettings(tuning, network, valid)])
  ]
  const ended = await Promise.allSettled(work.map(async (each) => each()))
  const errors: unknown[] = ended.flatMap((each) => (each.status === 'rejected' ? [each.reason] : []))
  if (errors.length > 0) throw new AggregateError(errors, errors.map(reasonOf).join('; '))
}
