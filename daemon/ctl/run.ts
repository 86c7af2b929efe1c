// Runs weftctl: from the command line to the exit status, with the streams passed in.
import { reasonOf, WeftError } from '../base/error.ts'
import { printable, printableJson, printableValue } from '../base/printable.ts'
import { type Values as Flagged, parseFlags, printFlags, unknownCommand, wrap } from '../cli/flag-parser.ts'
import { ask } from './ask.ts'
import { changes } from './changes.ts'
import { check } from './check.ts'
import { askCluster, checkCluster, peersOfCluster } from './cluster.ts'
import {
  type Asking,
  type Command,
  checkOperands,
  type Described,
  type Lasting,
  type Page,
  type Program,
  usageOf
} from './command.ts'
import { completion, SHELLS } from './completion.ts'
import { diff } from './diff.ts'
import type { KubectlProgram } from './kubectl.ts'
import { manualPage } from './manual.ts'
import { migrate } from './migrate.ts'
import { nodes } from './nodes.ts'
import { page } from './page.ts'
import { peers } from './peers.ts'
import { pods } from './pods.ts'
import { WEFTCTL_FLAGS as FLAGS, WEFTCTL_PREFIXES, WEFTD, weftctl } from './programs.ts'
import type { Kubectl } from './remote.ts'
import { splitWords } from './split-words.ts'
import { status } from './status.ts'
import { why } from './why.ts'

/** A new question is a file with a Command, and an entry here. */
export const COMMANDS: Readonly<Record<string, Command>> = { status, nodes, peers, pods, diff, changes, why, check }

/** Commands that ask by themselves. */
export const LASTING: Readonly<Record<string, Lasting>> = { page, migrate }

export type Deps = {
  readonly env: Readonly<Record<string, string | undefined>>
  readonly version: string
  /** Called as kubectl's plugin. */
  readonly isPlugin?: boolean
  /** weftd prints its pages through this too: then the pages and the name in error messages are weftd's. */
  readonly isDaemon?: boolean
  readonly kubectl?: KubectlProgram
  /** From the first call on, what would end the process aborts this signal instead. */
  stopped?(): AbortSignal
  out(text: string): void
  complain(text: string): void
}

/**
 * Milliseconds for kubectl to report a timeout by itself, which exec never does, nor a plugin that waits for a
 * password.
 */
const GRACE = 5_000
/** Seconds that kubectl has at least for a change of migrate. */
const LONGEST_CHANGE = 60

/** 0 and 1 depend on the command; 2 usage error, 3 no answer, 4 not decided yet. */
export type Exit = 0 | 1 | 2 | 3 | 4

/** What is printed without asking weftd; a function, since the tables contain weftctl itself. */
function pages(version: string): Readonly<Record<'completion' | 'man', Page>> {
  const whose = { name: 'PROGRAM', oneOf: ['weftctl', 'weftd'], isOptional: true } as const
  const program = (name: string | undefined): Program =>
    name === 'weftd' ? WEFTD : weftctl({ ...COMMANDS, ...LASTING, ...pages(version) })
  return {
    completion: {
      about: 'print shell completion, of weftctl unless another program is named',
      operands: [{ name: 'SHELL', oneOf: SHELLS }, whose],
      print: ([shell, name]) => completion(SHELLS.find((each) => each === shell) ?? 'bash', program(name))
    },
    man: {
      about: 'print the manual page, of weftctl unless another program is named',
      operands: [whose],
      print: ([name]) => manualPage(program(name), version)
    }
  }
}

/** The same for weftd alone. */
function pagesOfDaemon(version: string): Readonly<Record<string, Page>> {
  const { completion, man } = pages(version)
  const ofDaemon = ({ about, operands = [], print }: Page): Page => ({
    about,
    operands: operands.slice(0, -1),
    print: (given) => print([...given, WEFTD.name])
  })
  return { completion: ofDaemon(completion), man: ofDaemon(man) }
}

/** The program's name as the user called it. */
const calledAs = ({ isDaemon, isPlugin }: Deps): string => (isDaemon ? 'weftd' : isPlugin ? 'kubectl weft' : 'weftctl')

/** Runs `weftctl WORDS…` to its end. Never throws. */
export async function run(words: readonly string[], deps: Deps): Promise<Exit> {
  const program = calledAs(deps)
  const fail = (exit: Exit, ...errors: readonly unknown[]): Exit => {
    for (const error of errors) {
      deps.complain(
        `${program}: ${printable(reasonOf(error))}\n${error instanceof WeftError ? `cure: ${error.cure}\n` : ''}`
      )
    }
    return exit
  }
  const { flags, others } = splitWords(FLAGS, words)
  const [name, ...operands] = others
  const parsed = parseFlags(FLAGS, WEFTCTL_PREFIXES, flags, deps.env)
  if ('errors' in parsed) return fail(2, ...parsed.errors)
  const { help, version } = parsed.values
  if (help || name === 'help') return print(deps, printHelp(80, name === 'help' ? operands[0] : name))
  if (version) return print(deps, `weftctl ${deps.version}\n`)
  const table: Readonly<Record<string, Command | Lasting | Page>> = deps.isDaemon
    ? pagesOfDaemon(deps.version)
    : { ...COMMANDS, ...LASTING, ...pages(deps.version) }
  const command = name !== undefined && Object.hasOwn(table, name) ? table[name] : undefined
  if (name === undefined || command === undefined) return fail(2, unknownCommand(program, name, Object.keys(table)))
  try {
    checkOperands(program, name, command, operands)
  } catch (error) {
    return fail(2, error)
  }
  if ('print' in command) return print(deps, command.print(operands))
  try {
    if ('run' in command) return await command.run(asking(operands, patient(name, parsed.values), deps))
    const answer = await answerTo(name, operands, parsed.values, deps)
    const { text, exit } = readBy(command, answer, operands, parsed.values.json)
    deps.out(text)
    return exit
  } catch (error) {
    return fail(3, error)
  }
}

/** kubectl with the flags and the deadline of the command line. */
const kubectlWith =
  ({ timeout, context }: Pick<Values, 'timeout' | 'context'>, runKubectl: KubectlProgram): Kubectl =>
  (words, input) =>
    runKubectl(
      [`--request-timeout=${timeout}s`, ...(context ? ['--context', context] : []), ...words],
      timeout * 1000 + GRACE,
      input
    )

/** Changes of a cluster's objects may take longer than a question. */
const patient = (name: string, values: Flagged<typeof FLAGS>): Flagged<typeof FLAGS> =>
  name === 'migrate' ? { ...values, timeout: Math.max(values.timeout, LONGEST_CHANGE) } : values

/** Every node is asked as kubectl's plugin, unless --node names one. */
function asking(operands: readonly string[], values: Flagged<typeof FLAGS>, deps: Deps): Asking {
  const { env, isPlugin = false, kubectl, out, stopped = () => new AbortController().signal } = deps
  return {
    ...{ env, operands, port: values.port, json: values.json, socket: values.socket, migrate: values, out, stopped },
    ask: (question, args) => answerTo(question, args, values, { ...deps, isPlugin: false }),
    ...(isPlugin && kubectl && values.node === undefined && { kubectl: kubectlWith(values, kubectl) })
  }
}

type Values = Pick<Flagged<typeof FLAGS>, 'socket' | 'timeout' | 'node' | 'context'>

/** From the weftd of this machine, or through kubectl from that of another node. */
async function answerTo(
  name: string,
  operands: readonly string[],
  { socket, timeout, node, context }: Values,
  { isPlugin = false, kubectl: runKubectl }: Deps
): Promise<unknown> {
  const kubectl = runKubectl && kubectlWith({ timeout, context }, runKubectl)
  const isAboutPod = isPlugin && name === 'why' && operands[0] === 'pod'
  if (kubectl !== undefined && (node !== undefined || isAboutPod)) return askCluster(kubectl, node, name, operands)
  if (kubectl !== undefined && isPlugin && name === 'check') return checkCluster(kubectl, operands[0]?.split(',') ?? [])
  if (kubectl !== undefined && isPlugin && name === 'peers') return peersOfCluster(kubectl)
  try {
    return await ask(socket, name, operands, AbortSignal.timeout(timeout * 1000))
  } catch (error) {
    if (!isPlugin || !(error instanceof WeftError) || error.code !== 'DAEMON_UNREACHABLE') throw error
    const cure = 'select the node with --node ("kubectl get nodes" lists them)'
    throw new WeftError(error.code, error.message, cure, { cause: error.cause })
  }
}

/**
 * The answer as text or JSON, all of it printable. With --json, an answer of another version is still printed. Errors:
 * ANSWER_UNKNOWN.
 */
function readBy(
  command: Command,
  answer: unknown,
  operands: readonly string[],
  json: boolean
): { readonly text: string; readonly exit: Exit } {
  try {
    if (!json) return command.read(printableValue(answer), operands)
    return { text: `${printableJson(JSON.stringify(answer, null, 2))}\n`, exit: exitOf(command, answer, operands) }
  } catch (cause) {
    if (cause instanceof WeftError) throw cause
    // Without the cause: the words of JavaScript help nobody here.
    throw new WeftError(
      'ANSWER_UNKNOWN',
      "weftd's answer cannot be read: a member inside it is missing or of another type than this weftctl expects",
      'use the weftctl of the same release as weftd; --json prints the answer as it is'
    )
  }
}

function exitOf(command: Command, answer: unknown, operands: readonly string[]): Exit {
  try {
    return command.read(answer, operands).exit
  } catch {
    return 0
  }
}

function print(deps: Deps, text: string): Exit {
  deps.out(text)
  return 0
}

/** Of one command where `about` names one, otherwise of all. */
export function printHelp(width: number, about?: string): string {
  const { commands, flags, groups } = weftctl({ ...COMMANDS, ...LASTING, ...pages('') })
  const describe = (name: string, command: Described): readonly string[] => [
    `  ${usageOf(name, command)}`,
    ...[command.about, ...(command.exits === undefined ? [] : [`(exit status: ${command.exits})`])]
      .flatMap((paragraph) => wrap(paragraph, width - 6))
      .map((line) => `      ${line}`)
  ]
  const one = about !== undefined && Object.hasOwn(commands, about) ? commands[about] : undefined
  if (about !== undefined && one !== undefined)
    return `Usage:\n${describe(`weftctl ${about}`, one).join('\n')}\n\n${printFlags(flags, groups, width)}\n`
  const listed = Object.entries(commands).flatMap(([name, command]) => describe(name, command))
  return `weftctl asks the weftd of this node.

Usage: weftctl COMMAND [ARGUMENT …] [--flag=value …]

Commands:
${listed.join('\n')}

${printFlags(flags, groups, width)}

Exit status: 0 and 1 depend on the command, 2 usage error, 3 no answer,
4 not decided yet (diff). "weftctl COMMAND --help" describes one command.
`
}
