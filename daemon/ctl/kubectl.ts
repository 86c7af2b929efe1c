// Runs kubectl with a deadline, after which it is killed.
import { runToEnd } from '../base/program.ts'
import type { Kubectl } from './remote.ts'

/** `Kubectl` with its deadline in milliseconds. */
export type KubectlProgram = (words: readonly string[], deadlineMs: number, input?: string) => ReturnType<Kubectl>

/** Never rejects: why it could not run or did not finish in time is in `stderr`. */
export const kubectl: KubectlProgram = (words, deadlineMs, input) =>
  runToEnd(['kubectl', ...words], { deadlineMs, input })
