// Asks the kernel of another host by a UDP packet to a port that nobody listens on: it answers with an ICMP error that
// quotes the packet, which the socket's error queue holds (IP_RECVERR of ip(7)). What does not quote the random payload of
// this packet is no answer. Node's dgram has neither SO_MARK nor the error queue.
import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  AF_INET,
  checked,
  close,
  int,
  MSG_DONTWAIT,
  option,
  prototypes,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
  SOL,
  SOL_SOCKET,
  sendNow,
  unlessBusy
} from './libc.ts'
import { socketAddress } from './socket-address.ts'

const SO_MARK = 36
/** IP_RECVERR, IPV6_RECVERR. */
const RECEIVE_ERRORS = { 4: 11, 6: 25 } as const
const MSG_ERRQUEUE = 0x2000
/** Errors that are read: more are a flood of forged ones. */
const MOST_ERRORS = 256

export type PortQuestion = {
  readonly family: 4 | 6
  /** Octets of the addresses. */
  readonly source: Uint8Array
  readonly to: Uint8Array
  readonly port: number
  /** Of the packet, for the rules of the firewall; 0: none. */
  readonly mark: number
  /** Length of the payload, at least 16. */
  readonly octets: number
  /** Milliseconds to wait for the answer; it always waits so long, as hosts answer about once a second. */
  readonly patience: number
}

/** Whether it was answered. Errors: CallFailed, when the socket cannot be opened or the kernel does not send. */
export async function askPort(question: PortQuestion): Promise<boolean> {
  const { family, source, to, port, mark, octets, patience } = question
  const fd = checked('socket', prototypes.socket(AF_INET[family], SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0))
  try {
    if (mark !== 0) option(fd, SOL_SOCKET, SO_MARK, int(mark))
    option(fd, SOL[family], RECEIVE_ERRORS[family], int(1))
    const from = socketAddress(family, source)
    checked('bind', prototypes.bind(fd, from, from.length))
    const peer = socketAddress(family, to, port)
    checked('connect', prototypes.connect(fd, peer, peer.length))
    const payload = randomBytes(octets)
    sendNow(fd, payload)
    await sleep(patience)
    return isQuoted(fd, payload)
  } finally {
    close(fd)
  }
}

/** Whether an ICMP error quotes the payload. Linux quotes 576 octets of a packet; of a shorter quote nothing is known. */
function isQuoted(fd: number, payload: Uint8Array): boolean {
  const into = Buffer.alloc(payload.length + 1)
  for (let read = 0; read < MOST_ERRORS; read++) {
    const length = unlessBusy('recv', () => prototypes.recv(fd, into, into.length, MSG_ERRQUEUE | MSG_DONTWAIT))
    if (length === undefined) return false
    if (into.subarray(0, length).equals(payload)) return true
  }
  return false
}
