// Runs the commands before and after this node takes its lease, and when weftd stops: each once for the same data, even
// if weftd restarts.

import type { Command, Commands } from '../backend/backend.ts'
import { WeftError } from '../base/error.ts'
import type { Log } from '../base/log.ts'
import { type Call, type Executor, faultText, pauseAfter } from './executor.ts'
import type { Notes } from './notes.ts'
import { aboutOf, type Environment } from './peer-command.ts'
import { MOST_PRINTED } from './run-program.ts'

export type StartDeps = {
  readonly executor: Executor
  readonly notes: Notes
  readonly log: Log
  readonly signal: AbortSignal
  /** Milliseconds of the monotonic clock. */
  readonly now: () => number
}

/** Bytes that are published in the lease. */
const MOST_PUBLISHED = 16 << 10
/** Milliseconds for the command at the end: the service manager waits for weftd. */
const LAST = 10_000

const THIS_NODE = 'this node'
const CURE = 'correct the command in the network configuration, or what it needs on this host; weftd tries it again'

export class StartCommands {
  readonly #deps: StartDeps
  /** The last attempt at the command before the lease that failed. */
  #failed:
    | { readonly text: string; readonly error: WeftError; readonly failures: number; readonly due: number }
    | undefined

  constructor(deps: StartDeps) {
    this.#deps = deps
  }

  /** Whether what these commands did at start is there. */
  isStarted({ beforeLease }: Commands): boolean {
    return this.#deps.notes.start?.before === (beforeLease?.text ?? '')
  }

  /**
   * What the command before the lease printed; run unless an earlier weftd has done so. Undoes first what the commands
   * of another configuration did. Errors: COMMAND_FAILED, until its pause is over without another attempt.
   */
  before(commands: Commands | undefined): Promise<{ readonly printed?: string }> {
    return this.#deps.executor.exclusively(() => this.begin(commands))
  }

  /** The same within `exclusively`. */
  async begin(commands: Commands | undefined): Promise<{ readonly printed?: string }> {
    const { notes } = this.#deps
    if (notes.start !== undefined && (commands === undefined || !this.isStarted(commands))) await this.undo()
    if (commands === undefined) return {}
    if (!this.isStarted(commands)) notes.noteStart(await this.#runBefore(commands.beforeLease))
    const printed = notes.start?.printed
    return printed === undefined ? {} : { printed }
  }

  async #runBefore(command: Command | undefined): Promise<{ readonly before: string; readonly printed?: string }> {
    if (command === undefined) return { before: '' }
    const { executor, signal, now } = this.#deps
    const failed = this.#failed?.text === command.text ? this.#failed : undefined
    if (failed !== undefined && now() < failed.due) throw failed.error
    const ran = await executor.run(command, { environment: {}, input: '', about: THIS_NODE }, signal)
    signal.throwIfAborted()
    const bytes = Buffer.byteLength(ran.printed)
    const much = bytes >= MOST_PRINTED ? `${MOST_PRINTED} bytes or more` : `${bytes} bytes`
    const fault =
      ran.fault ??
      (bytes > MOST_PUBLISHED ? `printed ${much}, more than the ${MOST_PUBLISHED} that a lease may publish` : undefined)
    if (fault !== undefined) {
      const error = new WeftError('COMMAND_FAILED', faultText(command, THIS_NODE, { ...ran, fault }), CURE)
      const failures = (failed?.failures ?? 0) + 1
      this.#failed = { text: command.text, error, failures, due: now() + pauseAfter(failures) }
      throw error
    }
    this.#failed = undefined
    return { before: command.text, printed: ran.printed }
  }

  /** Runs the command after the lease unless it was run for the same; within `exclusively`. The fault, if it failed. */
  async after({ afterLease, shutdown }: Commands, environment: Environment): Promise<string | undefined> {
    const { notes, executor, signal } = this.#deps
    const start = notes.start
    if (start === undefined) return undefined
    const after = { text: afterLease?.text ?? '', environment }
    const { shutdown: _, ...rest } = start
    const note = { ...rest, after, ...(shutdown && { shutdown }) }
    if (JSON.stringify(note) === JSON.stringify(start)) return undefined
    if (afterLease !== undefined && JSON.stringify(start.after) !== JSON.stringify(after)) {
      const ran = await executor.run(afterLease, { environment, input: '', about: THIS_NODE }, signal)
      if (ran.fault !== undefined) return faultText(afterLease, THIS_NODE, ran)
    }
    notes.noteStart(note)
    return undefined
  }

  /**
   * Removes what was added for the leases and runs the command at the end, each once; within `exclusively`. What a
   * command does not undo stays, with a line in the log.
   */
  async undo(signal = this.#deps.signal): Promise<void> {
    const { notes, executor, log } = this.#deps
    if (!executor.isPermitted) {
      log.warn({ leases: notes.peers.size }, 'what commands did on this node is left: --allow-extension is not set')
      return
    }
    for (const { key, removed, environment, input } of [...notes.peers.values()]) {
      if (removed !== undefined)
        await executor.run(removed, { environment, input, about: aboutOf({ key, environment }) }, signal)
      if (signal.aborted) return
      notes.forgetPeer(key)
    }
    await this.#shutDown(signal)
  }

  /** weftd stops. What the command undoes is not known: leases that were added may need it again. */
  end(): Promise<void> {
    const { executor, notes } = this.#deps
    return executor.exclusively(async () => {
      if (notes.start?.shutdown === undefined || !executor.isPermitted) return
      for (const note of [...notes.peers.values()]) if (note.isSure) notes.notePeer({ ...note, isSure: false })
      await this.#shutDown(AbortSignal.timeout(LAST))
    })
  }

  async #shutDown(signal: AbortSignal): Promise<void> {
    const { notes, executor } = this.#deps
    const { shutdown, after } = notes.start ?? {}
    const call: Call = { environment: after?.environment ?? {}, input: '', about: THIS_NODE }
    if (shutdown !== undefined) await executor.run(shutdown, call, signal)
    notes.forgetStart()
  }
}
