// What the configuration needs and this kernel lacks: told while it lasts, and asked again, since an administrator may load a module at any time.

import { Backoff } from '../base/backoff.ts'
import type { WeftError } from '../base/error.ts'
import type { Health } from '../health/health.ts'

export type FeaturesDeps<F extends string> = {
  readonly needed: readonly F[]
  /** What does not work, each with its reason. Small kernels lack drivers and say so only when asked. */
  readonly ask: () => Promise<{ readonly [Name in F]?: WeftError }>
  readonly health: Pick<Health, 'raise' | 'clear'>
}

/** Asks once and raises or clears KERNEL_FEATURE; true when nothing is missing. */
export async function reportMissingFeatures<F extends string>(deps: FeaturesDeps<F>): Promise<boolean> {
  const found = await deps.ask()
  const missing = deps.needed.flatMap((feature): readonly WeftError[] => {
    const error = found[feature]
    return error === undefined ? [] : [error]
  })
  if (missing.length === 0) deps.health.clear('KERNEL_FEATURE')
  else {
    // Without the right to look, one sentence stands for every feature.
    const told = new Set(missing.map(({ message, cure }) => `${message} (${cure})`))
    deps.health.raise('KERNEL_FEATURE', [...told].join('; '))
  }
  return missing.length === 0
}

/** Resolves once nothing is missing any more; asks with growing pauses. Rejects when the signal aborts. */
export async function untilNoneMissing<F extends string>(deps: FeaturesDeps<F>, signal: AbortSignal): Promise<void> {
  const backoff = new Backoff()
  do await backoff.pause(signal)
  while (!(await reportMissingFeatures(deps)))
}
