// Runs a program in a process group of its own, with a deadline and a limit on the output that is kept.
import { spawn } from 'node:child_process'
import { shortened } from '../base/printable.ts'

export type Program = {
  readonly file: string
  readonly args: readonly string[]
  readonly environment: Readonly<Record<string, string | undefined>>
  readonly input: string
}

export type Bounds = { readonly deadlineMs: number; readonly signal: AbortSignal }

export type Ran = {
  /** Absent: it ended with status 0. Completes "the command …". */
  readonly fault?: string
  /** Of standard output, without white space around it. */
  readonly printed: string
  /** The end of what it wrote to standard output and standard error. */
  readonly said: string
  /** weftd stops, and has ended it. */
  readonly isAborted: boolean
}

/** Bytes of standard output that are kept; the rest is read and dropped. */
export const MOST_PRINTED = 64 << 10
/** Characters kept of both outputs, for messages. */
const MOST_SAID = 400
const STOPPED = 'was ended: weftd stops'
/** Milliseconds that it has to end by itself when weftd stops. */
const GRACE = 3_000
/** Milliseconds after its end for which its output is still read: its children may keep the pipes open forever. */
const DRAIN = 200

/**
 * Resolves when it has ended, with its whole process group if it did not in time. Never rejects: a program that can't be
 * started is a fault, too.
 */
export function runProgram({ file, args, environment, input }: Program, { deadlineMs, signal }: Bounds): Promise<Ran> {
  const { promise, resolve } = Promise.withResolvers<Ran>()
  const output = new Output()
  if (signal.aborted) {
    resolve({ fault: STOPPED, printed: '', said: '', isAborted: true })
    return promise
  }
  // A process group of its own: what it has started ends with it.
  const child = spawn(file, args, { env: environment, cwd: '/', stdio: 'pipe', detached: true })
  // None where this process has no file descriptor left; "error" follows.
  const { stdin, stdout, stderr }: Partial<typeof child> = child
  let why: string | undefined
  const end = (reason: string) => {
    why ??= reason
    if (child.pid !== undefined) killGroup(child.pid)
  }
  const timers = [setTimeout(() => end(`did not end within ${deadlineMs / 1000} s`), deadlineMs)]
  const abort = () => void timers.push(setTimeout(() => end(STOPPED), GRACE))
  signal.addEventListener('abort', abort, { once: true })
  const stopTimers = () => {
    signal.removeEventListener('abort', abort)
    for (const timer of timers) clearTimeout(timer)
  }
  let isOver = false
  const over = (fault: string | undefined) => {
    if (isOver) return
    isOver = true
    stopTimers()
    for (const stream of [stdin, stdout, stderr]) stream?.destroy()
    resolve({ ...(fault !== undefined && { fault }), ...output.result(), isAborted: fault === STOPPED })
  }
  child.on('error', (error) => over(`can't be run: ${error.message}`))
  child.on('exit', (status, killedBy) => {
    stopTimers()
    const fault = why ?? (killedBy === null ? statusFault(status) : `was ended by ${killedBy}`)
    child.on('close', () => over(fault))
    setTimeout(() => over(fault), DRAIN)
  })
  // It need not read its input.
  stdin?.on('error', () => undefined)
  stdin?.end(input)
  stdout?.on('data', (chunk: Buffer) => output.add(chunk, true))
  stderr?.on('data', (chunk: Buffer) => output.add(chunk, false))
  return promise
}

const statusFault = (status: number | null): string | undefined =>
  status === 0 ? undefined : `ended with status ${status}`

function killGroup(leader: number): void {
  try {
    process.kill(-leader, 'SIGKILL')
  } catch {
    // It has ended meanwhile.
  }
}

class Output {
  readonly #printed: Buffer[] = []
  #bytes = 0
  #said = ''

  add(chunk: Buffer, isPrinted: boolean): void {
    this.#said = (this.#said + chunk.toString()).slice(-4 * MOST_SAID)
    if (!isPrinted || this.#bytes >= MOST_PRINTED) return
    const kept = chunk.subarray(0, MOST_PRINTED - this.#bytes)
    this.#printed.push(kept)
    this.#bytes += kept.length
  }

  result(): Pick<Ran, 'printed' | 'said'> {
    const said = this.#said.trim()
    const last = said.length > MOST_SAID ? `…${said.slice(-MOST_SAID)}` : said
    return { printed: Buffer.concat(this.#printed).toString().trim(), said: shortened(last, MOST_SAID + 1) }
  }
}
