// Prints manual pages with the macros of man(7) from the tables of flags and commands.
import { variableOf } from '../cli/flag-parser.ts'
import { type Program, usageOf } from './command.ts'

/** The page of section 8. */
export function manualPage(program: Program, version: string): string {
  const { name, about, description, flags, groups, prefixes, commands, exits, files, seeAlso } = program
  const hasCommands = Object.keys(commands).length > 0
  const needsCommand = Object.values(commands).some(({ exits: asks }) => asks !== undefined)
  const lines = [
    `.TH ${name.toUpperCase()} 8 "" "Weft ${version}" "Weft"`,
    '.SH NAME',
    `${text(name)} \\- ${text(about)}`,
    '.SH SYNOPSIS',
    `.B ${text(name)}`,
    ...(needsCommand ? ['.I COMMAND', '.RI [ ARGUMENT ...]'] : []),
    '.RI [ --flag=value ...]',
    '.SH DESCRIPTION',
    ...description.flatMap((paragraph, at) => [...(at === 0 ? [] : ['.PP']), text(paragraph)]),
    ...(hasCommands ? ['.SH COMMANDS'] : []),
    ...Object.entries(commands).flatMap(([command, described]) => [
      '.TP',
      `.B ${text(usageOf(command, described))}`,
      text(`${sentence(described.about)}${described.exits === undefined ? '' : ` Exit status: ${described.exits}.`}`)
    ]),
    '.SH OPTIONS',
    text('Flags take one dash or two, and "=" or a space before the value.'),
    ...Object.entries(groups).flatMap(([group, heading]) => [
      ...(Object.keys(groups).length > 1 ? [`.SS ${text(heading)}`] : []),
      ...Object.entries(flags)
        .filter(([, flag]) => flag.group === group)
        .flatMap(([flag, described]) => option(flag, described))
    ]),
    '.SH ENVIRONMENT',
    text(
      `Each flag can also be set by a variable: ${prefixes.map((prefix) => `${prefix}FLAG_NAME`).join(' or ')}, in upper case with _ for -, such as ${variableOf(prefixes[0] ?? '', Object.keys(flags)[0] ?? '')}. ${['The command line', ...prefixes].join(' takes precedence over ')}.`
    ),
    '.SH EXIT STATUS',
    ...exits.flatMap(([status, meaning]) => ['.TP', `.B ${text(status)}`, text(sentence(meaning))]),
    '.SH FILES',
    ...files.flatMap(([path, meaning]) => ['.TP', `.I ${text(path)}`, text(sentence(meaning))]),
    '.SH SEE ALSO',
    seeAlso.map(text).join(', ')
  ]
  return `${lines.join('\n')}\n`
}

function option(name: string, { reader, help, default: usual }: Program['flags'][string]): readonly string[] {
  const { placeholder, repeatable } = reader
  const value = placeholder === '' ? '' : `=\\fI${text(placeholder)}\\fR`
  const parts = [
    sentence(help),
    ...(repeatable ? ['Can be repeated.'] : []),
    ...(usual === undefined || (placeholder === '' && usual === 'false') ? [] : [`Default: ${usual}.`])
  ]
  return ['.TP', `\\fB${text(`--${name}`)}\\fR${value}`, text(parts.join(' '))]
}

/** Begins with a capital, ends with a full stop. */
const sentence = (words: string): string =>
  `${words.slice(0, 1).toUpperCase()}${words.slice(1)}${/[.!?]$/.test(words) ? '' : '.'}`

/** Escapes for troff: backslashes, hyphens that a reader may copy, and a control character at the start of a line. */
const text = (words: string): string =>
  words.replaceAll('\\', '\\e').replaceAll('-', '\\-').replaceAll('…', '...').replace(/^[.']/, '\\&$&')
