// Ends what is left of a command during which an earlier weftd was killed, so that it does not run beside the next one.
import { readdirSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { LARGE_FILE, readFile } from '../../ipam/read-file.ts'

/** The variable by which the processes of one run of a command are known. */
export const MARK = 'WEFT_COMMAND_RUN'

/** Milliseconds for a killed process to go, and between two looks. */
const DEADLINE = 5_000
const LOOK = 20

function marked(mark: string): readonly number[] {
  const wanted = `${MARK}=${mark}`
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .map(Number)
    .filter((pid) => environmentOf(pid).includes(wanted))
}

function environmentOf(pid: number): readonly string[] {
  try {
    return readFile(`/proc/${pid}/environ`, LARGE_FILE).toString().split('\0')
  } catch {
    // It has ended, or is another user's.
    return []
  }
}

/** Kills the processes with this mark, and resolves when they have gone; at the latest after five seconds. */
export async function endMarked(mark: string, now: () => number = () => performance.now()): Promise<void> {
  const end = now() + DEADLINE
  for (let found = marked(mark); found.length > 0 && now() < end; found = marked(mark)) {
    for (const pid of found) {
      try {
        process.kill(pid, 'SIGKILL')
      } catch {
        // It has ended meanwhile.
      }
    }
    await sleep(LOOK)
  }
}
