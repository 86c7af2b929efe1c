// nft syntax for families and prefixes, so that rules are written once for both families.
import { type Family, formatPrefix, network, type Prefix, width } from '../../ipam/address.ts'

/** nft's name for the protocol of a family. */
export const protocol = (family: Family): 'ip' | 'ip6' => (family === 4 ? 'ip' : 'ip6')

/** `ip saddr`, for a set to follow. */
export const fromAny = (family: Family): string => `${protocol(family)} saddr`

/** `ip saddr 10.244.0.0/16`, or `ip saddr != …`. */
export function fromPrefix(prefix: Prefix, not = false): string {
  return `${protocol(prefix.ip.family)} saddr ${not ? '!= ' : ''}${formatPrefix(network(prefix))}`
}

/** `ip6 daddr fd00:10::/48`, or `ip6 daddr != …`. */
export function toPrefix(prefix: Prefix, not = false): string {
  return `${protocol(prefix.ip.family)} daddr ${not ? '!= ' : ''}${formatPrefix(network(prefix))}`
}

/** 224.0.0.0/4 (RFC 5771) and ff00::/8 (RFC 4291). */
export const MULTICAST: Readonly<Record<Family, Prefix>> = {
  4: { ip: { family: 4, value: 224n << 24n }, length: 4 },
  6: { ip: { family: 6, value: 0xffn << 120n }, length: 8 }
}

/** A prefix as part of a chain's or map's name, which can't contain dots or colons: `a3c0000_24`. */
export const prefixWord = ({ ip, length }: Prefix): string => `${ip.value.toString(16)}_${length}`

/** A name that contains a prefix: `masquerade_4_a3c0000_24`. */
export const prefixName = (what: string, prefix: Prefix): string => `${what}_${prefix.ip.family}_${prefixWord(prefix)}`

/** The prefix in such a name; `undefined` for any other name. */
export function prefixNamed(what: string, name: string): Prefix | undefined {
  const found = name.startsWith(`${what}_`) ? /^([46])_(.*)$/.exec(name.slice(what.length + 1)) : null
  return found === null ? undefined : prefixOf(found[2] ?? '', Number(found[1]) as Family)
}

/** Parses the result of `prefixWord`; `undefined` when it is not a prefix of this family. */
export function prefixOf(word: string, family: Family): Prefix | undefined {
  const found = /^([0-9a-f]{1,32})_(\d{1,3})$/.exec(word)
  if (found === null) return undefined
  const prefix: Prefix = { ip: { family, value: BigInt(`0x${found[1]}`) }, length: Number(found[2]) }
  const bits = width(family)
  return prefix.length > bits || prefix.ip.value >= 1n << BigInt(bits) ? undefined : prefix
}
