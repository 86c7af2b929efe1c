// Durations of a verb's steps, for the metric weft_pod_step_seconds.
import type { PodContext, Step, Verb } from './context.ts'

/** Runs one step of a verb and records how long it took, failed or not. */
export async function timed<T>(context: PodContext, verb: Verb, step: Step, work: () => Promise<T>): Promise<T> {
  const begun = context.now()
  try {
    return await work()
  } finally {
    context.timings(verb, step, (context.now() - begun) / 1000)
  }
}
