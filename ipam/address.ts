// Addresses, prefixes and ranges as values with a family, with one arithmetic for IPv4 and IPv6.

/** Address family by its usual number: 4 is IPv4 (RFC 791), 6 is IPv6 (RFC 8200). */
export type Family = 4 | 6
/** Both families in the order in which we list, log and print them. */
export const FAMILIES: readonly Family[] = [4, 6]
/** Something that may exist once per family. */
export type PerFamily<T> = { readonly [F in Family]?: T }

/** One address; `value` is the address as an unsigned number, most significant bit first on the wire. */
export type Ip = { readonly family: Family; readonly value: bigint }
/** An address with a prefix length. Host bits are kept, as in `10.1.2.3/24`; `network()` clears them. */
export type Prefix = { readonly ip: Ip; readonly length: number }
/** All addresses from `first` to `last`, both included; one family. */
export type Range = { readonly first: Ip; readonly last: Ip }

/** Bits in an address of this family. */
export const width = (family: Family): number => (family === 4 ? 32 : 128)

/**
 * Reads an address in dotted decimal (no leading zeros: RFC 6943 3.1.1) or RFC 4291 text; `undefined` when it is
 * neither. Zones (`%eth0`) are refused.
 */
export function parseIp(text: string): Ip | undefined {
  const value = text.includes(':') ? parse6(text) : parse4(text)
  return value === undefined ? undefined : { family: text.includes(':') ? 6 : 4, value }
}

function parse4(text: string): bigint | undefined {
  const parts = text.split('.')
  if (parts.length !== 4) return undefined
  let value = 0
  for (const part of parts) {
    const octet = /^(0|[1-9]\d{0,2})$/.test(part) ? Number(part) : 256
    if (octet > 255) return undefined
    value = value * 256 + octet
  }
  return BigInt(value)
}

function parse6(text: string): bigint | undefined {
  const halves = text.split('::')
  if (halves.length > 2 || (halves.length === 2 && halves[0]?.includes('.'))) return undefined
  const [left, right] = [groups(halves[0] ?? ''), halves.length === 2 ? groups(halves[1] ?? '') : []]
  if (left === undefined || right === undefined) return undefined
  const missing = 8 - left.length - right.length
  if (halves.length === 2 ? missing < 1 : missing !== 0) return undefined
  return [...left, ...Array<bigint>(missing).fill(0n), ...right].reduce((value, group) => (value << 16n) | group, 0n)
}

/** The 16-bit groups of one side of `::`; the last may be an embedded IPv4 address (RFC 4291 2.2). */
function groups(text: string): bigint[] | undefined {
  if (text === '') return []
  const out: bigint[] = []
  const parts = text.split(':')
  for (const [at, part] of parts.entries()) {
    if (part.includes('.')) {
      const embedded = at === parts.length - 1 ? parse4(part) : undefined
      if (embedded === undefined) return undefined
      out.push(embedded >> 16n, embedded & 0xffffn)
    } else if (/^[0-9a-f]{1,4}$/i.test(part)) out.push(BigInt(`0x${part}`))
    else return undefined
  }
  return out
}

/** Canonical text: dotted decimal, or RFC 5952 (lower case, longest run of zeros shortened). */
export function formatIp(ip: Ip): string {
  if (ip.family === 4) {
    const bits = Number(ip.value)
    return `${bits >>> 24}.${(bits >>> 16) & 255}.${(bits >>> 8) & 255}.${bits & 255}`
  }
  const parts = Array.from({ length: 8 }, (_, at) => Number((ip.value >> BigInt(112 - 16 * at)) & 0xffffn))
  let best = { at: -1, length: 1 }
  for (let at = 0; at < 8; at++) {
    let end = at
    while (end < 8 && parts[end] === 0) end++
    if (end - at > best.length) best = { at, length: end - at }
  }
  const hex = (list: readonly number[]) => list.map((part) => part.toString(16)).join(':')
  return best.at < 0 ? hex(parts) : `${hex(parts.slice(0, best.at))}::${hex(parts.slice(best.at + best.length))}`
}

/**
 * Reads `address/length`; host bits are kept. `undefined` when the address or the length is not valid for the family.
 */
export function parsePrefix(text: string): Prefix | undefined {
  const [address, length, ...rest] = text.split('/')
  const ip = parseIp(address ?? '')
  if (ip === undefined || length === undefined || rest.length > 0 || !/^(0|[1-9]\d{0,2})$/.test(length))
    return undefined
  return Number(length) <= width(ip.family) ? { ip, length: Number(length) } : undefined
}

export const formatPrefix = (prefix: Prefix): string => `${formatIp(prefix.ip)}/${prefix.length}`

/** An address as a prefix that holds only itself: /32 or /128. */
export const hostPrefix = (ip: Ip): Prefix => ({ ip, length: width(ip.family) })

/** By index: a number with that many low bits set. */
const ONES: readonly bigint[] = Array.from({ length: 129 }, (_, count) => (1n << BigInt(count)) - 1n)
const hostBits = ({ ip, length }: Prefix): bigint => ONES[width(ip.family) - length] ?? 0n

/** The prefix length as an address: 255.255.255.0. */
export const netmask = ({ ip: { family }, length }: Prefix): Ip => ({
  family,
  value: (ONES[width(family)] ?? 0n) ^ (ONES[width(family) - length] ?? 0n)
})

/** The same prefix with its host bits cleared. */
export function network(prefix: Prefix): Prefix {
  return { ip: { family: prefix.ip.family, value: prefix.ip.value & ~hostBits(prefix) }, length: prefix.length }
}

/** First and last address of a prefix, network and broadcast address included. */
export function rangeOf(prefix: Prefix): Range {
  const first = network(prefix).ip
  return { first, last: { family: first.family, value: first.value | hostBits(prefix) } }
}

/** The fewest prefixes that are the range together: at most two for each bit of an address. */
export function rangePrefixes({ first, last }: Range): readonly Prefix[] {
  const { family } = first
  const prefixes: Prefix[] = []
  for (let value = first.value; value <= last.value && last.family === family; ) {
    let hostPart = 0
    while (hostPart < width(family)) {
      const size = 1n << BigInt(hostPart + 1)
      if (value % size !== 0n || value + size - 1n > last.value) break
      hostPart++
    }
    prefixes.push({ ip: { family, value }, length: width(family) - hostPart })
    value += 1n << BigInt(hostPart)
  }
  return prefixes
}

/** The address `by` steps after `ip` (before, when negative); `undefined` outside the family's space. */
export function offset(ip: Ip, by: bigint): Ip | undefined {
  const value = ip.value + by
  return value >= 0n && value < 1n << BigInt(width(ip.family)) ? { family: ip.family, value } : undefined
}

/** Order by family, then by number. */
export function compareIp(a: Ip, b: Ip): number {
  if (a.family !== b.family) return a.family - b.family
  return a.value < b.value ? -1 : a.value > b.value ? 1 : 0
}

export const sameIp = (a: Ip | undefined, b: Ip | undefined): boolean =>
  a === undefined || b === undefined ? a === b : a.family === b.family && a.value === b.value

/** Equal as networks: host bits do not count. */
export const samePrefix = (a: Prefix, b: Prefix): boolean =>
  a.length === b.length && sameIp(network(a).ip, network(b).ip)

/** Whether an address or a whole prefix lies inside `outer`. Different families never do. */
export function contains(outer: Prefix, inner: Ip | Prefix): boolean {
  const ip = 'ip' in inner ? inner.ip : inner
  if (ip.family !== outer.ip.family || ('ip' in inner && inner.length < outer.length)) return false
  return (ip.value ^ outer.ip.value) <= hostBits(outer)
}

export const overlaps = (a: Prefix, b: Prefix): boolean => contains(a, b) || contains(b, a)

/** Whether `ip` lies between the ends of `range`, both included. */
export const inRange = (range: Range, ip: Ip): boolean =>
  ip.family === range.first.family && range.first.value <= ip.value && ip.value <= range.last.value

/** The address in network byte order: 4 or 16 bytes. */
export function ipBytes(ip: Ip): Uint8Array {
  if (ip.family === 4) {
    const bits = Number(ip.value)
    return Uint8Array.of(bits >>> 24, bits >>> 16, bits >>> 8, bits)
  }
  const bytes = new Uint8Array(16)
  let rest = ip.value
  for (let at = bytes.length - 1; at >= 0; at--, rest >>= 8n) bytes[at] = Number(rest & 255n)
  return bytes
}

/** The inverse of `ipBytes`; 4 bytes are IPv4, 16 are IPv6, any other number is `undefined`. */
export function ipFromBytes(bytes: Uint8Array): Ip | undefined {
  if (bytes.length === 4) return { family: 4, value: BigInt(bytes.reduce((value, byte) => value * 256 + byte, 0)) }
  if (bytes.length !== 16) return undefined
  return { family: 6, value: bytes.reduce((value, byte) => (value << 8n) | BigInt(byte), 0n) }
}

const within = (...texts: readonly string[]) => {
  const prefixes = texts.map((text) => parsePrefix(text)).filter((prefix) => prefix !== undefined)
  return (ip: Ip): boolean => prefixes.some((prefix) => contains(prefix, ip))
}
/** 127.0.0.0/8 (RFC 1122) and ::1 (RFC 4291). */
export const isLoopback = within('127.0.0.0/8', '::1/128')
/** 169.254.0.0/16 (RFC 3927) and fe80::/10 (RFC 4291). */
export const isLinkLocal = within('169.254.0.0/16', 'fe80::/10')
/** 224.0.0.0/4 (RFC 5771) and ff00::/8 (RFC 4291). */
export const isMulticast = within('224.0.0.0/4', 'ff00::/8')
const PRIVATE = ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', 'fc00::/7'].flatMap((text) => parsePrefix(text) ?? [])
/** Addresses that networks choose for themselves: RFC 1918, and unique local ones (RFC 4193). */
export const isPrivate = (ip: Ip): boolean => PRIVATE.some((prefix) => contains(prefix, ip))
/** 0.0.0.0 and ::. */
export const isUnspecified = (ip: Ip): boolean => ip.value === 0n
/** An address another host can send to. */
export const isGlobalUnicast = (ip: Ip): boolean =>
  !isLoopback(ip) && !isLinkLocal(ip) && !isMulticast(ip) && !isUnspecified(ip) && ip.value !== 0xffff_ffffn

/** All addresses of both families: `0.0.0.0/0` and `::/0`. */
export const everything = (family: Family): Prefix => ({ ip: { family, value: 0n }, length: 0 })

/** The values of a per-family record, IPv4 first. */
export function perFamily<T>(record: PerFamily<T>): readonly (readonly [Family, T])[] {
  const found: (readonly [Family, T])[] = []
  for (const family of FAMILIES) {
    const value = record[family]
    if (value !== undefined) found.push([family, value])
  }
  return found
}
