// Reads a CNI call from environment and standard input; errors come in the reference's order of checks (specification
// 1.1.0, "Parameters").
import { CniError, cniCode } from './cni/error.ts'
import { FieldError, isObject, type JsonObject, member, shown, text } from './cni/field.ts'
import { brokenNameRule } from './cni/interface-name.ts'
import type { Call, Invocation } from './cni/types.ts'
import {
  allowsVerb,
  isSupported,
  newestVersion,
  supportedVersions,
  type Verb,
  type Version,
  verbs,
  versionWhenAbsent
} from './cni/version.ts'

export type Variables = Readonly<Record<string, string>>

type Check = { readonly variable: string; readonly verbs: readonly Verb[]; readonly verify?: (value: string) => void }

/** In the order in which missing ones are named. CNI_PATH is not required: only delegates need it. */
const checks: readonly Check[] = [
  { variable: 'CNI_COMMAND', verbs: ['ADD', 'CHECK', 'DEL', 'GC', 'STATUS', 'VERSION'] },
  { variable: 'CNI_CONTAINERID', verbs: ['ADD', 'CHECK', 'DEL'], verify: verifyContainerId },
  { variable: 'CNI_NETNS', verbs: ['ADD', 'CHECK'] },
  { variable: 'CNI_IFNAME', verbs: ['ADD', 'CHECK', 'DEL'], verify: verifyInterfaceName }
]

const byHand = 'container runtimes set them for each call; to run a plugin by hand, use cnitool'

/**
 * The environment's half of a call. Throws 4, naming every missing variable, or the first bad one. An unknown verb is
 * not reported yet: input comes first.
 */
export function readEnvironment(variables: Variables): Invocation {
  const value = (name: string) => variables[name] ?? ''
  const verb = verbs.find((each) => each === value('CNI_COMMAND'))
  const missing: string[] = []
  for (const check of checks) {
    const isRequired = verb === undefined ? check.variable === 'CNI_COMMAND' : check.verbs.includes(verb)
    if (!isRequired) continue
    if (value(check.variable) === '') missing.push(check.variable)
    else check.verify?.(value(check.variable))
  }
  if (missing.length > 0) {
    const empty = missing.filter((name) => variables[name] !== undefined)
    throw new CniError(`required env variables [${missing.join(',')}] missing`, {
      code: cniCode.environment,
      details: `${empty.length === 0 ? '' : `set, but empty: ${empty.join(', ')}; `}${byHand}`
    })
  }
  return {
    verb: verb ?? { unknown: value('CNI_COMMAND') },
    containerId: value('CNI_CONTAINERID'),
    netns: value('CNI_NETNS'),
    ifname: value('CNI_IFNAME'),
    args: value('CNI_ARGS'),
    path: value('CNI_PATH')
      .split(':')
      .filter((directory) => directory !== ''),
    mayBeOwnNamespace: ['1', 'true'].includes(value('CNI_NETNS_OVERRIDE').toLowerCase())
  }
}

/** The whole call. `input` is standard input, ignored for VERSION. Throws 1, 4, 6 or 7. */
export function readCall(plugin: string, invocation: Invocation, input: string): Call {
  const { verb } = invocation
  if (verb === 'VERSION') return { verb, plugin }
  const configuration = parseConfiguration(input)
  const network = networkName(configuration)
  if (typeof verb !== 'string')
    throw new CniError(`unknown CNI_COMMAND: ${verb.unknown}`, {
      code: cniCode.environment,
      details: `it must be one of ${verbs.join(', ')}`
    })
  const version = versionOf(configuration, verb)
  const { containerId, ifname, netns, args, path, mayBeOwnNamespace } = invocation
  const common = { plugin, network, version, configuration, input, args, path, mayBeOwnNamespace }
  if (verb === 'GC' || verb === 'STATUS') return { ...common, verb }
  if (verb === 'DEL' && netns === '') return { ...common, verb, containerId, ifname }
  return { ...common, verb, containerId, ifname, netns }
}

/**
 * The version for printing an error about this input: the requested one if it can be read and is supported, else the
 * newest.
 */
export function versionForError(input: string): Version {
  try {
    const asked = text(member({ path: '', value: parseConfiguration(input) }, 'cniVersion')) ?? ''
    return asked === '' ? versionWhenAbsent : isSupported(asked) ? asked : newestVersion
  } catch {
    return newestVersion
  }
}

function parseConfiguration(input: string): JsonObject {
  let value: unknown
  try {
    value = JSON.parse(input)
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    const read = input === '' ? 'it is empty' : `${reason}; it begins with ${shown(input.slice(0, 80))}`
    throw new CniError('standard input is not a JSON document', { code: cniCode.decoding, details: read, cause })
  }
  if (value === null) return {}
  if (!isObject(value)) {
    throw new CniError('standard input is not a JSON object', {
      code: cniCode.decoding,
      details: `it is ${shown(value)}; a network configuration is an object`
    })
  }
  return value
}

/** A member that must be a string; another type is a decoding error, not an error of configuration. */
function decoded(configuration: JsonObject, key: string): string | undefined {
  try {
    return text(member({ path: '', value: configuration }, key))
  } catch (cause) {
    if (!(cause instanceof FieldError)) throw cause
    throw new CniError(`cannot decode ${cause.path} of the network configuration`, {
      code: cniCode.decoding,
      details: cause.message,
      cause
    })
  }
}

function networkName(configuration: JsonObject): string {
  const name = decoded(configuration, 'name')
  if (name === undefined || name === '') {
    const is = name === undefined ? 'has no member "name", which' : 'has an empty "name": it'
    throw new CniError('missing network name', {
      code: cniCode.configuration,
      details: `the network configuration ${is} ${identifierRule}`
    })
  }
  if (!isIdentifier(name)) {
    throw new CniError('invalid characters in network name', {
      code: cniCode.configuration,
      details: `${shown(name)}: ${identifierRule}`
    })
  }
  return name
}

function versionOf(configuration: JsonObject, verb: Verb): Version {
  const written = decoded(configuration, 'cniVersion')
  const asked = written === undefined || written === '' ? versionWhenAbsent : written
  const isAllowed = allowsVerb(asked, verb)
  if (isAllowed === undefined) {
    throw new CniError(`cannot decode cniVersion ${shown(asked)}`, {
      code: cniCode.decoding,
      details: `${verb} needs a version of the form 1.1.0`
    })
  }
  if (!isAllowed) {
    throw new CniError(`config version does not allow ${verb}`, {
      code: cniCode.incompatibleVersion,
      details: `the network configuration has cniVersion ${shown(asked)}; ${verb} came with ${verb === 'CHECK' ? '0.4.0' : '1.1.0'}`
    })
  }
  if (!isSupported(asked)) {
    throw new CniError('incompatible CNI versions', {
      code: cniCode.incompatibleVersion,
      details: `the network configuration has cniVersion ${shown(asked)}; supported are ${supportedVersions.join(', ')}`
    })
  }
  return asked
}

/** The rule of isIdentifier(), to end a sentence with. */
export const identifierRule = 'must begin with an ASCII letter or digit and consist of these, "_", "." and "-"'

/**
 * The alphabet of container ids and network names, which become parts of file names. Without RegExp, which the
 * executable's engine lacks.
 */
export function isIdentifier(value: string): boolean {
  for (let at = 0; at < value.length; at++) {
    const code = value.charCodeAt(at)
    const isLetterOrDigit = (code >= 48 && code <= 57) || (code >= 65 && code <= 90) || (code >= 97 && code <= 122)
    const isMark = code === 95 || code === 46 || code === 45
    if (!isLetterOrDigit && (at === 0 || !isMark)) return false
  }
  return value !== ''
}

function verifyContainerId(value: string): void {
  if (!isIdentifier(value)) {
    throw new CniError('invalid characters in containerID', {
      code: cniCode.environment,
      details: `CNI_CONTAINERID is ${shown(value)}: ${identifierRule}`
    })
  }
}

function verifyInterfaceName(value: string): void {
  const rule = brokenNameRule(value)
  if (rule !== undefined)
    throw new CniError(`invalid interface name ${shown(value)}`, {
      code: cniCode.environment,
      details: `CNI_IFNAME ${rule}`
    })
}
