// kubectl as a program: its words, what it printed, and an end by force where it does not come to one.
import { execFile } from 'node:child_process'
import type { Kubectl } from './remote.ts'

/** `Kubectl` with the milliseconds that it has. */
export type KubectlProgram = (words: readonly string[], deadlineMs: number) => ReturnType<Kubectl>

/** Bytes of an answer: `nodes` of a large cluster has some hundred for each. */
const LONGEST = 64 << 20

/** Never rejects: what keeps it from running, or from ending in time, stands where its own complaint would. */
export const kubectl: KubectlProgram = (words, deadlineMs) =>
  new Promise((resolve) => {
    const options = { maxBuffer: LONGEST, timeout: deadlineMs, killSignal: 'SIGKILL' } as const
    execFile('kubectl', words, options, (error, stdout, stderr) => {
      if (error === null) resolve({ exit: 0, stdout, stderr })
      else if (typeof error.code === 'number') resolve({ exit: error.code, stdout, stderr })
      else {
        const late = error.killed ? `kubectl did not end within ${deadlineMs / 1000} s` : ''
        resolve({ exit: undefined, stdout, stderr: [stderr.trim(), late].filter(Boolean).join('\n') || error.message })
      }
    })
  })
