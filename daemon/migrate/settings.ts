// Translates flanneld's command line and environment into weftd's variables.
import { type Flags, variableOf, writtenTexts } from '../cli/flag-parser.ts'
import { FLAGS, PREFIXES } from '../cli/flag-table.ts'

/** Variables by name; what may be repeated is in WEFT_OPTIONS, as in deploy/systemd/weftd.service. */
export type Settings = Readonly<Record<string, string>>

export type Flanneld = {
  /** Without the program. */
  readonly arguments: readonly string[]
  readonly environment: Readonly<Record<string, string>>
}

/** What weftd has besides flanneld's flags once it serves pods. */
type OwnSettings = { readonly cniConfDir: string; readonly cniConfSource: string }

const [OURS, THEIRS] = PREFIXES
const TABLE: Flags = FLAGS

/** `faults`: one sentence for each flag that weftd does not have. */
export function settingsFrom(
  { arguments: words, environment }: Flanneld,
  own: OwnSettings | undefined
): { readonly settings: Settings; readonly faults: readonly string[] } {
  const { texts, errors } = writtenTexts(TABLE, [THEIRS], words, environment)
  const settings: Record<string, string> = {}
  const options: string[] = []
  const faults = errors.map(({ message }) => `flanneld's command line: ${message}`)
  for (const [name, values] of texts) {
    const flag = TABLE[name]
    if (flag === undefined || flag.ignored !== undefined || name === 'help' || name === 'version') continue
    if (flag.reader.read(values) === undefined)
      faults.push(`flanneld's ${name} is ${flag.secret ? 'not valid' : JSON.stringify(values.join(' '))}`)
    const [first = ''] = values
    if (values.length === 1) settings[variableOf(OURS, name)] = first
    else if (values.some((value) => /\s/.test(value)))
      faults.push(`flanneld's --${name} is repeated and has a space, which WEFT_OPTIONS cannot carry`)
    else options.push(...values.map((value) => `--${name}=${value}`))
  }
  const { NODE_NAME: node } = environment
  if (node !== undefined) settings.WEFTD_NODE_NAME ??= node
  if (options.length > 0) settings.WEFT_OPTIONS = options.join(' ')
  if (own !== undefined) {
    settings.WEFTD_CNI_CONF_DIR = own.cniConfDir
    settings.WEFTD_CNI_CONF_SOURCE = own.cniConfSource
  }
  return { settings, faults }
}

/** Whether the variable's value must not be printed. */
const isSecret = (name: string): boolean =>
  Object.entries(TABLE).some(([flag, { secret }]) => secret === true && variableOf(OURS, flag) === name)

/** One line for each, without secrets, for people. */
export const shownSettings = (settings: Settings): readonly string[] =>
  Object.entries(settings).map(([name, value]) => `${name}=${isSecret(name) ? '(not shown)' : value}`)

/** The text of a file for EnvironmentFile= of systemd.exec(5): in double quotes `"`, `\`, `$` and a backquote escaped. */
export const environmentFile = (settings: Settings): string =>
  [
    "# flanneld's settings as weftd's, written by weftctl migrate.",
    ...Object.entries(settings).map(([name, value]) => `${name}="${value.replaceAll(/["\\$`]/g, '\\$&')}"`),
    ''
  ].join('\n')
