// The node's CNI configuration list: default content, validation, and which file in /etc/cni/net.d a runtime uses.
import { identifierRule, isIdentifier } from '../../plugins/call.ts'
import { entries, FieldError, member, required, text } from '../../plugins/cni/field.ts'
import { reasonOf, WeftError } from '../base/error.ts'

/**
 * flannel's 10-flannel.conflist sorts before it: a node taken over from flannel has CNI_CONF_SHADOWED until that file
 * is removed.
 */
export const CONFLIST_NAME = '10-weft.conflist'

/**
 * The list without --cni-conf-source. Its name, flannel's, is also that of the directory of address reservations. With
 * hairpinMode, as in flannel's manifest, a pod reaches itself through its own Service where br_netfilter is loaded.
 */
export const DEFAULT_CONFLIST = `${JSON.stringify(
  {
    cniVersion: '1.0.0',
    name: 'cbr0',
    plugins: [{ type: 'weft', hairpinMode: true, capabilities: { portMappings: true, bandwidth: true } }]
  },
  undefined,
  2
)}\n`

/**
 * The validated text, ending in a newline. `place` names its origin. Errors: CNI_CONF_INVALID with the value and the
 * rule.
 */
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
      `correct ${place} (in a cluster: in its ConfigMap)`,
      { cause }
    )
  }
}

/** libcni's ConfFiles: these extensions, sorted by the names' bytes; runtimes use the first file. */
const isConfiguration = (name: string): boolean => /\.(conf|conflist|json)$/.test(name)

/** The files that a runtime uses before ours, in its order. */
export const takenBefore = (names: readonly string[]): readonly string[] =>
  names.filter((name) => isConfiguration(name) && name < CONFLIST_NAME).sort()
