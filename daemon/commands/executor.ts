// Runs the commands of the network configuration, one at a time: as this node permits, noted while it runs, with its
// fault as a condition until it succeeds.
import { randomUUID } from 'node:crypto'
import type { Command } from '../backend/backend.ts'
import { reasonOf } from '../base/error.ts'
import type { Log } from '../base/log.ts'
import { andMore, shortened } from '../base/printable.ts'
import { SerialQueue } from '../base/serial-queue.ts'
import type { Health } from '../health/health.ts'
import type { Notes } from './notes.ts'
import { MARK } from './orphans.ts'
import type { Environment } from './peer-command.ts'
import type { Permission } from './permission.ts'
import { type Program, type Ran, runProgram } from './run-program.ts'
import { filledIn, parseWords, ShellSyntax } from './words.ts'

export type ExecutorDeps = {
  readonly permission: Permission
  /** weftd's own variables. */
  readonly environment: Readonly<Record<string, string | undefined>>
  readonly notes: Pick<Notes, 'noteRunning' | 'forgetRunning'>
  readonly health: Pick<Health, 'raise' | 'clear'>
  readonly log: Log
  /** Milliseconds that a command may take; 30 s when absent. */
  readonly deadlineMs?: number
}

/** What a command is run for. */
export type Call = { readonly environment: Environment; readonly input: string; readonly about: string }

const DEADLINE = 30_000

/** Flags by variable may be secrets (etcd's password), and the service manager's socket is weftd's. */
const OURS = /^(WEFTD_|FLANNELD_|NOTIFY_SOCKET$|WATCHDOG_)/

export class Executor {
  readonly #deps: ExecutorDeps
  readonly #queue = new SerialQueue()
  readonly #environment: Readonly<Record<string, string | undefined>>
  /** By job, the oldest first. */
  readonly #faults = new Map<string, string>()

  constructor(deps: ExecutorDeps) {
    this.#deps = deps
    this.#environment = Object.fromEntries(Object.entries(deps.environment).filter(([name]) => !OURS.test(name)))
  }

  get isPermitted(): boolean {
    return this.#deps.permission.commands
  }

  /** Work that consists of several commands, without others in between. */
  exclusively<T>(work: () => Promise<T>): Promise<T> {
    return this.#queue.take(work)
  }

  /** Within `exclusively`. Never rejects; what is not permitted is a fault. */
  async run(command: Command, call: Call, signal: AbortSignal): Promise<Ran> {
    const { permission, notes, log, deadlineMs = DEADLINE } = this.#deps
    const mark = randomUUID()
    const began = performance.now()
    let ran: Ran
    try {
      if (!permission.commands) throw new ShellSyntax('is not run without --allow-extension')
      const program = this.#program(command, call, mark)
      notes.noteRunning(mark)
      ran = await runProgram(program, { deadlineMs, signal })
      notes.forgetRunning()
    } catch (error) {
      ran = { fault: reasonOf(error), printed: '', said: '', isAborted: false }
    }
    const fields = { command: command.key, ms: Math.round(performance.now() - began), said: ran.said }
    if (ran.fault === undefined) log.info(fields, `ran for ${call.about}`)
    else log.warn(fields, `${command.key} for ${call.about} ${ran.fault}`)
    return ran
  }

  #program({ text }: Command, { environment, input }: Call, mark: string): Program {
    const all = { ...this.#environment, ...environment, [MARK]: mark }
    const [file = '', ...args] = this.#deps.permission.shell
      ? ['sh', '-c', text]
      : filledIn(parseWords(text), { ...this.#environment, ...environment })
    // flannel ends the input with a line break, too.
    return { file, args, environment: all, input: `${input}\n` }
  }

  /** The job has failed, or with `undefined` it is done. */
  report(job: string, fault: string | undefined): void {
    if (fault === undefined) this.#faults.delete(job)
    else this.#faults.set(job, fault)
    const [first] = this.#faults.values()
    if (first === undefined) this.#deps.health.clear('COMMAND_FAILED')
    else this.#deps.health.raise('COMMAND_FAILED', `${first}${andMore(this.#faults.size - 1)}`)
  }
}

/** `Backend.SubnetAddCommand (ip route add …) for subnet … ended with status 2 and said "…"`. */
export function faultText({ key, text }: Command, about: string, { fault, said }: Ran): string {
  const words = said === '' ? '' : `, and said ${JSON.stringify(said)}`
  return `${key} (${shortened(text)}) for ${about} ${fault}${words}`
}

/** Milliseconds before a failed job is tried again. */
export const pauseAfter = (failures: number): number => Math.min(1_000 * 2 ** (failures - 1), 60_000)
