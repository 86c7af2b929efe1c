// Running programs for the lab: to their end, or in the background with the log in a file; and waiting for a condition
// with a deadline.
import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import { pidInside, type Spawn } from './pid-namespace.ts'

export interface RunOptions {
  readonly input?: string
  /** Added to this process's environment. */
  readonly env?: Readonly<Record<string, string>>
  /** Throw unless the program ends with 0; true when absent. */
  readonly check?: boolean
  /** The program is killed after this; 30,000 when absent. */
  readonly timeoutMs?: number
  /** Of node:child_process when absent. */
  readonly spawn?: Spawn
}

export interface Finished {
  readonly code: number
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
  readonly microseconds: number
}

/**
 * Runs a program to its end. Rejects with the command line, its exit and its output when `check` is on and it fails,
 * and always on a time-out.
 */
export function run(file: string, args: readonly string[], options: RunOptions = {}): Promise<Finished> {
  const { input = '', env = {}, check = true, timeoutMs = 30_000 } = options
  const { promise, resolve, reject } = Promise.withResolvers<Finished>()
  const begun = process.hrtime.bigint()
  const start: Spawn = options.spawn ?? spawn
  const child = start(file, args, { env: { ...process.env, ...env }, stdio: ['pipe', 'pipe', 'pipe'] })
  const line = [file, ...args].join(' ')
  let timedOut = false
  const timer = setTimeout(() => {
    timedOut = true
    child.kill('SIGKILL')
  }, timeoutMs)
  let stdout = ''
  let stderr = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text
  })
  // A program that ends without reading its input breaks the pipe; its exit code tells what happened.
  child.stdin.on('error', () => {})
  child.stdin.end(input)
  child.on('error', (cause) => {
    clearTimeout(timer)
    reject(new Error(`cannot run ${line}: ${cause.message}`, { cause }))
  })
  child.on('close', (code, signal) => {
    clearTimeout(timer)
    const microseconds = Number((process.hrtime.bigint() - begun) / 1000n)
    const finished = { code: code ?? 128, signal, stdout, stderr, microseconds }
    const said = [stderr.trim(), stdout.trim()].filter((text) => text !== '').join('\n')
    if (timedOut) reject(new Error(`${line}: killed after ${timeoutMs} ms without an end\n${said}`))
    else if (check && finished.code !== 0) reject(new Error(`${line}: ended with ${signal ?? code}\n${said}`))
    else resolve(finished)
  })
  return promise
}

/**
 * Waits until `condition` returns something true and no empty list, and returns that. What it throws counts as "not
 * yet". Rejects at the deadline (a minute when absent, for a machine that is busy with other things) with what was
 * awaited and what was seen last.
 */
export async function until<T>(
  condition: () => T | Promise<T>,
  options: { readonly what: string; readonly deadlineMs?: number; readonly everyMs?: number }
): Promise<Exclude<T, false | null | undefined>> {
  const { what, deadlineMs = 60_000, everyMs = 20 } = options
  const end = Date.now() + deadlineMs
  let last: unknown
  for (;;) {
    try {
      const value = await condition()
      if (value && !(Array.isArray(value) && value.length === 0)) return value as Exclude<T, false | null | undefined>
      last = value
    } catch (error) {
      last = error
    }
    if (Date.now() >= end) break
    await pause(everyMs)
  }
  const seen = last instanceof Error ? last.message : JSON.stringify(last)
  throw new Error(`waited ${deadlineMs} ms in vain for ${what}; seen last: ${seen}`, { cause: last })
}

/** Reads until two readings in a row are equal, and returns that value. Rejects as `until` does. */
export async function settled<T extends string | number>(
  read: () => Promise<T>,
  options: { readonly what: string; readonly everyMs: number }
): Promise<T> {
  let last: T | undefined
  const { value } = await until(async () => {
    const value = await read()
    const isSettled = value === last
    last = value
    return isSettled && { value }
  }, options)
  return value
}

export interface Exit {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

export interface BackgroundOptions {
  /** Added to this process's environment. */
  readonly env?: Readonly<Record<string, string>>
  readonly logPath: string
  /** Of node:child_process when absent. */
  readonly spawn?: Spawn
}

/**
 * A program in the background, in a session of its own; both outputs go to one file, so that it can outlive this
 * process (`Lab.keep`).
 */
export class Background {
  readonly name: string
  readonly logPath: string
  readonly #child: ChildProcess
  readonly #exit: Promise<Exit>
  #ended: Exit | undefined

  constructor(
    name: string,
    file: string,
    args: readonly string[],
    { env = {}, logPath, spawn: start = spawn }: BackgroundOptions
  ) {
    this.name = name
    this.logPath = logPath
    const log = openSync(logPath, 'a')
    this.#child = start(file, args, { env: { ...process.env, ...env }, detached: true, stdio: ['ignore', log, log] })
    closeSync(log)
    this.#exit = new Promise((resolve, reject) => {
      this.#child.on('error', (cause) => reject(new Error(`cannot run ${file}: ${cause.message}`, { cause })))
      this.#child.on('exit', (code, signal) => {
        this.#ended = { code, signal }
        resolve(this.#ended)
      })
    })
    // Looked at by `exited` and `stop`; a start that fails shows there.
    this.#exit.catch(() => {})
  }

  get pid(): number {
    if (this.#child.pid === undefined) throw new Error(`${this.name} was not started`)
    return this.#child.pid
  }

  /** Its pid as programs of its lab see it. */
  get pidInside(): number {
    return pidInside(this.pid)
  }

  /** How it ended, or undefined while it runs. */
  get ended(): Exit | undefined {
    return this.#ended
  }

  exited(): Promise<Exit> {
    return this.#exit
  }

  /** Everything it printed so far. */
  text(): string {
    return readFileSync(this.logPath, 'utf8')
  }

  kill(signal: NodeJS.Signals): void {
    if (!this.#ended) this.#child.kill(signal)
  }

  /** SIGTERM, and SIGKILL after the deadline. */
  async stop(deadlineMs = 3_000): Promise<Exit> {
    this.kill('SIGTERM')
    const timer = setTimeout(() => this.kill('SIGKILL'), deadlineMs)
    try {
      return await this.#exit
    } finally {
      clearTimeout(timer)
    }
  }

  /** Lets this process end while the program still runs. */
  release(): void {
    this.#child.unref()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }
}
