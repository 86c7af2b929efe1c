// The CNI configuration list of a node: what runtimes read in /etc/cni/net.d, and which of the files there they take.
import { identifierRule, isIdentifier } from '../../plugins/call.ts'
import { entries, FieldError, member, required, text } from '../../plugins/cni/field.ts'
import { reasonOf, WeftError } from '../base/error.ts'

/** Flannel's is 10-flannel.conflist, which sorts before it: a node that is taken over says so until that file is gone. */
export const CONFLIST_NAME = '10-weft.conflist'

/** What is written where nobody says anything else. The name is the directory of the reserved addresses, and flannel's. */
export const DEFAULT_CONFLIST = `${JSON.stringify(
  {
    cniVersion: '1.0.0',
    name: 'cbr0',
    plugins: [{ type: 'weft', capabilities: { portMappings: true, bandwidth: true } }]
  },
  undefined,
  2
)}\n`

/** The text as it is to be written, or the error that names the value and the rule. `place` is where the text comes from. Errors: CNI_CONF_INVALID. */
export function checkedConflist(source: string, place: string): string {
  try {
    const list = { path: '', value: JSON.parse(source) as unknown }
    const name = member(list, 'name')
    if (!isIdentifier(required(text(name), name, 'the name of the network, a string')))
      throw new FieldError(name, identifierRule)
    const version = member(list, 'cniVersion')
    required(text(version), version, 'a version of the specification, such as "1.0.0"')
    const plugins = member(list, 'plugins')
    const each = entries(plugins)
    if (each.length === 0) throw new FieldError(plugins, 'must be a list of at least one plugin')
    for (const plugin of each) {
      const type = member(plugin, 'type')
      if (required(text(type), type, "the plugin's name, a string") === '')
        throw new FieldError(type, 'must not be empty')
    }
    return source.endsWith('\n') ? source : `${source}\n`
  } catch (cause) {
    throw new WeftError(
      'CNI_CONF_INVALID',
      `${place}: ${reasonOf(cause)}`,
      `correct ${place} (in a cluster: in its ConfigMap) as the message says`,
      { cause }
    )
  }
}

/** libcni's ConfFiles: these endings, in the order of the names' bytes; runtimes take the first. */
const isConfiguration = (name: string): boolean => /\.(conf|conflist|json)$/.test(name)

/** The files of the directory that a runtime takes before ours, in its order. */
export const takenBefore = (names: readonly string[]): readonly string[] =>
  names.filter((name) => isConfiguration(name) && name < CONFLIST_NAME).sort()
