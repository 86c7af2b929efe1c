// Runs kubectl with a deadline, after which it is killed.
import { execFile } from 'node:child_process'
import type { Kubectl } from './remote.ts'

/** `Kubectl` with its deadline in milliseconds. */
export type KubectlProgram = (words: readonly string[], deadlineMs: number, input?: string) => ReturnType<Kubectl>

/** Limit of the output in bytes: `nodes` of a large cluster has a few hundred for each node. */
const LONGEST = 64 << 20

/** Never rejects: why it could not run or did not finish in time is in `stderr`. */
export const kubectl: KubectlProgram = (words, deadlineMs, input) =>
  new Promise((resolve) => {
    const options = { maxBuffer: LONGEST, timeout: deadlineMs, killSignal: 'SIGKILL' } as const
    const child = execFile('kubectl', words, options, (error, stdout, stderr) => {
      if (error === null) resolve({ exit: 0, stdout, stderr })
      else if (typeof error.code === 'number') resolve({ exit: error.code, stdout, stderr })
      else {
        const late = error.killed ? `kubectl did not end within ${deadlineMs / 1000} s` : ''
        resolve({ exit: undefined, stdout, stderr: [stderr.trim(), late].filter(Boolean).join('\n') || error.message })
      }
    })
    // It may end without reading its input; its exit status counts.
    child.stdin?.on('error', () => undefined)
    child.stdin?.end(input ?? '')
  })
