// Parses the network configuration, flannel's JSON: keys regardless of case, defaults applied, errors with path, value
// and rule.
import {
  contains,
  FAMILIES,
  type Family,
  formatIp,
  formatPrefix,
  type Ip,
  network,
  offset,
  overlaps,
  type PerFamily,
  type Prefix,
  parseIp,
  parsePrefix,
  rangeOf,
  sameIp,
  width
} from '../../ipam/address.ts'
import { WeftError } from '../base/error.ts'
import { check, spelled } from './check.ts'
import { isTooDeep, type Json, type JsonObject, NESTED_JSON } from './json.ts'
import { booleanKey, findKey, integerKey, invalid, joinPath, textKey } from './keys.ts'
import { mentionsSecret } from './secrets.ts'

export type { Json, JsonObject }

/** The configuration of one address family. */
export type NetworkRange = {
  readonly network: Prefix
  /** Prefix length of each node's subnet. */
  readonly subnetLength: number
  /** Network addresses of the first and the last subnet that may be leased. */
  readonly subnetMin: Ip
  readonly subnetMax: Ip
}

export type NetConf = {
  readonly families: PerFamily<NetworkRange>
  readonly backendType: string
  /** The object under `Backend` as written; the backend parses its own keys without regard to case. */
  readonly backend: JsonObject
}

/** The backend of a configuration without `Backend`, and of a lease without BackendType, as in flannel. */
export const DEFAULT_TYPE = 'udp'
const DEFAULT_BACKEND: JsonObject = { Type: DEFAULT_TYPE }

/** Per family: the keys' names, flannel's default for EnableIPv4/6, and its usual subnet length. */
export const KEYS = {
  4: {
    enable: 'EnableIPv4',
    enabled: true,
    network: 'Network',
    length: 'SubnetLen',
    min: 'SubnetMin',
    max: 'SubnetMax',
    usual: 24
  },
  6: {
    enable: 'EnableIPv6',
    enabled: false,
    network: 'IPv6Network',
    length: 'IPv6SubnetLen',
    min: 'IPv6SubnetMin',
    max: 'IPv6SubnetMax',
    usual: 64
  }
} as const satisfies Record<Family, object>

/** A minimal configuration, for cures. */
export const EXAMPLE = '{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}'

/** Bytes; what etcd and a ConfigMap hold at most (1.5 MiB, 1 MiB by default). A real one has a few hundred. */
export const LONGEST_CONFIGURATION = 1 << 20

/**
 * Addresses that cannot be routed to pods. `anywhere`: a network that merely overlaps them is rejected too, since
 * subnets would be taken from there. 240.0.0.0/4 is not among them: Linux routes it like any other since 2.6.25, and
 * clusters use it for pods.
 */
const IMPOSSIBLE = [
  { range: '127.0.0.0/8', what: 'loopback addresses', anywhere: true },
  { range: '::1/128', what: 'the loopback address', anywhere: true },
  { range: '224.0.0.0/4', what: 'multicast addresses', anywhere: true },
  { range: 'ff00::/8', what: 'multicast addresses', anywhere: true },
  { range: '169.254.0.0/16', what: 'link-local addresses', anywhere: false },
  { range: 'fe80::/10', what: 'link-local addresses', anywhere: false },
  { range: '0.0.0.0/8', what: 'addresses of "this network" (RFC 791)', anywhere: false }
] as const

/** The rule that a network of unusable addresses breaks, for the message. */
function impossible(within: Prefix): string | undefined {
  const found = IMPOSSIBLE.find(({ range, anywhere }) => {
    const prefix = parsePrefix(range)
    return prefix !== undefined && (anywhere ? overlaps(prefix, within) : contains(prefix, within))
  })
  return (
    found &&
    `a network whose addresses pods can have as in "${within.ip.family === 4 ? '10.244.0.0/16' : 'fd00:10:244::/48'}": ${found.range} are ${found.what}`
  )
}

/**
 * Parses the configuration with flannel's keys, rules and defaults. `source` names the origin of the text, for errors.
 * Errors: CONFIG_INVALID with the JSON path as the user spelled it, the value and the rule.
 */
export function parseNetConf(text: string, source = 'the network configuration'): NetConf {
  if (text.length > LONGEST_CONFIGURATION) throw tooLong(source)
  const written = parseObject(text, source)
  const fault = check('netConf', spelled('netConf', written))
  if (fault !== undefined) throw invalid({ path: asWritten(written, fault.path), source }, fault.value, fault.rule)

  const families: { [F in Family]?: NetworkRange } = {}
  for (const family of FAMILIES)
    if (booleanKey(written, KEYS[family].enable, KEYS[family].enabled, ''))
      families[family] = rangeIn(written, family, source)
  if (FAMILIES.every((family) => families[family] === undefined)) {
    const off = findKey(written, KEYS[4].enable, '')
    throw invalid(
      { path: off?.path ?? KEYS[4].enable, source },
      off?.value,
      `true unless ${KEYS[6].enable} is, since a network needs one of the two`
    )
  }
  const backend = (findKey(written, 'Backend', '')?.value ?? DEFAULT_BACKEND) as JsonObject
  return { families, backendType: textKey(backend, 'Type', { default: DEFAULT_TYPE }).toLowerCase(), backend }
}

function parseObject(text: string, source: string): JsonObject {
  if (isTooDeep(text))
    throw new WeftError('CONFIG_INVALID', `${source} is not ${NESTED_JSON}`, `write a JSON object as in ${EXAMPLE}`)
  let value: Json
  try {
    value = JSON.parse(text) as Json
  } catch (cause) {
    throw notJson(text, source, cause)
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as JsonObject
  throw invalid({ path: 'the whole value', source }, value, `a JSON object as in ${EXAMPLE}`)
}

const tooLong = (source: string): WeftError =>
  new WeftError(
    'CONFIG_INVALID',
    `${source} is longer than ${LONGEST_CONFIGURATION} bytes`,
    `write a JSON object as in ${EXAMPLE}`
  )

/** V8 quotes what is around the fault, which may be a secret. */
function fault(text: string, cause: unknown): string {
  const { message } = cause as SyntaxError
  return mentionsSecret(text) ? message.replace(/, (?:\.{3})?"[\s\S]*is not valid JSON$/, '') : message
}

function notJson(text: string, source: string, cause: unknown): WeftError {
  const reason =
    text.trim() === ''
      ? 'is empty'
      : `is not JSON, which has no comments, no single quotes and no comma before } or ] (${fault(text, cause)})`
  return new WeftError('CONFIG_INVALID', `${source} ${reason}`, `write a JSON object as in ${EXAMPLE}`, { cause })
}

/** A path of the schema's names in the spelling of the user. */
function asWritten(written: JsonObject, path: readonly string[]): string {
  let shown = ''
  let at: Json | undefined = written
  for (const name of path) {
    const found: ReturnType<typeof findKey> =
      typeof at === 'object' && at !== null ? findKey(at as JsonObject, name, shown) : undefined
    shown = found?.path ?? joinPath(shown, name)
    at = found?.value
  }
  return shown === '' ? 'the whole value' : shown
}

/**
 * One family's network and the subnets in it. The rules are those of flannel's CheckNetworkConfig
 * (pkg/subnet/config.go).
 */
function rangeIn(written: JsonObject, family: Family, source: string): NetworkRange {
  const keys = KEYS[family]
  const entry = (name: string) => {
    const found = findKey(written, name, '')
    return { text: found?.value as string | undefined, place: { path: found?.path ?? name, source } }
  }
  const whole = entry(keys.network)
  const parsed = whole.text === undefined ? undefined : parsePrefix(whole.text)
  if (parsed?.ip.family !== family)
    throw invalid(
      whole.place,
      whole.text,
      `an IPv${family} network with prefix length${whole.text === undefined ? `, since ${keys.enable} is true` : ''}`
    )
  const within = network(parsed)
  const reason = impossible(within)
  if (reason !== undefined) throw invalid(whole.place, whole.text, reason)

  const subnetLength = lengthIn(written, family, within, source)
  const size = 1n << BigInt(width(family) - subnetLength)
  const { first, last } = rangeOf(within)
  /** The end of the range that a key gives, or `otherwise`. */
  const end = (name: string, otherwise: Ip | undefined): Ip => {
    const { text, place } = entry(name)
    const ip = text === undefined ? otherwise : parseIp(text)
    if (ip?.family !== family) throw invalid(place, text, `an IPv${family} address`)
    if (!contains(within, ip)) throw invalid(place, text, `inside ${whole.place.path} ${formatPrefix(within)}`)
    const start = network({ ip, length: subnetLength }).ip
    if (!sameIp(start, ip))
      throw invalid(place, text, `the first address of a /${subnetLength} as ${formatIp(start)} is`)
    return ip
  }
  // The first subnet is left out: its network address is that of the whole Network, which some programs take for a
  // broadcast address.
  const subnetMin = end(keys.min, offset(first, size))
  const subnetMax = end(keys.max, offset(last, 1n - size))
  if (subnetMin.value > subnetMax.value) {
    const { text, place } = entry(keys.max)
    throw invalid(place, text ?? formatIp(subnetMax), `at least ${keys.min}, which is ${formatIp(subnetMin)}`)
  }
  return { network: within, subnetLength, subnetMin, subnetMax }
}

/** The prefix length of a subnet: at least four subnets in the network, at least four addresses in a subnet. */
function lengthIn(written: JsonObject, family: Family, within: Prefix, source: string): number {
  const keys = KEYS[family]
  const most = width(family) - 2
  const length = integerKey(written, keys.length, { min: 0, max: most, default: 0 }, '')
  const place = findKey(written, keys.length, '')
  if (within.length > most - 2) {
    const shown = findKey(written, keys.network, '')
    throw invalid(
      { path: shown?.path ?? keys.network, source },
      shown?.value,
      `a network of at most /${most - 2}, so that four subnets fit in`
    )
  }
  // 0 counts as absent, as in flannel.
  if (length === 0) return within.length <= keys.usual - 2 ? keys.usual : within.length + 2
  if (length >= within.length + 2) return length
  throw invalid(
    { path: place?.path ?? keys.length, source },
    length,
    `from ${within.length + 2} to ${most}, so that four subnets fit into ${formatPrefix(within)}`
  )
}
