// Runs another program to its end, without a shell.
import { execFile } from 'node:child_process'
import { WeftError } from '../base/error.ts'

export type Finished = { readonly exit: number | undefined; readonly stdout: string; readonly stderr: string }

/** Milliseconds: systemctl waits until a daemon is ready. */
const DEADLINE = 180_000
/** Bytes; iptables-save of a large cluster has a few megabytes. */
const LONGEST = 64 << 20

export type RunOptions = {
  readonly input?: string
  /** This process's own when absent. */
  readonly env?: Readonly<Record<string, string | undefined>>
}

/** Never rejects: `exit` is undefined where it could not be run or did not end, and `stderr` says why. */
export function runProgram(
  [program = '', ...words]: readonly string[],
  { input, env }: RunOptions = {}
): Promise<Finished> {
  return new Promise((resolve) => {
    const options = { maxBuffer: LONGEST, timeout: DEADLINE, killSignal: 'SIGKILL', ...(env && { env }) } as const
    const child = execFile(program, words, options, (error, stdout, stderr) => {
      const exit = error === null ? 0 : typeof error.code === 'number' ? error.code : undefined
      resolve({ exit, stdout, stderr: stderr.trim() || (error?.message ?? '') })
    })
    // A program that ends without reading its input closes the pipe; its exit status counts.
    child.stdin?.on('error', () => undefined)
    child.stdin?.end(input ?? '')
  })
}

/** Errors: MIGRATE_FAILED with the program's last words. */
export async function mustRun(words: readonly string[], options: RunOptions = {}): Promise<string> {
  const { exit, stdout, stderr } = await runProgram(words, options)
  if (exit === 0) return stdout
  const said = stderr.split('\n').findLast((line) => line.trim() !== '') ?? 'it printed nothing'
  throw new WeftError(
    'MIGRATE_FAILED',
    `${words.join(' ')} failed (${exit === undefined ? 'no exit status' : `exit status ${exit}`}): ${said}`,
    'correct what it says, then run the same command again, or "weftctl migrate rollback"'
  )
}

/** A command of the command line: words separated by spaces, and no shell. */
export const wordsOf = (command: string): readonly string[] => command.split(/\s+/).filter((word) => word !== '')
