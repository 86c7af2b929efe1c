// A lease: which node holds which subnet and how it is reached. Parses and prints flannel's etcd key and value.
import {
  FAMILIES,
  type Family,
  formatIp,
  type Ip,
  isUnspecified,
  network,
  type PerFamily,
  type Prefix,
  parseIp,
  perFamily,
  sameIp,
  width
} from '../../ipam/address.ts'
import { WeftError } from '../base/error.ts'
import { isTooDeep, type Json, type JsonObject, NESTED_JSON } from '../config/json.ts'
import { findKey } from '../config/keys.ts'
import { DEFAULT_TYPE } from '../config/net-conf.ts'

export type Lease = {
  /** Network addresses (no host bits); at least one family. */
  readonly subnet: PerFamily<Prefix>
  readonly publicIp: PerFamily<Ip>
  /**
   * The backend's name as flannel spells it. Empty in a reservation whose node has not joined yet, and in a lease of
   * flanneld's default backend (`typeOf`).
   */
  readonly backendType: string
  /** What the backend publishes, by tunnel family: flannel's BackendData and BackendV6Data. */
  readonly backendData: PerFamily<Json>
  /** Kubernetes node name, where the store knows it. */
  readonly node?: string
  /**
   * When it was created, in its store's own count: etcd's creation revision, the creation time of the Kubernetes node,
   * the order of the lease file. Smaller is older.
   */
  readonly created?: number
  /** Younger leases of exactly these subnets, where the store can have several: they are not used. */
  readonly rivals?: readonly Lease[]
}

/** Whether `a` was created before `b`; of leases that are equally old, all nodes agree on one. */
export function isOlder(a: Lease, b: Lease): boolean {
  if (a.created !== undefined && b.created !== undefined && a.created !== b.created) return a.created < b.created
  const [left, right] = [a, b].map((lease) => `${leaseKey(lease)} ${lease.node ?? ''} ${formatLeaseValue(lease)}`)
  return (left ?? '') < (right ?? '')
}

/** The name of the lease's backend; flannel's default one writes none. */
export const typeOf = ({ backendType }: Pick<Lease, 'backendType'>): string => backendType || DEFAULT_TYPE

/** flannel's names in the value, by family. */
const NAMES = {
  4: { publicIp: 'PublicIP', backendData: 'BackendData' },
  6: { publicIp: 'PublicIPv6', backendData: 'BackendV6Data' }
} as const satisfies Record<Family, object>

/** The name of a lease: flannel's etcd key without the prefix, as `10.2.14.0-24` or `10.2.14.0-24&fd00:2:e::-64`. */
export function leaseKey(lease: Pick<Lease, 'subnet'>): string {
  return perFamily(lease.subnet)
    .map(([, prefix]) => `${formatIp(prefix.ip)}-${prefix.length}`)
    .join('&')
}

/**
 * The subnets that a key names; everything before its last `/` is ignored. `undefined` when it names none: flannel
 * ignores such keys. A key with host bits, which nobody writes as a lease, names none either: it must not hide the
 * lease under the key of that network. flannel writes `0.0.0.0-0&…` when a node has IPv6 only; that part names no
 * subnet.
 */
export function parseLeaseKey(text: string): PerFamily<Prefix> | undefined {
  const subnet: { [F in Family]?: Prefix } = {}
  for (const part of text.slice(text.lastIndexOf('/') + 1).split('&')) {
    const [, address, digits] = /^([\d.]+|[\da-f:.]+)-(\d{1,3})$/i.exec(part) ?? []
    const ip = parseIp(address ?? '')
    const length = Number(digits)
    if (ip === undefined || length > width(ip.family) || subnet[ip.family] !== undefined) return undefined
    // IPv4 comes first, so that no two keys name the same subnets.
    if (ip.family === 4 && subnet[6] !== undefined) return undefined
    if (!sameIp(ip, network({ ip, length }).ip)) return undefined
    if (length > 0) subnet[ip.family] = { ip, length }
  }
  return perFamily(subnet).length > 0 ? subnet : undefined
}

/**
 * The value of a lease's key as flannel's encoder writes it: its order, PublicIP `0.0.0.0` without IPv4, PublicIPv6
 * null without IPv6, no BackendType for the default backend.
 */
export function formatLeaseValue(lease: Lease): string {
  const { publicIp, backendType, backendData } = lease
  return JSON.stringify({
    PublicIP: publicIp[4] === undefined ? '0.0.0.0' : formatIp(publicIp[4]),
    PublicIPv6: publicIp[6] === undefined ? null : formatIp(publicIp[6]),
    ...(typeOf(lease) !== DEFAULT_TYPE && { BackendType: backendType }),
    ...(backendData[4] !== undefined && { BackendData: backendData[4] }),
    ...(backendData[6] !== undefined && { BackendV6Data: backendData[6] })
  })
}

/**
 * Parses a lease from its key and value. Keys of the value match in any letter case; unknown ones are ignored.
 * Errors: LEASE_MALFORMED with the key and the invalid value.
 */
export function parseLease(key: string, value: string): Lease {
  const subnet = parseLeaseKey(key)
  if (subnet === undefined)
    throw malformed(key, 'the key', key, 'subnets without host bits, as in 10.2.14.0-24 or 10.2.14.0-24&fd00:2:e::-64')
  const written = parseObject(key, value)
  const publicIp: { [F in Family]?: Ip } = {}
  const backendData: { [F in Family]?: Json } = {}
  for (const family of FAMILIES) {
    const ip = readIp(key, written, family)
    if (ip !== undefined) publicIp[family] = ip
    const data = Object.entries(written).findLast(
      ([name]) => name.toLowerCase() === NAMES[family].backendData.toLowerCase()
    )
    if (data !== undefined) backendData[family] = data[1]
  }
  if (perFamily(publicIp).length === 0)
    throw malformed(key, 'PublicIP', findKey(written, 'PublicIP')?.value, 'the address other nodes send to')
  const type = findKey(written, 'BackendType')?.value ?? ''
  if (typeof type !== 'string') throw malformed(key, 'BackendType', type, 'a text')
  return { subnet, publicIp, backendType: type, backendData }
}

function readIp(key: string, written: JsonObject, family: Family): Ip | undefined {
  const text = findKey(written, NAMES[family].publicIp)?.value
  if (text === undefined || text === '') return undefined
  const ip = typeof text === 'string' ? parseIp(text) : undefined
  if (ip?.family !== family) throw malformed(key, NAMES[family].publicIp, text, `an IPv${family} address`)
  return isUnspecified(ip) ? undefined : ip
}

function parseObject(key: string, text: string): JsonObject {
  if (isTooDeep(text)) throw malformed(key, 'the value', text, NESTED_JSON)
  let value: Json
  try {
    value = JSON.parse(text) as Json
  } catch (cause) {
    throw malformed(key, 'the value', text, 'JSON', cause)
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as JsonObject
  throw malformed(key, 'the value', value, 'a JSON object')
}

function malformed(key: string, what: string, value: Json | undefined, rule: string, cause?: unknown): WeftError {
  const shown = value === undefined ? 'is missing' : `is ${JSON.stringify(value).slice(0, 200)}`
  const message = `lease ${key}: ${what} ${shown}; it must be ${rule}`
  return new WeftError(
    'LEASE_MALFORMED',
    message,
    `correct or delete the key ${key}`,
    cause === undefined ? undefined : { cause }
  )
}
