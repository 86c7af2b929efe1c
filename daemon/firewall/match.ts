// nft's words for a family and a prefix, so that rules are written once for both.
import { type Family, formatPrefix, network, type Prefix } from '../../ipam/address.ts'

const protocol = (family: Family): 'ip' | 'ip6' => (family === 4 ? 'ip' : 'ip6')

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
