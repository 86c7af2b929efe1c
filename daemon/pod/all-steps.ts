// Runs the steps of a clean-up: an error in one must not leave the rest undone.
import { reasonOf } from '../base/error.ts'

/** One after the other, the rest also after an error. Errors: all of them, at the end. */
export async function allSteps(steps: Iterable<() => unknown>): Promise<void> {
  const errors: unknown[] = []
  for (const step of steps) {
    try {
      await step()
    } catch (error) {
      errors.push(error)
    }
  }
  throwAll(errors)
}

/** Errors: the only one of these as it is, or all of them in one. */
export function throwAll(errors: readonly unknown[]): void {
  if (errors.length === 1) throw errors[0]
  if (errors.length > 1) throw new AggregateError(errors, errors.map(reasonOf).join('; '))
}
