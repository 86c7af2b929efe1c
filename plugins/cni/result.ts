// Parses and prints results in any version of the specification; internally every result has the shape of 1.1.0
// (cni/types.ts).
import { parseIp, parsePrefix } from '../../ipam/address.ts'
import { CniError, cniCode } from './error.ts'
import {
  entries,
  type Field,
  FieldError,
  isAbsent,
  isObject,
  member,
  required,
  shown,
  text,
  texts,
  wholeNumber
} from './field.ts'
import type { Call, Dns, Result, ResultAddress, ResultInterface, ResultRoute } from './types.ts'
import { isAtLeast, isSupported, type Version } from './version.ts'

const largest32Bits = 0xffff_ffff

/** `prevResult` of a call; `undefined` if it has none. It must have the version of the call: runtimes convert it. */
export function previousResult(call: Exclude<Call, { readonly verb: 'VERSION' }>): Result | undefined {
  const field = member({ path: '', value: call.configuration }, 'prevResult')
  if (isAbsent(field)) return undefined
  return parseResult(field, call.version)
}

/**
 * What a delegate printed on standard output, in any version that is known: the one that delegates converts
 * (specification 1.1.0, "Delegated plugin execution"). Without `cniVersion`: in that of its call. `null` is an empty
 * result, as in libcni.
 */
export function parseDelegateResult(output: string, plugin: string, version: Version): Result {
  let value: unknown
  try {
    value = JSON.parse(output)
  } catch (cause) {
    throw new CniError(`plugin "${plugin}" did not print a result`, {
      code: cniCode.decoding,
      details: `its standard output is ${shown(output)}`,
      cause
    })
  }
  const field: Field = { path: `result of ${plugin}`, value: value ?? {} }
  return parseResult(field, knownVersion(field) ?? version)
}

/**
 * What a delegate printed, for a caller that passes it on: unchanged unless it is in another known version. Throws as
 * parseDelegateResult(), if it must be converted.
 */
export function inVersionOf(output: string, plugin: string, version: Version): string {
  let value: unknown
  try {
    value = JSON.parse(output)
  } catch {
    return output
  }
  const own = knownVersion({ path: '', value })
  return own === undefined || own === version
    ? output
    : printResult(version, parseDelegateResult(output, plugin, version))
}

function knownVersion(field: Field): Version | undefined {
  const own = isObject(field.value) ? member(field, 'cniVersion').value : undefined
  return typeof own === 'string' && isSupported(own) ? own : undefined
}

/**
 * A result in `version`, which its own `cniVersion`, if any, must equal. Throws 1 for another version, 6 for a
 * malformed result.
 */
function parseResult(field: Field, version: Version): Result {
  try {
    if (!isObject(field.value)) throw new FieldError(field, 'must be an object')
    const own = text(member(field, 'cniVersion')) ?? ''
    if (own !== '' && own !== version) throw differs(field, own, version)
    return isAtLeast(version, '0.3.0') ? fromLists(field) : fromFamilies(field)
  } catch (cause) {
    if (!(cause instanceof FieldError)) throw cause
    throw new CniError(`could not parse ${field.path}`, { code: cniCode.decoding, details: cause.message, cause })
  }
}

function differs(field: Field, own: string, version: Version): CniError {
  const details = isSupported(own)
    ? `the network configuration has ${version}, and both must be the same`
    : 'this version is not known'
  return new CniError(`could not parse ${field.path}: its cniVersion is ${shown(own)}`, {
    code: cniCode.incompatibleVersion,
    details
  })
}

/** 0.3.0 and later. */
function fromLists(field: Field): Result {
  return {
    interfaces: entries(member(field, 'interfaces')).map(readInterface),
    ips: entries(member(field, 'ips')).map(readAddress),
    routes: entries(member(field, 'routes')).map(readRoute),
    dns: readDns(member(field, 'dns'))
  }
}

/** 0.1.0 and 0.2.0: at most one address per family, its routes beside it, no interfaces. */
function fromFamilies(field: Field): Result {
  const families = ['ip4', 'ip6'].map((key) => member(field, key)).filter((family) => !isAbsent(family))
  return {
    interfaces: [],
    ips: families.map((family) =>
      without({ address: cidr(member(family, 'ip')), gateway: address(member(family, 'gateway')) })
    ),
    routes: families.flatMap((family) => entries(member(family, 'routes')).map(readRoute)),
    dns: readDns(member(field, 'dns'))
  }
}

/** Leaves out undefined members, as exact optional types require. */
type Without<T> = { [K in keyof T as undefined extends T[K] ? never : K]: T[K] } & {
  [K in keyof T as undefined extends T[K] ? K : never]?: Exclude<T[K], undefined>
}
const without = <T extends object>(record: T): Without<T> =>
  Object.fromEntries(Object.entries(record).filter(([, value]) => value !== undefined)) as Without<T>

const filled = (field: Field): string | undefined => text(field) || undefined

const readInterface = (field: Field): ResultInterface =>
  without({
    name: required(text(member(field, 'name')), member(field, 'name'), 'given'),
    mac: filled(member(field, 'mac')),
    mtu: wholeNumber(member(field, 'mtu'), 0, largest32Bits),
    sandbox: filled(member(field, 'sandbox')),
    socketPath: filled(member(field, 'socketPath')),
    pciID: filled(member(field, 'pciID'))
  })

const readAddress = (field: Field): ResultAddress =>
  without({
    interface: wholeNumber(member(field, 'interface'), 0, largest32Bits),
    address: cidr(member(field, 'address')),
    gateway: address(member(field, 'gateway'))
  })

export const readRoute = (field: Field): ResultRoute =>
  without({
    dst: cidr(member(field, 'dst')),
    gw: address(member(field, 'gw')),
    mtu: wholeNumber(member(field, 'mtu'), 0, largest32Bits),
    advmss: wholeNumber(member(field, 'advmss'), 0, largest32Bits),
    priority: wholeNumber(member(field, 'priority'), 0, largest32Bits),
    table: wholeNumber(member(field, 'table'), 0, largest32Bits),
    scope: wholeNumber(member(field, 'scope'), 0, 255)
  })

/** A `dns` object, of a result or of a configuration. */
export function readDns(field: Field): Dns {
  const list = (key: string) => (isAbsent(member(field, key)) ? undefined : texts(member(field, key)))
  return without({
    nameservers: list('nameservers'),
    domain: text(member(field, 'domain')),
    search: list('search'),
    options: list('options')
  })
}

function cidr(field: Field): string {
  const written = text(field)
  if (written === undefined || parsePrefix(written) === undefined)
    throw new FieldError(field, 'must be an address with prefix length, as 10.1.0.5/16')
  return written
}

function address(field: Field): string | undefined {
  const written = filled(field)
  if (written !== undefined && parseIp(written) === undefined)
    throw new FieldError(field, 'must be an IPv4 or IPv6 address')
  return written
}

/** The result as a JSON value of `version`. Throws 1 if that version cannot express it. */
export function resultIn(version: Version, result: Result): { readonly [key: string]: unknown } {
  const dns = writtenDns(result.dns)
  if (!isAtLeast(version, '0.3.0')) return { cniVersion: version, ...families(version, result), ...dns }
  // 1.0.0 keeps members that are new in 1.1.0, as the reference's library does: a chain must not lose them.
  const isComplete = isAtLeast(version, '1.0.0')
  return {
    cniVersion: version,
    ...list(
      'interfaces',
      result.interfaces.map((each) => (isComplete ? each : interface0(each)))
    ),
    ...list(
      'ips',
      result.ips.map((each) => (isComplete ? each : { version: isVersion6(each.address) ? '6' : '4', ...each }))
    ),
    ...list(
      'routes',
      result.routes.map((each) => (isComplete ? each : route0(each)))
    ),
    ...dns
  }
}

/** The same as a line for standard output. */
export const printResult = (version: Version, result: Result): string =>
  `${JSON.stringify(resultIn(version, result))}\n`

/** Of a valid address or prefix. */
const isVersion6 = (written: string): boolean => written.includes(':')

const list = (key: string, values: readonly unknown[]) => (values.length === 0 ? {} : { [key]: values })

const interface0 = ({ name, mac, sandbox }: ResultInterface) => without({ name, mac, sandbox })

const route0 = ({ dst, gw }: ResultRoute) => without({ dst, gw })

function families(version: Version, result: Result): { readonly [key: string]: unknown } {
  const written: Record<string, unknown> = {}
  for (const [key, wants6] of [
    ['ip4', false],
    ['ip6', true]
  ] as const) {
    const first = result.ips.find((each) => isVersion6(each.address) === wants6)
    if (first === undefined) continue
    const routes = result.routes.filter((each) => isVersion6(each.dst) === wants6).map(route0)
    written[key] = { ...without({ ip: first.address, gateway: first.gateway }), ...list('routes', routes) }
  }
  if (Object.keys(written).length === 0) {
    throw new CniError(`cniVersion ${version} has no result without an address`, {
      code: cniCode.incompatibleVersion,
      details: 'use cniVersion 0.3.0 or later'
    })
  }
  return written
}

/** Without empty lists and strings; `dns` itself is left out if nothing remains. */
function writtenDns(dns: Dns): { readonly dns?: Dns } {
  const kept = Object.fromEntries(Object.entries(dns).filter(([, value]) => value.length > 0))
  return Object.keys(kept).length === 0 ? {} : { dns: kept }
}
