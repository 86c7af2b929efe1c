// Keeps the commands of the network configuration in step with the leases: compares what is wanted with what is noted
// as done, and runs the difference in order, each subnet's commands one after the other.
import type { ConfiguredBackend } from '../backend/backend.ts'
import { WeftError } from '../base/error.ts'
import type { Log } from '../base/log.ts'
import { Wakeup } from '../base/wakeup.ts'
import type { Health } from '../health/health.ts'
import { networksOf, type Place } from '../node/place.ts'
import type { Peers } from '../peers/peers.ts'
import { Executor, type ExecutorDeps, faultText, pauseAfter } from './executor.ts'
import { Notes, type PeerNote } from './notes.ts'
import { endMarked } from './orphans.ts'
import { aboutOf, ownEnvironment, type PeerCommand, peerCommand, sameCommand } from './peer-command.ts'
import { StartCommands } from './start-commands.ts'

export type CommandRunnerDeps = Omit<ExecutorDeps, 'notes'> & {
  readonly health: Pick<Health, 'raise' | 'clear'>
  readonly stateDir: string
  readonly log: Log
  readonly signal: AbortSignal
  /** Milliseconds of the monotonic clock. */
  readonly now: () => number
}

export type KnownPeers = Pick<Peers, 'leases' | 'isOwn' | 'skipped'> & { onWanted: Peers['onWanted'] }

/** A job that is to be looked at; `failures` in a row, the next attempt when `due`. */
type Pending = { readonly failures: number; readonly due: number; readonly text: string }

/** The job of the commands after the lease. */
const START = 'start'
/** Milliseconds until it is looked again whether the store's list is complete and plausible. */
const UNTRUSTED = 1_000

export class CommandRunner {
  readonly #deps: CommandRunnerDeps
  readonly #notes: Notes
  readonly #executor: Executor
  readonly #start: StartCommands
  readonly #wakeup = new Wakeup()
  readonly #pending = new Map<string, Pending>()
  /** Leases that this weftd has seen: when they have gone, that is no gap in the store's first answer. */
  readonly #seen = new Set<string>()
  #peers: KnownPeers | undefined
  #trusts: () => boolean = () => false
  #place: Place | undefined

  private constructor(deps: CommandRunnerDeps, notes: Notes) {
    this.#deps = deps
    this.#notes = notes
    this.#executor = new Executor({ ...deps, notes })
    this.#start = new StartCommands({ ...deps, notes, executor: this.#executor })
  }

  /** With what an earlier weftd noted; a command during which that was killed is ended. */
  static async open(deps: CommandRunnerDeps): Promise<CommandRunner> {
    const notes = new Notes(deps.stateDir, deps.log)
    const { running } = notes
    if (running !== undefined) {
      await endMarked(running)
      notes.forgetRunning()
    }
    return new CommandRunner(deps, notes)
  }

  /** For Membership: before a lease is taken with this backend. Errors: COMMAND_FAILED. */
  beforeLease({ commands }: ConfiguredBackend): Promise<{ readonly printed?: string }> {
    return this.#start.before(commands)
  }

  /** The place of this node is new or has changed. */
  placed(place: Place): void {
    this.#place = place
    // The leases follow, once it is known which of them are this node's own and which are used.
    this.#touch([START, ...this.#notes.peers.keys()])
  }

  /** Follows the leases until the signal. `trusts`: the store has listed everything, so what is missing has gone. */
  async follow(peers: KnownPeers, trusts: () => boolean): Promise<void> {
    const { signal } = this.#deps
    const before = peers.onWanted
    peers.onWanted = (keys) => {
      before(keys)
      this.#touch(keys)
    }
    this.#peers = peers
    this.#trusts = trusts
    this.#touch(this.#notes.peers.keys())
    while (!signal.aborted) {
      const next = this.#next()
      const pause = next === undefined ? undefined : next.due - this.#deps.now()
      if (next !== undefined && pause !== undefined && pause <= 0) await this.#step(next.job)
      else await this.#wakeup.next(signal, ...(pause === undefined ? [] : [AbortSignal.timeout(Math.ceil(pause))]))
    }
  }

  /** weftd stops. */
  end(): Promise<void> {
    return this.#start.end()
  }

  /** Weft leaves this host. */
  undo(): Promise<void> {
    const { start, peers } = this.#notes
    if (start === undefined && peers.size === 0) return Promise.resolve()
    return this.#executor.exclusively(() => this.#start.undo(AbortSignal.timeout(600_000)))
  }

  get #commands(): ConfiguredBackend['commands'] {
    return this.#place?.backend.commands
  }

  #touch(jobs: Iterable<string>): void {
    const { start, peers } = this.#notes
    if (this.#commands === undefined && start === undefined && peers.size === 0) return
    for (const job of jobs) {
      const text = job === START ? '' : JSON.stringify(this.#wanted(job) ?? null)
      // What has failed is not tried again before its pause is over, unless something else is wanted now.
      if (this.#pending.get(job)?.text !== text) this.#pending.set(job, { failures: 0, due: this.#deps.now(), text })
    }
    this.#wakeup.notify()
  }

  /** The job that is due first. Nothing is done for leases before the commands at start have succeeded. */
  #next(): (Pending & { readonly job: string }) | undefined {
    const start = this.#pending.get(START)
    if (start !== undefined) return { job: START, ...start }
    if (this.#place === undefined || (this.#commands && !this.#start.isStarted(this.#commands))) return undefined
    let first: (Pending & { readonly job: string }) | undefined
    for (const [job, pending] of this.#pending)
      if (first === undefined || pending.due < first.due) first = { job, ...pending }
    return first
  }

  #wanted(key: string): PeerCommand | undefined {
    const [peers, commands] = [this.#peers, this.#commands]
    const lease = peers?.leases.get(key)
    if (peers === undefined || lease === undefined || commands === undefined) return undefined
    this.#seen.add(key)
    if (peers.isOwn(key) || peers.skipped.has(key) || lease.backendType !== this.#place?.backend.type) return undefined
    return usable(() => peerCommand(lease, commands))
  }

  async #step(job: string): Promise<void> {
    const tried = this.#pending.get(job)
    if (tried === undefined) return
    const step = () => (job === START ? this.#startStep() : this.#peerStep(job))
    const outcome = await this.#executor.exclusively(step).catch((error: unknown): Outcome => {
      if (!(error instanceof WeftError)) throw error
      return { fault: error.message }
    })
    // Touched meanwhile: it is looked at again.
    const isSame = this.#pending.get(job) === tried
    if (outcome === 'done') {
      if (isSame) this.#pending.delete(job)
      this.#executor.report(job, undefined)
    } else if (outcome === 'untrusted') {
      if (isSame) this.#pending.set(job, { ...tried, due: this.#deps.now() + UNTRUSTED })
    } else if (!this.#deps.signal.aborted) {
      const failures = tried.failures + 1
      if (isSame) this.#pending.set(job, { ...tried, failures, due: this.#deps.now() + pauseAfter(failures) })
      this.#executor.report(job, outcome.fault)
    }
  }

  async #startStep(): Promise<Outcome> {
    const [place, commands] = [this.#place, this.#commands]
    if (place === undefined) return 'done'
    // Usually done before the lease was taken; not for a place that another weftd's lease was resumed for.
    await this.#start.begin(commands)
    if (commands === undefined) return 'done'
    const fault = await this.#start.after(commands, ownEnvironment(place.node, networksOf(place.conf)))
    return fault === undefined ? 'done' : { fault }
  }

  /** What was added otherwise, or perhaps, is removed first; then what is wanted is added. */
  async #peerStep(key: string): Promise<Outcome> {
    const [have, want] = [this.#notes.peers.get(key), this.#wanted(key)]
    if (have === undefined && want === undefined) return 'done'
    if (have?.isSure && want !== undefined && sameCommand(have, want)) return this.#renote(have, want)
    if (want === undefined && !this.#seen.has(key) && !this.#trusts()) return 'untrusted'
    const fault = (have && (await this.#remove(have))) ?? (want && (await this.#add(want)))
    return fault === undefined ? 'done' : { fault }
  }

  /** The command for its removal may be another now. */
  #renote({ isSure, ...have }: PeerNote, want: PeerCommand): 'done' {
    if (JSON.stringify(have) !== JSON.stringify(want)) this.#notes.notePeer({ ...want, isSure })
    return 'done'
  }

  async #remove(have: PeerNote): Promise<string | undefined> {
    const { removed, isSure } = have
    if (removed !== undefined) {
      // If weftd is killed meanwhile, it may have been removed.
      if (isSure) this.#notes.notePeer({ ...have, isSure: false })
      const about = aboutOf(have)
      const ran = await this.#executor.run(removed, { ...have, about }, this.#deps.signal)
      if (ran.isAborted) return faultText(removed, about, ran)
      if (ran.fault !== undefined && isSure) {
        this.#notes.notePeer(have)
        return faultText(removed, about, ran)
      }
    }
    this.#notes.forgetPeer(have.key)
    return undefined
  }

  async #add(want: PeerCommand): Promise<string | undefined> {
    const { added } = want
    if (added !== undefined) {
      this.#notes.notePeer({ ...want, isSure: false })
      const about = aboutOf(want)
      const ran = await this.#executor.run(added, { ...want, about }, this.#deps.signal)
      if (ran.fault !== undefined) return faultText(added, about, ran)
    }
    this.#notes.notePeer({ ...want, isSure: true })
    return undefined
  }
}

/** `undefined` for a lease that can't be used; Peers, which may not have looked at it yet, reports that. */
function usable(command: () => PeerCommand | undefined): PeerCommand | undefined {
  try {
    return command()
  } catch (error) {
    if (error instanceof WeftError && error.code === 'LEASE_MALFORMED') return undefined
    throw error
  }
}

type Outcome = 'done' | 'untrusted' | { readonly fault: string }
