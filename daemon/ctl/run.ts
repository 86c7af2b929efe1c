// weftctl from its words to its exit status, with the streams handed in.
import { defaultSocketPath } from '../../plugins/protocol.ts'
import { reasonOf, WeftError } from '../error.ts'
import { type Flags, nearest, parseFlags, printFlags, text, toggle, whole } from '../flag.ts'
import { ask } from './ask.ts'
import type { Command } from './command.ts'
import { diff } from './diff.ts'
import { status } from './status.ts'

/** A new command is a file with a Command, and a line here. */
export const COMMANDS: Readonly<Record<string, Command>> = { status, diff }

const FLAGS = {
  socket: {
    group: 'flags',
    reader: text('FILE'),
    default: defaultSocketPath,
    help: "weftd's socket, weftd.sock in its --state-dir; also WEFTCTL_SOCKET"
  },
  timeout: {
    group: 'flags',
    reader: whole('SECONDS', 1, 3600),
    default: '10',
    help: 'how long to wait for the answer'
  },
  json: { group: 'flags', reader: toggle, default: 'false', help: 'print the answer as JSON' },
  help: { group: 'flags', reader: toggle, default: 'false', help: 'print this text' },
  version: { group: 'flags', reader: toggle, default: 'false', help: 'print the version' }
} as const satisfies Flags

export type Surroundings = {
  readonly env: Readonly<Record<string, string | undefined>>
  readonly version: string
  out(text: string): void
  complain(text: string): void
}

/** 0 and 1 as the command says, 2 wrong words, 3 no answer. */
export type Exit = 0 | 1 | 2 | 3

/** Runs `weftctl WORDS…` to its end. Never throws. */
export async function run(words: readonly string[], around: Surroundings): Promise<Exit> {
  const fail = (exit: Exit, ...errors: readonly unknown[]): Exit => {
    for (const error of errors) {
      around.complain(`weftctl: ${reasonOf(error)}\n${error instanceof WeftError ? `cure: ${error.cure}\n` : ''}`)
    }
    return exit
  }
  // The command is the first word that is no flag; none of the flags before it takes the next word.
  const at = words.findIndex((word) => !word.startsWith('-'))
  const [name, flags] = at < 0 ? [undefined, words] : [words[at], words.toSpliced(at, 1)]
  const parsed = parseFlags(FLAGS, ['WEFTCTL_'], flags, around.env)
  if ('errors' in parsed) return fail(2, ...parsed.errors)
  const { socket, timeout, json, help, version } = parsed.values
  if (help || name === 'help') return print(around, printHelp(80))
  if (version) return print(around, `weftctl ${around.version}\n`)
  const command = name !== undefined && Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined
  if (name === undefined || command === undefined) return fail(2, unknown(name))
  try {
    const answer = await ask(socket, name, [], AbortSignal.timeout(timeout * 1000))
    const { text, exit } = json
      ? { text: `${JSON.stringify(answer, null, 2)}\n`, exit: exitOf(command, answer) }
      : command.read(answer)
    around.out(text)
    return exit
  } catch (error) {
    return fail(3, error)
  }
}

/** With --json an answer of another version is still printed. */
function exitOf(command: Command, answer: unknown): Exit {
  try {
    return command.read(answer).exit
  } catch {
    return 0
  }
}

function print(around: Surroundings, text: string): Exit {
  around.out(text)
  return 0
}

function unknown(name: string | undefined): WeftError {
  const names = Object.keys(COMMANDS)
  const near = name === undefined ? undefined : nearest(name, names)
  return new WeftError(
    'COMMAND_UNKNOWN',
    name === undefined
      ? 'no command is given'
      : `there is no command ${JSON.stringify(name)}${near === undefined ? '' : `; the nearest is ${near}`}`,
    `use one of ${names.join(', ')}; weftctl --help tells more`
  )
}

export function printHelp(width: number): string {
  const commands = Object.entries(COMMANDS).map(
    ([name, { about, exits }]) => `  ${name.padEnd(8)}${about} (exit status: ${exits})`
  )
  return `weftctl asks the weftd of this node.

Usage: weftctl COMMAND [--flag=value …]

Commands:
${commands.join('\n')}

${printFlags(FLAGS, { flags: 'Flags' }, width)}

Exit status: 0 and 1 as the command says, 2 wrong words, 3 no answer.
`
}
