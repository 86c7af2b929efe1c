// Decodes the right side of a match in nf_tables' messages, by what the left side loads, into the values of
// libnftables-json(5).
import { formatIp, hostPrefix, ipFromBytes, type Prefix, width } from '../../../ipam/address.ts'

/** What a register was loaded with: `json` as libnftables-json(5) has it, and how its octets are to be read. */
export type Loaded = {
  readonly json: { readonly [key: string]: unknown }
  readonly form: 'address' | 'device' | 'state' | 'index' | 'family' | 'protocol' | 'host' | 'number'
  /** Octets that are loaded: fewer than an address has where only a prefix is compared. */
  readonly octets: number
  /** Order of the loads and uses in a rule: parts of a concatenation are loaded in direct succession. */
  readonly order: number
  /** The bits that are compared, where not all are. */
  readonly mask?: Buffer
  /** The name of a device, for form `index`. */
  readonly nameOf?: (index: number) => string | undefined
}

const FULL = { 4: 4, 6: 16 } as const
const IFNAMSIZ = 16

/** Names of conntrack states by bit: of nf_tables, and of iptables' conntrack match. */
const stateNames: readonly (readonly [bit: number, name: string])[] = [
  [1, 'invalid'],
  [2, 'established'],
  [4, 'related'],
  [8, 'new']
]
export const UNTRACKED = { nftables: 1 << 6, iptables: 1 << 8 } as const

/** Names of the states in a mask; those without a name as numbers. */
export function statesIn(mask: number, untracked: number): readonly string[] {
  const names = [...stateNames, [untracked, 'untracked'] as const]
  const rest = names.reduce((left, [bit]) => left & ~bit, mask)
  const found = names.filter(([bit]) => (mask & bit) !== 0).map(([, name]) => name)
  return rest === 0 ? found : [...found, `0x${rest.toString(16)}`]
}

/** NFPROTO_IPV4, NFPROTO_IPV6. */
const families: Readonly<Record<number, string>> = { 2: 'ipv4', 10: 'ipv6' }

/** IANA protocol numbers. */
const protocols: Readonly<Record<number, string>> = {
  1: 'icmp',
  6: 'tcp',
  17: 'udp',
  58: 'icmpv6',
  132: 'sctp'
}

/** One value as JSON. Of addresses a prefix where `octets` are fewer than an address has. */
export function valueJson(loaded: Pick<Loaded, 'form' | 'octets' | 'json' | 'nameOf'>, bytes: Uint8Array): unknown {
  switch (loaded.form) {
    case 'address':
      return prefixJson(addressOf(loaded, bytes))
    case 'device':
      return deviceOf(bytes)
    case 'state': {
      const states = statesIn(numberOf(bytes), UNTRACKED.nftables)
      return states.length === 1 ? states[0] : states
    }
    case 'family':
      return families[bytes[0] ?? 0] ?? bytes[0]
    case 'protocol':
      return protocols[bytes[0] ?? 0] ?? bytes[0]
    case 'index':
      return loaded.nameOf?.(numberOf(bytes)) ?? numberOf(bytes)
    case 'host':
      return numberOf(bytes)
    case 'number':
      return bytes.length > 4 ? Buffer.from(bytes).toString('hex') : bigEndian(bytes)
  }
}

/** nf_tables compares as many octets of a name as the rule says: all with the NUL, or the beginning of `eth*`. */
function deviceOf(bytes: Uint8Array): string {
  const end = bytes.indexOf(0)
  const name = Buffer.from(bytes.subarray(0, end < 0 ? Math.min(bytes.length, IFNAMSIZ) : end)).toString()
  return end < 0 ? `${name}*` : name
}

/** Numbers in the host's order, which is little endian on x86-64 and arm64. */
const numberOf = (bytes: Uint8Array): number =>
  ((bytes[0] ?? 0) | ((bytes[1] ?? 0) << 8) | ((bytes[2] ?? 0) << 16) | ((bytes[3] ?? 0) << 24)) >>> 0

const bigEndian = (bytes: Uint8Array): number => bytes.reduce((sum, octet) => sum * 256 + octet, 0)

/** The family of an address match. */
export const familyOf = (loaded: Pick<Loaded, 'json'>): 4 | 6 =>
  (loaded.json.payload as { readonly protocol?: unknown } | undefined)?.protocol === 'ip6' ? 6 : 4

/** The prefix that these octets, the first ones of an address, stand for; `length` where a mask says it. */
export function addressOf(loaded: Pick<Loaded, 'json' | 'octets'>, bytes: Uint8Array, length?: number): Prefix {
  const family = familyOf(loaded)
  const whole = new Uint8Array(FULL[family])
  whole.set(bytes.subarray(0, Math.min(loaded.octets, whole.length)))
  const ip = ipFromBytes(whole) ?? { family, value: 0n }
  return { ip, length: length ?? Math.min(loaded.octets * 8, width(family)) }
}

export const prefixJson = ({ ip, length }: Prefix): unknown =>
  length === width(ip.family) ? formatIp(ip) : { prefix: { addr: formatIp(ip), len: length } }

/** The length of a prefix of which these octets are the mask; `undefined` when its bits have gaps. */
export function maskLength(mask: Uint8Array): number | undefined {
  const bits = [...mask].map((octet) => octet.toString(2).padStart(8, '0')).join('')
  return /^1*0*$/.test(bits) ? bits.lastIndexOf('1') + 1 : undefined
}

/** A range of addresses: one address or prefix where it is one. */
export function rangeJson(loaded: Pick<Loaded, 'json' | 'octets'>, first: Uint8Array, last: Uint8Array): unknown {
  const [from, to] = [addressOf(loaded, first).ip, addressOf(loaded, last).ip]
  const size = to.value - from.value + 1n
  const bits = size > 0n ? size.toString(2).length - 1 : 0
  if (size > 0n && size === 1n << BigInt(bits) && from.value % size === 0n)
    return prefixJson({ ...hostPrefix(from), length: width(from.family) - bits })
  return { range: [formatIp(from), formatIp(to)] }
}
