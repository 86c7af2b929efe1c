// The verbs of plugins that change what an earlier plugin of the chain has made, and hand its result on.
import type { Attachment, Existing } from '../../plugins/attachment.ts'
import type { Result } from '../../plugins/cni/types.ts'
import { WeftError } from '../error.ts'
import type { PodSurroundings } from './surroundings.ts'
import { checkTuning, restore, tune } from './tuning.ts'

export type ChainedAttachment = Attachment & { readonly interface: Existing }

const mustBeChained = ({ plugin }: Attachment): WeftError =>
  new WeftError(
    'PREVIOUS_MISSING',
    `Required prevResult missing: ${plugin} must be called as a chained plugin`,
    `write ${plugin} behind the plugin that makes the interface, in "plugins" of a .conflist`
  )

/** `previous` with what was changed. Errors: PREVIOUS_MISSING; those of tune(). */
export async function addChained(
  around: PodSurroundings,
  attachment: ChainedAttachment,
  previous: Result | undefined
): Promise<Result> {
  if (previous === undefined) throw mustBeChained(attachment)
  const { tuning } = attachment.interface
  return tuning === undefined ? previous : await tune(around, attachment, tuning, previous)
}

export async function checkChained(
  around: PodSurroundings,
  attachment: ChainedAttachment,
  previous: Result | undefined
): Promise<void> {
  if (previous === undefined) throw mustBeChained(attachment)
  const { tuning } = attachment.interface
  if (tuning !== undefined) await checkTuning(around, attachment, tuning)
}

/** Never an error: the interface goes in any case. */
export async function delChained(around: PodSurroundings, attachment: ChainedAttachment): Promise<void> {
  const { tuning } = attachment.interface
  if (tuning !== undefined) await restore(around, attachment, tuning)
}
