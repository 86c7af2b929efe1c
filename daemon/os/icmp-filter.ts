// Which types of ICMP messages a raw socket receives: ICMP_FILTER of raw(7), ICMP6_FILTER of RFC 3542, section 3.2.
import { option } from './libc.ts'

/** <linux/in.h>, <linux/in6.h>. */
export const ICMP_PROTOCOL = { 4: 1, 6: 58 } as const
/** SOL_RAW with ICMP_FILTER; SOL_ICMPV6 with ICMPV6_FILTER. A set bit keeps a type from the socket. */
const FILTER = { 4: { level: 255, name: 1, octets: 4 }, 6: { level: 58, name: 1, octets: 32 } } as const

/** IPv4 sockets receive types above 31 whatever the filter says. Errors: CallFailed. */
export function receiveTypes(fd: number, family: 4 | 6, types: readonly number[]): void {
  const { level, name, octets } = FILTER[family]
  const blocked = Buffer.alloc(octets, 0xff)
  for (const type of types) {
    const word = (type >> 5) * 4
    blocked.writeUInt32LE((blocked.readUInt32LE(word) & ~(1 << (type & 31))) >>> 0, word)
  }
  option(fd, level, name, blocked)
}
