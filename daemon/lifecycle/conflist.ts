// The node's CNI configuration list: default content, validation, what others may add to it, and which file in
// /etc/cni/net.d a runtime uses.
import { identifierRule, isIdentifier } from '../../plugins/call.ts'
import { entries, FieldError, isObject, type JsonObject, member, required, text } from '../../plugins/cni/field.ts'
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

export type Kept = {
  /** What the file is to contain. */
  readonly text: string
  /** Types of the plugins in it that are other programs'. */
  readonly added: readonly string[]
}

/**
 * What the list is to contain where `found` is there: a list that begins with our plugin is shared. Installers of
 * meshes (istio-cni, linkerd-cni) add their plugin to the node's first list in place, and without it pods start outside
 * the mesh; so what others have added stays, and only our own part is corrected. `written`: our part when a weftd last
 * wrote the list, which shows what has left --cni-conf-source since.
 */
export function sharedConflist(wanted: string, found: string | undefined, written: string | undefined): Kept {
  const [ours, theirs, before] = [parsed(wanted), parsed(found), parsed(written)]
  const alone = { text: wanted, added: [] }
  const isShared = theirs.name === ours.name && typeOf(theirs.plugins[0]) === typeOf(ours.plugins[0])
  if (found === undefined || found === written || !isShared) return alone
  const isOurs = (plugin: JsonObject) =>
    ours.plugins.some((own) => typeOf(own) === typeOf(plugin)) || before.plugins.some((own) => isSame(own, plugin))
  const added = theirs.plugins.filter((plugin) => !isOurs(plugin))
  // Somebody may have put a plugin between two of ours.
  const order = theirs.plugins.filter((plugin) => !added.includes(plugin))
  const plugins = isSame(order, ours.plugins) ? theirs.plugins : [...ours.plugins, ...added]
  const others = Object.entries(theirs.list).filter(([key]) => !(key in before.list))
  const list = { ...Object.fromEntries(others), ...ours.list, plugins }
  if (isSame(list, theirs.list)) return { text: found, added: added.map(typeOf) }
  if (isSame(list, ours.list)) return alone
  return { text: `${JSON.stringify(list, undefined, 2)}\n`, added: added.map(typeOf) }
}

/** Type of the first plugin of a list; for messages about one that is not ours. */
export const firstType = (text: string): string => typeOf(parsed(text).plugins[0])

type Parsed = { readonly name: unknown; readonly list: JsonObject; readonly plugins: readonly JsonObject[] }

/** Empty for what is no list. */
function parsed(text: string | undefined): Parsed {
  const list = jsonObject(text) ?? {}
  const { name, plugins } = list
  return { name, list, plugins: Array.isArray(plugins) && plugins.every(isObject) ? plugins : [] }
}

function jsonObject(text: string | undefined): JsonObject | undefined {
  try {
    const value = JSON.parse(text ?? '') as unknown
    return isObject(value) ? value : undefined
  } catch {
    return undefined
  }
}

const typeOf = (plugin: JsonObject | undefined): string => (typeof plugin?.type === 'string' ? plugin.type : '')

/** Equal as JSON, whatever the order of keys. */
function isSame(a: unknown, b: unknown): boolean {
  if (Array.isArray(a) && Array.isArray(b)) return a.length === b.length && a.every((item, at) => isSame(item, b[at]))
  if (!isObject(a) || !isObject(b)) return a === b
  const keys = Object.keys(a)
  return keys.length === Object.keys(b).length && keys.every((key) => key in b && isSame(a[key], b[key]))
}

/** libcni's ConfFiles: these extensions, sorted by the names' bytes; runtimes use the first file. */
const isConfiguration = (name: string): boolean => /\.(conf|conflist|json)$/.test(name)

/** The files that a runtime uses before ours, in its order. */
export const takenBefore = (names: readonly string[]): readonly string[] =>
  names.filter((name) => isConfiguration(name) && name < CONFLIST_NAME).sort()

/**
 * Whether a configuration hands pods to Weft all the same: it calls our plugin itself, or has it, our list or our
 * network among what it delegates to (Multus: `delegates`, and `clusterNetwork` and `defaultNetworks`, which take a
 * file's path or a network's name).
 */
export function delegatesToUs(text: string, network: string): boolean {
  const outer = jsonObject(text)
  const namesUs = (value: unknown) =>
    typeof value === 'string' && (value === network || value.split('/').at(-1) === CONFLIST_NAME)
  const calls = (value: unknown, depth: number): boolean => {
    if (!isObject(value) || depth === 0) return false
    const { type, plugins, delegates, clusterNetwork, defaultNetworks } = value
    const networks = Array.isArray(defaultNetworks) ? [clusterNetwork, ...defaultNetworks] : [clusterNetwork]
    const inner = [plugins, delegates].flatMap((list) => (Array.isArray(list) ? (list as unknown[]) : []))
    return type === 'weft' || networks.some(namesUs) || inner.some((part) => calls(part, depth - 1))
  }
  return calls(outer, DEEPEST)
}

/** A list, its plugin, that one's delegate (a list), and the delegate's plugin. */
const DEEPEST = 4

/** The network and the plugins of a list, in their order; empty for what is no list. */
export function namedList(list: string | undefined): { readonly network: string; readonly types: readonly string[] } {
  const { name, plugins } = parsed(list)
  return { network: typeof name === 'string' ? name : '', types: plugins.map(typeOf) }
}

/** The name of the network in a list. */
export const networkOf = (list: string): string => {
  const { name } = parsed(list)
  return typeof name === 'string' ? name : ''
}
