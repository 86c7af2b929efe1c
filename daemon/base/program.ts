// Runs another program to its end, without a shell, with a deadline after which it is killed.
import { execFile } from 'node:child_process'

/** `exit`: undefined where it could not be run, or did not end by itself; `stderr` then says why. */
export type Finished = { readonly exit: number | undefined; readonly stdout: string; readonly stderr: string }

export type ProgramOptions = {
  readonly deadlineMs: number
  /** Standard input; empty when absent. */
  readonly input?: string | undefined
  /** This process's own when absent. */
  readonly env?: Readonly<Record<string, string | undefined>> | undefined
}

/** Bytes of output; iptables-save, or the nodes of a large cluster, have a few megabytes. */
const LONGEST = 64 << 20

/** Never rejects. */
export function runToEnd(
  [program = '', ...words]: readonly string[],
  { deadlineMs, input = '', env }: ProgramOptions
): Promise<Finished> {
  const { promise, resolve } = Promise.withResolvers<Finished>()
  const options = { maxBuffer: LONGEST, timeout: deadlineMs, killSignal: 'SIGKILL', ...(env && { env }) } as const
  const child = execFile(program, words, options, (error, stdout, stderr) => {
    if (error === null) resolve({ exit: 0, stdout, stderr })
    else if (typeof error.code === 'number') resolve({ exit: error.code, stdout, stderr })
    else {
      const late = error.killed ? `${program} did not end within ${deadlineMs / 1000} s` : ''
      resolve({ exit: undefined, stdout, stderr: [stderr.trim(), late].filter(Boolean).join('\n') || error.message })
    }
  })
  // A program that ends without reading its input closes the pipe; its exit status counts.
  child.stdin?.on('error', () => undefined)
  child.stdin?.end(input)
  return promise
}
