// The types of a weftctl command: a question to the daemon and how its answer is printed, a page that is printed without
// asking, or one that lasts.

import { WeftError } from '../base/error.ts'
import { nearest } from '../base/nearest.ts'
import type { Flags, Values } from '../cli/flag-parser.ts'
import type { MIGRATE_FLAGS } from '../cli/migrate-flags.ts'
import type { Kubectl } from './remote.ts'

/** A word that follows the command's name. */
export type Operand = {
  /** For --help: `NAMESPACE/NAME`; not shown with `oneOf`. */
  readonly name: string
  readonly oneOf?: readonly string[]
  readonly isOptional?: true
  /** Needed where the optional word before it is given. */
  readonly followsOptional?: true
  /** Names that a shell may offer, by the word before: the first column of what `weftctl COMMAND` prints. */
  readonly offers?: Readonly<Record<string, string>>
}

/** A command as described in --help, manual page and completion. */
export type Described = {
  readonly about: string
  readonly operands?: readonly Operand[]
  /** What exit status 0, 1 and 4 mean; absent: always 0. */
  readonly exits?: string
}

export type Command = Described & {
  readonly exits: string
  /** Formats the answer; `operands` are those of the command line. Errors: ANSWER_UNKNOWN. */
  read(answer: unknown, operands: readonly string[]): { readonly text: string; readonly exit: 0 | 1 | 4 }
}

export type Page = Described & {
  print(operands: readonly string[]): string
}

/** A command that asks by itself, as often as it needs, and lasts until it is stopped. */
export type Lasting = Described & {
  readonly exits: string
  run(asking: Asking): Promise<0 | 1>
}

/** What a lasting command has to ask with. */
export type Asking = {
  readonly operands: readonly string[]
  readonly port: number
  readonly json: boolean
  /** Of weftd, on this machine. */
  readonly socket: string
  /** Of this process, for programs that migrate runs. */
  readonly env: Readonly<Record<string, string | undefined>>
  /** The flags of migrate. */
  readonly migrate: Values<typeof MIGRATE_FLAGS>
  /** The weftd of this machine, or the one that --node names. */
  ask(question: string, args: readonly string[]): Promise<unknown>
  /** Where every node of the cluster is asked. */
  readonly kubectl?: Kubectl
  out(text: string): void
  /** Aborted when the user ends the command; until it is called, a signal ends the process. */
  stopped(): AbortSignal
}

/** What manual pages and completions are printed from. */
export type Program = {
  readonly name: string
  /** Other names under which it is installed. */
  readonly aliases: readonly string[]
  /** One line, without a full stop. */
  readonly about: string
  /** Paragraphs. */
  readonly description: readonly string[]
  readonly flags: Flags
  /** Headings of the flags' groups, in order. */
  readonly groups: Readonly<Record<string, string>>
  /** Prefixes of environment variables; the first counts most. */
  readonly prefixes: readonly string[]
  readonly commands: Readonly<Record<string, Described>>
  readonly exits: readonly (readonly [status: string, meaning: string])[]
  readonly files: readonly (readonly [path: string, meaning: string])[]
  readonly seeAlso: readonly string[]
}

/** `why pod|node|address NAME [to pod|node|address NAME]`. */
export const usageOf = (name: string, { operands = [] }: Described): string =>
  [name, ...operands.map(shownAs)].join(' ').replaceAll('] [+', ' ')

function shownAs({ isOptional, followsOptional, ...operand }: Operand): string {
  return isOptional ? `[${followsOptional ? '+' : ''}${wordOf(operand)}]` : wordOf(operand)
}

const wordOf = ({ name, oneOf }: Operand): string => (oneOf === undefined ? name : oneOf.join('|'))

/** Errors: COMMAND_UNKNOWN for an operand that is missing, one too many, or not one of the allowed words. */
export function checkOperands(program: string, name: string, command: Described, given: readonly string[]): void {
  const { operands = [] } = command
  const usage = `run ${program} ${usageOf(name, command)}`
  for (const [at, operand] of operands.entries()) {
    const word = given[at]
    if (word === undefined) {
      if (operand.isOptional && (!operand.followsOptional || given[at - 1] === undefined)) continue
      throw new WeftError('COMMAND_UNKNOWN', `${name} needs ${wordOf(operand)}`, usage)
    }
    if (operand.oneOf === undefined || operand.oneOf.includes(word)) continue
    const near = nearest(word, operand.oneOf)
    const hint = near === undefined ? '' : `; the nearest is ${near}`
    throw new WeftError('COMMAND_UNKNOWN', `${name} has no ${JSON.stringify(word)}${hint}`, usage)
  }
  const extra = given[operands.length]
  if (extra === undefined) return
  throw new WeftError('COMMAND_UNKNOWN', `${name} takes no argument ${JSON.stringify(extra)}`, usage)
}
