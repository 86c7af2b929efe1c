// Notes in the state directory of what commands were run for: a restarted weftd undoes what has gone meanwhile, and runs
// nothing twice. They are gone after a reboot, like what the commands did.
import { readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { contentOf, ifThere, makeDirectory } from '../../ipam/files.ts'
import { LARGE_FILE } from '../../ipam/read-file.ts'
import type { Command } from '../backend/backend.ts'
import { reasonOf, WeftError } from '../base/error.ts'
import type { Log } from '../base/log.ts'
import { replaceFile } from '../base/replace-file.ts'
import { parseLeaseKey } from '../lease/lease.ts'
import type { Environment, PeerCommand } from './peer-command.ts'

/** The commands of a start that succeeded. */
export type StartNote = {
  /** The command before the lease, empty without one, and what it printed. */
  readonly before: string
  readonly printed?: string
  readonly after?: { readonly text: string; readonly environment: Environment }
  readonly shutdown?: Command
}

/** `isSure`: the command for it has succeeded; otherwise it may have done something. */
export type PeerNote = PeerCommand & { readonly isSure: boolean }

const START = 'start.json'
const RUNNING = 'running.json'

export class Notes {
  readonly #directory: string
  readonly #log: Log
  readonly #peers = new Map<string, PeerNote>()
  #start: StartNote | undefined

  /** Reads what an earlier weftd noted. */
  constructor(stateDir: string, log: Log) {
    this.#directory = join(stateDir, 'commands')
    this.#log = log
    for (const name of ifThere(this.#directory, (path) => readdirSync(path)) ?? []) {
      const key = name.replace(/\.json$/, '')
      const note = name === RUNNING ? undefined : this.#read(name)
      if (note === undefined) continue
      if (name === START && isStartNote(note)) this.#start = note
      else if (parseLeaseKey(key) !== undefined && isPeerNote(note)) this.#peers.set(key, { ...note, key })
    }
  }

  get peers(): ReadonlyMap<string, PeerNote> {
    return this.#peers
  }

  get start(): StartNote | undefined {
    return this.#start
  }

  /** The mark of a command during which an earlier weftd was killed. */
  get running(): string | undefined {
    const mark = this.#read(RUNNING)?.mark
    return typeof mark === 'string' ? mark : undefined
  }

  /** Errors: STATE_UNWRITABLE; then nothing must be run, since nobody would know of it. */
  noteStart(note: StartNote): void {
    this.#write(START, note)
    this.#start = note
  }

  notePeer(note: PeerNote): void {
    this.#write(`${note.key}.json`, note)
    this.#peers.set(note.key, note)
  }

  noteRunning(mark: string): void {
    this.#write(RUNNING, { mark })
  }

  forgetStart(): void {
    this.#remove(START)
    this.#start = undefined
  }

  forgetPeer(key: string): void {
    this.#remove(`${key}.json`)
    this.#peers.delete(key)
  }

  forgetRunning(): void {
    this.#remove(RUNNING)
  }

  #read(name: string): Readonly<Record<string, unknown>> | undefined {
    const path = join(this.#directory, name)
    try {
      const value: unknown = JSON.parse(contentOf(path, LARGE_FILE) ?? 'null')
      return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined
    } catch (error) {
      this.#log.warn({ path, reason: reasonOf(error) }, 'the note of a command is invalid and not used')
      return undefined
    }
  }

  #write(name: string, note: object): void {
    const path = join(this.#directory, name)
    try {
      makeDirectory(this.#directory, 0o700)
      replaceFile(path, Buffer.from(`${JSON.stringify(note)}\n`), 0o600)
    } catch (cause) {
      throw new WeftError(
        'STATE_UNWRITABLE',
        `can't note in ${path} that a command is run: ${reasonOf(cause)}`,
        `free space, or make ${this.#directory} writable`,
        { cause }
      )
    }
  }

  #remove(name: string): void {
    rmSync(join(this.#directory, name), { force: true })
  }
}

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const isEnvironment = (value: unknown): boolean =>
  isObject(value) && Object.values(value).every((text) => typeof text === 'string')

const isCommand = (value: unknown): boolean =>
  value === undefined || (isObject(value) && typeof value.key === 'string' && typeof value.text === 'string')

const isStartNote = (note: object): note is StartNote => {
  const { before, printed, after, shutdown } = note as Partial<Record<keyof StartNote, unknown>>
  const isText = (value: unknown) => value === undefined || typeof value === 'string'
  return (
    typeof before === 'string' &&
    isText(printed) &&
    (after === undefined || (isObject(after) && typeof after.text === 'string' && isEnvironment(after.environment))) &&
    isCommand(shutdown)
  )
}

const isPeerNote = (note: object): note is PeerNote => {
  const { environment, input, added, removed, isSure } = note as Partial<Record<keyof PeerNote, unknown>>
  return (
    isEnvironment(environment) &&
    typeof input === 'string' &&
    isCommand(added) &&
    isCommand(removed) &&
    typeof isSure === 'boolean'
  )
}
