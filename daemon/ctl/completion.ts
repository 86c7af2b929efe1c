// Prints completion scripts for bash, zsh and fish from the tables of flags and commands; they need no shell package
// (bash-completion, …).
import { shellQuoted } from '../base/printable.ts'
import type { Flag } from '../cli/flag-parser.ts'
import type { Operand, Program } from './command.ts'

export const SHELLS = ['bash', 'zsh', 'fish'] as const
export type Shell = (typeof SHELLS)[number]

/** A script for the shell to read: `source <(weftctl completion bash)`, `weftctl completion fish | source`. */
export function completion(shell: Shell, program: Program): string {
  switch (shell) {
    case 'bash':
      return bash(program)
    case 'zsh':
      return zsh(program)
    case 'fish':
      return fish(program)
  }
}

/** The allowed values; `file` and `directory` for paths; `undefined`: not known to the shell. */
function valuesOf({ reader }: Flag<unknown>): readonly string[] | 'file' | 'directory' | undefined {
  const { placeholder } = reader
  if (placeholder === 'FILE') return 'file'
  if (placeholder === 'DIR') return 'directory'
  return /^[a-z][a-z0-9-]*(\|[a-z][a-z0-9-]*)+$/.test(placeholder) ? placeholder.split('|') : undefined
}

const names = ({ name, aliases }: Program): readonly string[] => [name, ...aliases]

function bash(program: Program): string {
  const flags = Object.entries(program.flags)
  const words = flags.map(([name, { reader }]) => `--${name}${reader.placeholder === '' ? '' : '='}`).join(' ')
  const values = flags.flatMap(([name, flag]) => {
    const found = valuesOf(flag)
    if (found === undefined) return flag.reader.placeholder === '' ? [] : [`    ${name}) return ;;`]
    const how = found === 'file' ? '-f' : found === 'directory' ? '-d' : `-W ${shellQuoted(found.join(' '))}`
    return [`    ${name}) COMPREPLY=($(compgen ${how} -- "$cur")); return ;;`]
  })
  const takesValue = flags.filter(([, { reader }]) => reader.placeholder !== '').map(([name]) => name)
  const operands = Object.entries(program.commands).flatMap(([name, command]) =>
    (command.operands ?? []).map((operand, at) => `    ${name}:${at + 1}) ${bashOperand(operand, program.name, at)} ;;`)
  )
  return `# bash completion for ${program.name}: source <(${program.name} completion bash)
_${program.name}() {
  local cur=\${COMP_WORDS[COMP_CWORD]} before=\${COMP_WORDS[COMP_CWORD-1]} flag='' word skip='' others=()
  # Readline splits words at "=" and makes the "=" a word.
  if [[ $cur == '=' ]]; then flag=$before cur=''
  elif [[ $before == '=' ]]; then flag=\${COMP_WORDS[COMP_CWORD-2]}
  elif [[ $before == -* ]]; then flag=$before; fi
  flag=\${flag#-}
  case \${flag#-} in
${values.join('\n')}
  esac
  if [[ $cur == -* ]]; then
    COMPREPLY=($(compgen -W ${shellQuoted(words)} -- "$cur"))
    [[ \${COMPREPLY[0]-} == *= ]] && compopt -o nospace 2>/dev/null
    return
  fi
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    if [[ -n $skip ]]; then
      [[ $word == '=' ]] || skip=''
      continue
    fi
    case $word in
      ${takesValue.map((name) => `--${name} | -${name}`).join(' | ') || "''"}) skip=1 ;;
      -*) ;;
      *) others+=("$word") ;;
    esac
  done
  case \${others[0]-}:\${#others[@]} in
    :0) COMPREPLY=($(compgen -W ${shellQuoted(Object.keys(program.commands).join(' '))} -- "$cur")) ;;
${operands.join('\n')}
  esac
}
complete -F _${program.name} ${names(program).join(' ')}
`
}

function bashOperand({ oneOf, offers }: Operand, program: string, at: number): string {
  if (oneOf !== undefined) return `COMPREPLY=($(compgen -W ${shellQuoted(oneOf.join(' '))} -- "$cur"))`
  if (offers === undefined) return ':'
  const cases = Object.entries(offers).map(([word, command]) => `${word}) word=${command} ;;`)
  return `word=''; case \${others[${at}]-} in ${cases.join(' ')} esac; COMPREPLY=($(compgen -W "$(${program} $word 2>/dev/null | awk 'NR > 1 && NF > 3 { print ($1 == "-" ? $2 : $1) }')" -- "$cur"))`
}

function zsh(program: Program): string {
  const text = (words: string) => words.replaceAll(/[[\]\\]/g, '\\$&').replaceAll(':', '\\:')
  const flags = Object.entries(program.flags).map(([name, flag]) => {
    const { placeholder, repeatable } = flag.reader
    const values = valuesOf(flag)
    const action =
      values === 'file'
        ? '_files'
        : values === 'directory'
          ? '_files -/'
          : values === undefined
            ? ''
            : `(${values.join(' ')})`
    const value = placeholder === '' ? '' : `:${text(placeholder)}:${action}`
    return `    ${shellQuoted(`${repeatable ? '*' : ''}--${name}${placeholder === '' ? '' : '='}[${text(flag.help)}]${value}`)}`
  })
  const commands = Object.entries(program.commands)
  const listed = commands.map(([name, { about }]) => `      ${shellQuoted(`${text(name)}:${about}`)}`)
  const cases = commands.flatMap(([name, command]) =>
    (command.operands ?? []).map(
      (operand, at) => `      ${name}:${at + 3}) ${zshOperand(operand, program.name, at)} ;;`
    )
  )
  const first = commands.length === 0 ? [] : ["    '*::word:->words'"]
  const body =
    commands.length === 0
      ? ''
      : `  [[ $state == words ]] || return
  if ((CURRENT == 1)); then
    local -a commands=(
${listed.join('\n')}
    )
    _describe command commands
  else
    case $words[1]:$((CURRENT + 1)) in
${cases.join('\n')}
    esac
  fi
`
  return `#compdef ${names(program).join(' ')}
# zsh completion for ${program.name}: put it as _${program.name} into a directory of $fpath, or: source <(${program.name} completion zsh)
_${program.name}() {
  local state line
  local -A opt_args
  _arguments -S \\
${[...flags, ...first].join(' \\\n')}
${body}}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _${program.name} "$@"; else compdef _${program.name} ${names(program).join(' ')}; fi
`
}

function zshOperand({ name, oneOf, offers }: Operand, program: string, at: number): string {
  if (oneOf !== undefined) return `compadd ${oneOf.join(' ')}`
  if (offers === undefined) return `_message ${name}`
  const cases = Object.entries(offers).map(([word, command]) => `${word}) line=${command} ;;`)
  return `line=''; case $words[${at + 1}] in ${cases.join(' ')} esac; compadd -- \${(f)"$(${program} $line 2>/dev/null | awk 'NR > 1 && NF > 3 { print ($1 == "-" ? $2 : $1) }')"}`
}

function fish(program: Program): string {
  const quote = (text: string) => `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`
  const { name, aliases, flags, commands } = program
  const lines = [
    `complete -c ${name} -f`,
    ...Object.entries(flags).map(([flag, described]) => {
      const values = valuesOf(described)
      const needs = described.reader.placeholder === '' ? '' : ' -r'
      return `complete -c ${name} -l ${flag}${needs}${fishValues(values)} -d ${quote(described.help)}`
    }),
    ...Object.entries(commands).flatMap(([command, { about, operands = [] }]) => [
      `complete -c ${name} -n __fish_use_subcommand -a ${command} -d ${quote(about)}`,
      ...operands.flatMap((operand, at) => fishOperand(name, command, at, operand))
    ]),
    ...aliases.map((alias) => `complete -c ${alias} -w ${name}`)
  ]
  return `# fish completion for ${program.name}: ${program.name} completion fish | source\n${lines.join('\n')}\n`
}

const fishValues = (values: ReturnType<typeof valuesOf>): string => {
  if (values === undefined) return ''
  if (values === 'file') return ' -F'
  return values === 'directory' ? " -a '(__fish_complete_directories)'" : ` -a '${values.join(' ')}'`
}

function fishOperand(name: string, command: string, at: number, operand: Operand): readonly string[] {
  const here = `__fish_seen_subcommand_from ${command}; and test (count (commandline -opc | string match -v -- '-*')) -eq ${at + 2}`
  const line = (condition: string, words: string) => `complete -c ${name} -n "${condition}" -a "${words}"`
  if (operand.oneOf !== undefined) return [line(here, operand.oneOf.join(' '))]
  return Object.entries(operand.offers ?? {}).map(([word, asked]) =>
    line(
      `${here}; and __fish_seen_subcommand_from ${word}`,
      `(${name} ${asked} 2>/dev/null | awk 'NR > 1 && NF > 3 { print (\\$1 == "-" ? \\$2 : \\$1) }')`
    )
  )
}
