// Raw ICMP sockets (raw(7), icmp(7)) for echo requests. Node has no such sockets; they need CAP_NET_RAW.
import { checked, close, prototypes, SOCK_CLOEXEC } from './libc.ts'

/** <sys/socket.h>, <linux/icmp.h>, <linux/icmpv6.h>; the same on x86-64 and arm64. */
const AF = { 4: 2, 6: 10 } as const
const SOCK_RAW = 3
const SOCK_NONBLOCK = 0o4000
const PROTOCOL = { 4: 1, 6: 58 } as const
/** SOL_RAW with ICMP_FILTER; SOL_ICMPV6 with ICMPV6_FILTER. A set bit keeps a type from the socket. */
const FILTER = { 4: { level: 255, name: 1 }, 6: { level: 58, name: 1 } } as const
/** Types that are received: echo reply, destination unreachable, packet too big (IPv6), time exceeded. */
const RECEIVED = { 4: [0, 3, 11], 6: [129, 1, 2, 3] } as const

/** A struct sockaddr_in or sockaddr_in6 of an address without a port. */
function socketAddress(family: 4 | 6, address: Uint8Array): Buffer {
  const bytes = Buffer.alloc(family === 4 ? 16 : 28)
  bytes.writeUInt16LE(AF[family])
  bytes.set(address, family === 4 ? 4 : 8)
  return bytes
}

/**
 * A non-blocking socket in the network namespace of the calling thread that receives answers and errors of ICMP, those
 * of other programs' requests too. Errors: CallFailed.
 */
export function answerSocket(family: 4 | 6): number {
  const fd = checked('socket', prototypes.socket(AF[family], SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, PROTOCOL[family]))
  const filter = Buffer.alloc(family === 4 ? 4 : 32, 0xff)
  for (const type of RECEIVED[family]) {
    const at = (type >> 5) * 4
    filter.writeUInt32LE((filter.readUInt32LE(at) & ~(1 << (type & 31))) >>> 0, at)
  }
  const { level, name } = FILTER[family]
  prototypes.setsockopt(fd, level, name, filter, filter.length)
  return fd
}

/**
 * Sends one ICMP message, its checksum set for IPv4, from the namespace of the calling thread. Errors: CallFailed; EPERM
 * where a firewall there dropped it.
 */
export function sendIcmp(family: 4 | 6, message: Uint8Array, to: Uint8Array, from?: Uint8Array): void {
  const fd = checked('socket', prototypes.socket(AF[family], SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, PROTOCOL[family]))
  try {
    if (from !== undefined) {
      const own = socketAddress(family, from)
      checked('bind', prototypes.bind(fd, own, own.length))
    }
    const peer = socketAddress(family, to)
    checked('connect', prototypes.connect(fd, peer, peer.length))
    checked('send', prototypes.send(fd, message, message.length, 0))
  } finally {
    close(fd)
  }
}
