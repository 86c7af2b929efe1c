// Raises KERNEL_FEATURE while the kernel lacks something that the configuration needs. Tries again, since an
// administrator may load a module at any time.
import { Backoff, retry } from '../base/backoff.ts'
import type { WeftError } from '../base/error.ts'
import type { Health } from '../health/health.ts'

export type FeaturesDeps = {
  /** One error for each feature that is missing. */
  readonly missing: () => Promise<readonly WeftError[]>
  readonly health: Pick<Health, 'raise' | 'clear'>
}

/**
 * Tries once, and continues in the background while something is missing; `complete` is called when nothing is any
 * more.
 */
export async function followFeatures(
  deps: FeaturesDeps,
  complete: () => void,
  { running, signal }: { readonly running: (work: Promise<unknown>) => void; readonly signal: AbortSignal }
): Promise<void> {
  if (await reportMissingFeatures(deps)) return
  running(untilNoneMissing(deps, signal).then(complete))
}

/** Tries once and raises or clears KERNEL_FEATURE; true when nothing is missing. */
export async function reportMissingFeatures({ missing, health }: FeaturesDeps): Promise<boolean> {
  const errors = await missing()
  // Without the right to try, all features have one error.
  const each = (part: 'message' | 'cure') => [...new Set(errors.map((error) => error[part]))].join('; ')
  if (errors.length === 0) health.clear('KERNEL_FEATURE')
  else health.raise('KERNEL_FEATURE', each('message'), each('cure'))
  return errors.length === 0
}

/** Resolves once nothing is missing any more; tries with exponential backoff. Rejects when the signal aborts. */
export async function untilNoneMissing(deps: FeaturesDeps, signal: AbortSignal): Promise<void> {
  const backoff = new Backoff()
  await backoff.pause(signal)
  await retry(async () => (await reportMissingFeatures(deps)) || undefined, { signal, backoff })
}
