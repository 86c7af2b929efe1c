// Asks the kernel of another host by a UDP packet to a port that nobody listens on: it answers with an ICMP error, which a
// connected socket hears as ECONNREFUSED (udp(7)). Node's dgram sets no SO_MARK.
import { setTimeout as sleep } from 'node:timers/promises'
import {
  AF_INET,
  CallFailed,
  checked,
  close,
  errnoNumber,
  int,
  prototypes,
  receiveNow,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOL_SOCKET,
  sendNow,
  setOption
} from './libc.ts'

const SOCK_NONBLOCK = 0o4000
const SO_MARK = 36

export type PortQuestion = {
  readonly family: 4 | 6
  /** Octets of the addresses. */
  readonly source: Uint8Array
  readonly to: Uint8Array
  readonly port: number
  /** Of the packet, for the rules of the firewall; 0: none. */
  readonly mark: number
  readonly payload: Uint8Array
  /** Milliseconds to wait for the answer; it always waits so long, as hosts answer about once a second. */
  readonly patience: number
}

/** Whether it was answered. Errors: CallFailed, when the socket cannot be opened or the kernel does not send. */
export async function askPort(question: PortQuestion): Promise<boolean> {
  const { family, source, to, port, mark, payload, patience } = question
  const fd = checked('socket', prototypes.socket(AF_INET[family], SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0))
  try {
    if (mark !== 0 && !setOption(fd, SOL_SOCKET, SO_MARK, int(mark)))
      throw new CallFailed('setsockopt SO_MARK', errnoNumber('EPERM'))
    const from = socketAddress(family, source, 0)
    checked('bind', prototypes.bind(fd, from, from.length))
    const peer = socketAddress(family, to, port)
    checked('connect', prototypes.connect(fd, peer, peer.length))
    sendNow(fd, payload)
    await sleep(patience)
    return isRefused(fd)
  } finally {
    close(fd)
  }
}

/** Data is an answer, too: somebody listens there. */
function isRefused(fd: number): boolean {
  try {
    return receiveNow(fd, Buffer.alloc(64)) !== undefined
  } catch (error) {
    return error instanceof CallFailed && error.errno === errnoNumber('ECONNREFUSED')
  }
}

/** A struct sockaddr_in or sockaddr_in6. */
function socketAddress(family: 4 | 6, address: Uint8Array, port: number): Buffer {
  const bytes = Buffer.alloc(family === 4 ? 16 : 28)
  bytes.writeUInt16LE(AF_INET[family])
  bytes.writeUInt16BE(port, 2)
  bytes.set(address, family === 4 ? 4 : 8)
  return bytes
}
