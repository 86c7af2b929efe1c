// Raw ICMP sockets for echo requests: they need CAP_NET_RAW.
import { icmpSocket } from './icmp-socket.ts'
import { checked, close, prototypes } from './libc.ts'
import { socketAddress } from './socket-address.ts'

/** Types that are received: echo reply, destination unreachable, packet too big (IPv6), time exceeded. */
const RECEIVED = { 4: [0, 3, 11], 6: [129, 1, 2, 3] } as const

/**
 * A non-blocking socket in the network namespace of the calling thread that receives answers and errors of ICMP, those
 * of other programs' requests too. Errors: CallFailed.
 */
export const answerSocket = (family: 4 | 6): number => icmpSocket(family, RECEIVED[family])

/**
 * Sends one ICMP message, its checksum set for IPv4, from the namespace of the calling thread. Errors: CallFailed; EPERM
 * where a firewall there dropped it.
 */
export function sendIcmp(family: 4 | 6, message: Uint8Array, to: Uint8Array, from?: Uint8Array): void {
  const fd = icmpSocket(family)
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
