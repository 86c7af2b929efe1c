// What the expressions of nf_tables that load a register stand for in libnftables-json(5).
import type { Attributes } from '../netlink/message.ts'
import type { Loaded } from './decode-value.ts'
import { NFT_PAYLOAD, NFTA_META, NFTA_PAYLOAD } from './uapi.ts'

type What = Omit<Loaded, 'order'>

/** enum nft_meta_keys. */
const metaKeys = [
  ['length', 4],
  ['protocol', 2],
  ['priority', 4],
  ['mark', 4],
  ['iif', 4],
  ['oif', 4],
  ['iifname', 16],
  ['oifname', 16],
  ['iiftype', 2],
  ['oiftype', 2],
  ['skuid', 4],
  ['skgid', 4],
  ['nftrace', 1],
  ['rtclassid', 4],
  ['secmark', 4],
  ['nfproto', 1],
  ['l4proto', 1],
  ['ibrname', 16],
  ['obrname', 16],
  ['pkttype', 1],
  ['cpu', 4],
  ['iifgroup', 4],
  ['oifgroup', 4],
  ['cgroup', 4],
  ['random', 4],
  ['ipsec', 1],
  ['iifkind', 16],
  ['oifkind', 16]
] as const
const metaForms: { readonly [key: string]: Loaded['form'] } = {
  iif: 'index',
  oif: 'index',
  nfproto: 'family',
  l4proto: 'protocol',
  protocol: 'number'
}
const DEVICE_NAMES = /^(iifname|oifname|ibrname|obrname|iifkind|oifkind)$/

/** enum nft_ct_keys. */
const ctKeys = [
  'state',
  'direction',
  'status',
  'mark',
  'secmark',
  'expiration',
  'helper',
  'l3proto',
  'saddr',
  'daddr',
  'protocol',
  'proto-src',
  'proto-dst',
  'label',
  'packets',
  'bytes',
  'avgpkt',
  'zone'
] as const

/** IP versions by NFPROTO_*, as far as a table or a match before says it. */
export type Version = 4 | 6 | undefined

/** What an expression of this name loads. */
export function loadedBy(name: string, data: Attributes, version: Version): What {
  if (name === 'meta') return loadedByMeta(data.u32BigEndian(NFTA_META.key) ?? -1)
  if (name === 'ct') {
    const key = ctKeys[data.u32BigEndian(NFTA_META.key) ?? -1] ?? 'unknown'
    const form = key === 'state' ? 'state' : /addr|proto/.test(key) ? 'number' : 'host'
    return { json: { ct: { key } }, form, octets: 4 }
  }
  if (name === 'payload') return loadedByPayload(data, version)
  // fib, rt, socket, osf, numgen, hash, exthdr, xfrm, tunnel and what later kernels have.
  return { json: { [name]: {} }, form: 'number', octets: 4 }
}

function loadedByMeta(number: number): What {
  const [key, octets] = metaKeys[number] ?? ['unknown', 4]
  const form = metaForms[key] ?? (DEVICE_NAMES.test(key) ? 'device' : 'host')
  return { json: { meta: { key } }, form, octets }
}

/** Where addresses begin in the headers. */
const addresses: readonly (readonly [protocol: 'ip' | 'ip6', field: string, offset: number, octets: number])[] = [
  ['ip', 'saddr', 12, 4],
  ['ip', 'daddr', 16, 4],
  ['ip6', 'saddr', 8, 16],
  ['ip6', 'daddr', 24, 16]
]

function loadedByPayload(data: Attributes, version: Version): What {
  const base = data.u32BigEndian(NFTA_PAYLOAD.base)
  const offset = data.u32BigEndian(NFTA_PAYLOAD.offset) ?? 0
  const octets = data.u32BigEndian(NFTA_PAYLOAD.length) ?? 0
  // Prefixes of whole octets are compared as the first octets of the address.
  const address = addresses.find(
    ([protocol, , from, whole]) =>
      base === NFT_PAYLOAD.network &&
      from === offset &&
      octets <= whole &&
      (protocol === 'ip' ? 4 : 6) === (version ?? (octets <= 4 ? 4 : 6))
  )
  const protocol = address?.[0] ?? protocolOf(base, version)
  const field = address?.[1] ?? fields.get(`${protocol} ${offset}`) ?? `@${offset}`
  return { json: { payload: { protocol, field } }, form: address === undefined ? 'number' : 'address', octets }
}

function protocolOf(base: number | undefined, version: Version): string {
  if (base === NFT_PAYLOAD.link) return 'ether'
  return base === NFT_PAYLOAD.network ? (version === 6 ? 'ip6' : 'ip') : 'th'
}

/** Names of other fields, by protocol and offset; `th` are those that TCP, UDP and SCTP have in common. */
const fields: ReadonlyMap<string, string> = new Map([
  ['ether 0', 'daddr'],
  ['ether 6', 'saddr'],
  ['ether 12', 'type'],
  ['ip 9', 'protocol'],
  ['ip6 6', 'nexthdr'],
  ['th 0', 'sport'],
  ['th 2', 'dport']
])
