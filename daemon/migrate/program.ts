// Runs the programs that a move needs: systemctl, iptables, and the commands of the command line.
import { WeftError } from '../base/error.ts'
import { type Finished, type ProgramOptions, runToEnd } from '../base/program.ts'

/** Milliseconds: systemctl waits until a daemon is ready. */
const DEADLINE = 180_000

type RunOptions = Omit<ProgramOptions, 'deadlineMs'>

/** Never rejects. */
export const runProgram = (words: readonly string[], options: RunOptions = {}): Promise<Finished> =>
  runToEnd(words, { ...options, deadlineMs: DEADLINE })

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
