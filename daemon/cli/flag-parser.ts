// Parses flags by Go's rules, as for flanneld: one dash or two, `=value` or the next word, booleans alone; the same
// names from the environment. Written here because node:util's parseArgs is a Node built-in (this file is pure) and,
// like commander, knows no long flags with one dash.
import { type Ip, type PerFamily, parseIp } from '../../ipam/address.ts'
import { WeftError } from '../base/error.ts'
import { nearest } from '../base/nearest.ts'

/** Parses the texts of one flag; `undefined` when they break the rule. Only repeatable flags get more than one text. */
export type Reader<T> = {
  /** What a value must be, as the end of a sentence: "must be …". */
  readonly rule: string
  /** Placeholder for the value in --help; empty for booleans, whose value may be omitted. */
  readonly placeholder: string
  readonly repeatable?: boolean
  read(texts: readonly string[]): T | undefined
}

export type Flag<T> = {
  readonly group: string
  readonly reader: Reader<T>
  /** As a user would write it; must obey the reader's rule. */
  readonly default?: string
  readonly help: string
  /** Never printed: passwords. */
  readonly secret?: boolean
  /** Accepted for command lines of flanneld, with a warning: why it has no effect, as the end of a sentence. */
  readonly ignored?: string
}

export type Flags = Readonly<Record<string, Flag<unknown>>>

type Camel<Name extends string> = Name extends `${infer Head}-${infer Tail}`
  ? `${Head}${Capitalize<Camel<Tail>>}`
  : Name
type ValueOf<F> = F extends { readonly reader: Reader<infer T>; readonly default: string }
  ? T
  : F extends { readonly reader: Reader<infer T> & { readonly repeatable: true } }
    ? T
    : F extends { readonly reader: Reader<infer T> }
      ? T | undefined
      : never
/** The values of a table of flags, under their names in camel case. */
export type Values<F extends Flags> = { readonly [Name in keyof F & string as Camel<Name>]: ValueOf<F[Name]> }

/** The flag or variable that set each option, by the option's name. */
export type SetBy = ReadonlyMap<string, string>

/** The name the user set it by, for messages: the flag, or the variable. */
export const writtenAs = (setBy: SetBy | undefined, name: string): string => setBy?.get(name) ?? `--${name}`

export type Parsed<F extends Flags> = {
  readonly values: Values<F>
  /** The flag or variable that set each option: `iface` → `FLANNELD_IFACE`. */
  readonly setBy: SetBy
  /** Variables with the prefix WEFTD_ that match no flag. */
  readonly unknownVariables: readonly UnknownVariable[]
  /** One sentence for each flag that was set and has no effect. */
  readonly warnings: readonly string[]
}

/** `text` is a sentence with the nearest known name. */
export type UnknownVariable = { readonly name: string; readonly text: string }

type Texts = readonly string[]
const one =
  <T>(read: (text: string) => T | undefined) =>
  (texts: Texts): T | undefined => {
    const last = texts.at(-1)
    return last === undefined ? undefined : read(last)
  }

/** The values of strconv.ParseBool. */
const booleans = new Map([
  ...['1', 't', 'T', 'true', 'TRUE', 'True'].map((word) => [word, true] as const),
  ...['0', 'f', 'F', 'false', 'FALSE', 'False'].map((word) => [word, false] as const)
])

export const toggle: Reader<boolean> = {
  rule: 'true or false',
  placeholder: '',
  read: one((text) => booleans.get(text))
}

export const text = (placeholder: string, rule = 'a non-empty string', pattern = /./): Reader<string> => ({
  rule,
  placeholder,
  read: one((value) => (pattern.test(value) ? value : undefined))
})

export const whole = (placeholder: string, least: number, most: number): Reader<number> => ({
  rule: `a whole number from ${least} to ${most}`,
  placeholder,
  read: one((value) => {
    const number = goInteger(value)
    return number >= least && number <= most ? number : undefined
  })
})

/**
 * strconv.ParseInt with base 0, as Go's flags read integers: a sign, 0x, 0o, 0b, a leading 0 for octal, underscores.
 */
function goInteger(text: string): number {
  const [, sign, prefix = '', digits = ''] =
    /^([-+]?)(0[xob](?=_?[\da-f])|0(?=_?\d))?((?:_?[\da-f])+)$/i.exec(text) ?? []
  if (digits === '' || (prefix === '' && digits.startsWith('_'))) return Number.NaN
  // Number() knows the three prefixes with a letter.
  const number = Number(`${prefix === '0' ? '0o' : prefix}${digits.replaceAll('_', '')}`)
  return Number.isSafeInteger(number) ? (sign === '-' ? -number : number) : Number.NaN
}

/** `names` are words for addresses. */
export const ip = (
  placeholder: string,
  rule: string,
  accept: (ip: Ip) => boolean,
  names: Readonly<Record<string, string>> = {}
): Reader<Ip> => ({
  rule,
  placeholder,
  read: one((value) => {
    const address = parseIp(names[value] ?? value)
    return address !== undefined && accept(address) ? address : undefined
  })
})

export const oneOf = <const W extends readonly string[]>(...words: W): Reader<W[number]> => ({
  rule: `one of ${words.join(', ')}`,
  placeholder: words.join('|'),
  read: one((value) => words.find((word) => word === value))
})

/** Several values, separated by commas; the last list counts. */
export const commaList = (item: Reader<string>): Reader<readonly string[]> => ({
  rule: `a comma-separated list of items, each ${item.rule}`,
  placeholder: `${item.placeholder}[,…]`,
  read: one((value) => every(value.split(','), item))
})

/** A flag that may be repeated; every occurrence counts, in order. */
export const repeated = (item: Reader<string>): Reader<readonly string[]> & { readonly repeatable: true } => ({
  rule: item.rule,
  placeholder: item.placeholder,
  repeatable: true,
  read: (texts) => every(texts, item)
})

function every(texts: Texts, item: Reader<string>): readonly string[] | undefined {
  const values = texts.map((value) => item.read([value.trim()]))
  return values.every((value) => value !== undefined) ? values : undefined
}

/** `etcd-endpoints` → `WEFTD_ETCD_ENDPOINTS`. */
export const variableOf = (prefix: string, name: string): string =>
  `${prefix}${name.toUpperCase().replaceAll('-', '_')}`

type Environment = Readonly<Record<string, string | undefined>>
type Source = { readonly texts: readonly string[]; readonly from: string }

/**
 * Reads a command line (without program) and an environment. The command line wins over the first prefix, that over the
 * next, all over the default; empty variables count as unset, as with flanneld. Errors: all of them, each with flag or
 * variable, value and rule.
 */
export function parseFlags<F extends Flags>(
  flags: F,
  prefixes: readonly string[],
  argv: readonly string[],
  env: Readonly<Record<string, string | undefined>>
): Parsed<F> | { readonly errors: readonly WeftError[] } {
  const { sources, errors } = written(flags, prefixes, argv, env)
  const values: Record<string, unknown> = {}
  for (const [name, flag] of Object.entries(flags)) {
    const source = sources.get(name)
    const texts = source?.texts ?? (flag.default === undefined ? [] : [flag.default])
    const value = flag.reader.read(texts)
    if (value === undefined && texts.length > 0) errors.push(wrongValue(name, flag, source))
    values[camel(name)] = value
  }
  if (errors.length > 0) return { errors }
  return {
    values: values as Values<F>,
    setBy: new Map([...sources].map(([name, { from }]) => [name, from])),
    unknownVariables: unknownVariables(flags, prefixes, env),
    warnings: [...sources].flatMap(([name, { from }]) => {
      const why = flags[name]?.ignored
      return why === undefined ? [] : [`${from} has no effect: ${why}`]
    })
  }
}

function written(flags: Flags, prefixes: readonly string[], argv: readonly string[], env: Environment) {
  const { sources, errors } = fromArguments(flags, argv)
  for (const name of Object.keys(flags)) {
    const variable = prefixes.map((prefix) => variableOf(prefix, name)).find((candidate) => env[candidate])
    if (variable !== undefined && !sources.has(name))
      sources.set(name, { texts: [env[variable] ?? ''], from: variable })
  }
  dropEmpty(flags, sources)
  return { sources, errors }
}

/** What a command line and an environment set, as it was written: the texts by the flag's name. Errors: unknown flags. */
export function writtenTexts(
  flags: Flags,
  prefixes: readonly string[],
  argv: readonly string[],
  env: Environment
): { readonly texts: ReadonlyMap<string, readonly string[]>; readonly errors: readonly WeftError[] } {
  const { sources, errors } = written(flags, prefixes, argv, env)
  return { texts: new Map([...sources].map(([name, { texts }]) => [name, texts])), errors }
}

/**
 * `--iface=`, as templates with an unset variable write it: where flanneld's default is empty, that is the default.
 * Empty ones among several are left out.
 */
function dropEmpty(flags: Flags, sources: Map<string, Source>): void {
  for (const [name, { texts, from }] of sources) {
    if (flags[name]?.default !== undefined) continue
    const kept = texts.filter((value) => value !== '')
    if (kept.length === 0) sources.delete(name)
    else sources.set(name, { texts: kept, from })
  }
}

type Word = { readonly name: string; readonly inline?: string }

/** `--name`, `-name`, `--name=value`; `undefined` for anything else. */
function splitWord(word: string): Word | undefined {
  const [, name, inline] = /^--?([^-=][^=]*)(?:=([\s\S]*))?$/.exec(word) ?? []
  return name === undefined ? undefined : { name, ...(inline !== undefined && { inline }) }
}

function fromArguments(flags: Flags, argv: readonly string[]): { sources: Map<string, Source>; errors: WeftError[] } {
  const sources = new Map<string, Source>()
  const errors: WeftError[] = []
  for (let at = 0; at < argv.length; ) {
    const taken = take(flags, argv[at] ?? '', argv[at + 1])
    at += taken.words
    if (taken.kind === 'wrong') errors.push(taken.error)
    else {
      const before = taken.flag.reader.repeatable ? (sources.get(taken.name)?.texts ?? []) : []
      sources.set(taken.name, { texts: [...before, taken.text], from: `--${taken.name}` })
    }
  }
  return { sources, errors }
}

type Taken =
  | {
      readonly kind: 'flag'
      readonly words: 1 | 2
      readonly name: string
      readonly flag: Flag<unknown>
      readonly text: string
    }
  | { readonly kind: 'wrong'; readonly words: 1 | 2; readonly error: WeftError }

/** One flag with its value, which may be the next word. */
function take(flags: Flags, word: string, next: string | undefined): Taken {
  const split = splitWord(word)
  const flag = split !== undefined && Object.hasOwn(flags, split.name) ? flags[split.name] : undefined
  if (split === undefined || flag === undefined) {
    // The value of an unknown flag would only be reported a second time.
    const valued = split !== undefined && split.inline === undefined && next?.startsWith('-') === false
    return { kind: 'wrong', words: valued ? 2 : 1, error: unknown(flags, word, split?.name) }
  }
  const { name, inline } = split
  if (inline !== undefined) return { kind: 'flag', words: 1, name, flag, text: inline }
  if (flag.reader.placeholder === '') return { kind: 'flag', words: 1, name, flag, text: 'true' }
  if (next === undefined) return { kind: 'wrong', words: 1, error: valueMissing(name, flag) }
  return { kind: 'flag', words: 2, name, flag, text: next }
}

const valueMissing = (name: string, { reader }: Flag<unknown>): WeftError =>
  new WeftError(
    'OPTION_INVALID',
    `--${name} has no value; it must be ${reader.rule}`,
    `write --${name}=${reader.placeholder}`
  )

function unknown(flags: Flags, word: string, name: string | undefined): WeftError {
  if (name === undefined) {
    return new WeftError(
      'OPTION_UNKNOWN',
      `the argument ${JSON.stringify(word)} is not a flag`,
      'write --flag=value; --help lists the flags'
    )
  }
  const near = nearest(name, Object.keys(flags))
  return new WeftError(
    'OPTION_UNKNOWN',
    `there is no flag --${name}${near === undefined ? '' : `; the nearest is --${near}`}`,
    '--help lists the flags'
  )
}

function wrongValue(name: string, flag: Flag<unknown>, source: Source | undefined): WeftError {
  const value = flag.secret ? '(not shown)' : JSON.stringify(source?.texts.join(' ') ?? flag.default)
  return new WeftError(
    'OPTION_INVALID',
    `${source?.from ?? `--${name}`} is ${value}, but must be ${flag.reader.rule}`,
    flag.default ? `correct it, or omit it (default ${flag.default})` : 'correct or omit it'
  )
}

/** Kubernetes itself sets such variables in every pod for a service called `weftd`. */
const ofService = /_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_\w+)?)$/

function unknownVariables(
  flags: Flags,
  prefixes: readonly string[],
  env: Readonly<Record<string, string | undefined>>
): readonly UnknownVariable[] {
  const prefix = prefixes[0] ?? ''
  // Without the prefix, which they all have: it would make every name near.
  const known = Object.keys(flags).map((name) => variableOf('', name))
  return Object.keys(env).flatMap((variable) => {
    const name = variable.slice(prefix.length)
    if (!variable.startsWith(prefix) || known.includes(name) || ofService.test(variable)) return []
    const near = nearest(name, known)
    const nearestIs = near === undefined ? '' : `; the nearest is ${prefix}${near}`
    return [{ name: variable, text: `the environment variable ${variable} names no flag${nearestIs}` }]
  })
}

const camel = (name: string): string => name.replace(/-(.)/g, (_, letter: string) => letter.toUpperCase())

/** COMMAND_UNKNOWN with the nearest of `commands`; `word` is undefined when there was none. */
export function unknownCommand(program: string, word: string | undefined, commands: readonly string[]): WeftError {
  const near = word === undefined ? undefined : nearest(word, commands)
  if (word === 'version')
    return new WeftError('COMMAND_UNKNOWN', 'there is no command "version"', `write ${program} --version`)
  return new WeftError(
    'COMMAND_UNKNOWN',
    word === undefined
      ? 'no command was given'
      : `there is no command ${JSON.stringify(word)}${near === undefined ? '' : `; the nearest is ${near}`}`,
    `use one of ${commands.join(', ')} (see ${program} --help)`
  )
}

/** The flags under their groups' headings, lines of at most `width` characters. */
export function printFlags(flags: Flags, groups: Readonly<Record<string, string>>, width: number): string {
  return Object.entries(groups)
    .map(([group, heading]) => {
      const members = Object.entries(flags).filter(([, flag]) => flag.group === group)
      return [`${heading}:`, ...members.flatMap(([name, flag]) => printFlag(name, flag, width))].join('\n')
    })
    .join('\n\n')
}

function printFlag(name: string, flag: Flag<unknown>, width: number): readonly string[] {
  const { placeholder, repeatable } = flag.reader
  const usage = `  --${name}${placeholder && ` ${placeholder}`}${repeatable ? '  (repeatable)' : ''}`
  const shown =
    flag.default === undefined || (placeholder === '' && flag.default === 'false') ? '' : ` (default ${flag.default})`
  return [usage, ...wrap(`${flag.help}${shown}`, width - 6).map((line) => `      ${line}`)]
}

/** Breaks at spaces; a word longer than a line stays whole. */
export function wrap(paragraph: string, width: number): readonly string[] {
  const lines: string[] = []
  for (const word of paragraph.split(' ')) {
    const last = lines.at(-1)
    if (last === undefined || last.length + word.length + 1 > width) lines.push(word)
    else lines[lines.length - 1] = `${last} ${word}`
  }
  return lines
}

/** Addresses by family, for flags that exist once per family. */
export const byFamily = (...ips: readonly (Ip | undefined)[]): PerFamily<Ip> =>
  Object.fromEntries(ips.flatMap((address) => (address === undefined ? [] : [[address.family, address]])))
