// The verbs of plugins that change what an earlier plugin of the chain has made, and hand its result on.
import { formatPrefix } from '../../ipam/address.ts'
import type { Attachment, Existing } from '../../plugins/attachment.ts'
import type { Result } from '../../plugins/cni/types.ts'
import { WeftError } from '../error.ts'
import { subnetChain } from '../firewall/subnet-chain.ts'
import { keyOf } from '../state/object.ts'
import { letThrough } from './let-through.ts'
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
  const { tuning, forwards } = attachment.interface
  if (forwards !== undefined) await letThrough(around, attachment, forwards)
  return tuning === undefined ? previous : await tune(around, attachment, tuning, previous)
}

export async function checkChained(
  around: PodSurroundings,
  attachment: ChainedAttachment,
  previous: Result | undefined
): Promise<void> {
  if (previous === undefined) throw mustBeChained(attachment)
  const { tuning, forwards } = attachment.interface
  if (tuning !== undefined) await checkTuning(around, attachment, tuning)
  const missing = (forwards ?? []).find((prefix) => !around.host.observed.has(keyOf(subnetChain('forward', prefix))))
  if (missing !== undefined)
    throw new WeftError(
      'DIFFERENT',
      `packets of ${attachment.because} are not let through: the chain for ${formatPrefix(missing)} is missing`,
      'restart the pod'
    )
}

/** An interface that is gone already is no error. */
export async function delChained(around: PodSurroundings, attachment: ChainedAttachment): Promise<void> {
  const { tuning, forwards } = attachment.interface
  if (tuning !== undefined) await restore(around, attachment, tuning)
  if (forwards !== undefined) await letThrough(around, attachment, [])
}
