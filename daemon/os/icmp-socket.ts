// Raw ICMP sockets (raw(7), icmp(7)), and which types of messages one receives: ICMP_FILTER of raw(7), ICMP6_FILTER of
// RFC 3542, section 3.2. Node has no such sockets; they need CAP_NET_RAW.
import { AF_INET, checked, close, option, prototypes, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_RAW } from './libc.ts'

/** <linux/in.h>, <linux/in6.h>. */
const PROTOCOL = { 4: 1, 6: 58 } as const
/** SOL_RAW with ICMP_FILTER; SOL_ICMPV6 with ICMPV6_FILTER. A set bit keeps a type from the socket. */
const FILTER = { 4: { level: 255, name: 1, octets: 4 }, 6: { level: 58, name: 1, octets: 32 } } as const

/**
 * A non-blocking socket in the network namespace of the calling thread. `types`: what it receives, all when absent; IPv4
 * sockets receive types above 31 whatever it says. Errors: CallFailed.
 */
export function icmpSocket(family: 4 | 6, types?: readonly number[]): number {
  const flags = SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK
  const fd = checked('socket', prototypes.socket(AF_INET[family], flags, PROTOCOL[family]))
  try {
    if (types !== undefined) receiveTypes(fd, family, types)
    return fd
  } catch (error) {
    close(fd)
    throw error
  }
}

function receiveTypes(fd: number, family: 4 | 6, types: readonly number[]): void {
  const { level, name, octets } = FILTER[family]
  const blocked = Buffer.alloc(octets, 0xff)
  for (const type of types) {
    const word = (type >> 5) * 4
    blocked.writeUInt32LE((blocked.readUInt32LE(word) & ~(1 << (type & 31))) >>> 0, word)
  }
  option(fd, level, name, blocked)
}
