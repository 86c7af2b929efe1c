// Raw ICMP and ICMPv6 sockets for probes (raw(7), RFC 3542): they send echo requests that the kernel neither fragments
// nor measures by its path MTU cache, and receive those messages alone whose payload begins with our magic; and packet
// sockets (packet(7)) that see the same messages before the firewall does. Node has none of them; the packages for raw
// sockets (raw-socket) are native add-ons, and know no filters.
import { addressOf } from './foreign-function.ts'
import { icmpSocket } from './icmp-socket.ts'
import {
  CallFailed,
  checked,
  close,
  deviceIndex,
  errnoNumber,
  forceBuffers,
  int,
  option,
  prototypes,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
  SOL,
  SOL_SOCKET
} from './libc.ts'
import { MOST_TOGETHER, ReceiveBatch, SendBatch } from './message-batch.ts'
import { inOwnTurns, whileReadable } from './readable.ts'
import { ADDRESS_AT, socketAddress } from './socket-address.ts'

/** <linux/in.h>, <linux/in6.h>, <linux/icmp.h>, <linux/icmpv6.h>, <asm-generic/socket.h>; the same on x86-64 and arm64. */
const AF_PACKET = 17
const ETH_P = { 4: 0x0800, 6: 0x86dd } as const
const IPV6_HEADER = 40
const FLAGS = SOCK_CLOEXEC | SOCK_NONBLOCK
const MTU_DISCOVER = { 4: 10, 6: 23 } as const
/** IP_PMTUDISC_PROBE, IPV6_PMTUDISC_PROBE: DF is set, and the path MTU that the kernel knows is not applied. */
const PMTUDISC_PROBE = 3
const IP_TOS = 1
const SO_ATTACH_FILTER = 26
const SO_TIMESTAMPNS = 35
const REQUEST = { 4: 8, 6: 128 } as const
const REPLY = { 4: 0, 6: 129 } as const

/** Packets that are read in one go; what comes while more is waiting is not lost, but read in the next turn. */
const MOST_A_TURN = 4_096
/** More probes or answers than arrive between two turns, should the event loop be busy. */
const QUEUE_BYTES = 1 << 20
/**
 * Requests of others that are read between two calls of drain(). Pods can send them, too: the rest of a flood is left
 * for the kernel to drop, in a queue of its own, so that no answer is lost with it.
 */
const MOST_REQUESTS = 1_024
export type RawSocketOptions = {
  readonly family: 4 | 6
  /** Octets of the address that packets leave with, and to which those that are received were sent. */
  readonly source: Uint8Array
  /** Eight octets at the beginning of the payload: all else is dropped in the kernel. */
  readonly magic: string
  /**
   * A number of 32 bits, and how far into the payload it is, that answers must have: others are dropped in the kernel,
   * so that forged ones neither fill the queue nor cost time.
   */
  readonly mark?: { readonly at: number; readonly value: number }
  /** Type of service of IPv4 packets that are sent, for the routes that have one. */
  readonly tos?: number
  /** Absent: the socket receives nothing. */
  readonly received?: Received
  /** A message that the kernel did not send, by the tag that it was given, with the name of the error. */
  readonly refused?: (tag: number, name: string) => void
}

/**
 * Called for each packet, which is only valid during the call: its beginning, which may have octets of an earlier one
 * behind it; milliseconds since it arrived in the kernel; how many octets it has; and by IPv6 its source.
 */
export type Received = (packet: Uint8Array, ago: number, length: number, source?: Uint8Array) => void

type ReaderOptions = {
  readonly received: Received
  /** Packets that are read between two calls of drain(). */
  readonly most?: number
  readonly hasSource?: boolean
}

/** Reads packets into memory that all sockets share: all of a call are read to their end before the next. */
class Reader implements Disposable {
  static #batch: ReceiveBatch | undefined
  readonly #fd: number
  readonly #options: ReaderOptions
  #poll: Disposable | undefined
  /** More has arrived than is read between two calls of drain(). */
  #isFull = false

  constructor(fd: number, options: ReaderOptions) {
    this.#fd = fd
    this.#options = options
    option(fd, SOL_SOCKET, SO_TIMESTAMPNS, int(1))
  }

  /** Calls once, as soon as there is something to read; what is left of a flood is nothing to hurry for. */
  watch(ready: () => void): void {
    if (this.#isFull) return
    this.#poll ??= inOwnTurns(whileReadable, this.#fd, () => {
      this[Symbol.dispose]()
      ready()
    })
  }

  [Symbol.dispose](): void {
    this.#poll?.[Symbol.dispose]()
    this.#poll = undefined
  }

  drain(): void {
    this[Symbol.dispose]()
    Reader.#batch ??= new ReceiveBatch()
    const batch = Reader.#batch
    const { received, most = MOST_A_TURN, hasSource } = this.#options
    this.#isFull = false
    for (let left = most; left > 0; ) {
      const count = this.#receive(batch, left)
      if (count === undefined) return
      for (let at = 0; at < count; at++)
        received(batch.message(at), batch.ago(at), batch.lengthOf(at), hasSource ? batch.sourceOf(at) : undefined)
      // Fewer than fit: no more has arrived.
      if (count > 0 && count < MOST_TOGETHER) return
      left -= Math.max(1, count)
    }
    this.#isFull = true
  }

  /** `0`: an error that was waiting on the socket, as after an ICMP message to one of our packets. */
  #receive(batch: ReceiveBatch, most: number): number | undefined {
    try {
      return batch.read(this.#fd, most)
    } catch (error) {
      if (error instanceof CallFailed && error.errno !== errnoNumber('EBADF')) return 0
      throw error
    }
  }
}

/** Errors: CallFailed, with EPERM without CAP_NET_RAW, EADDRNOTAVAIL when no device has `source`. */
export class RawSocket implements Disposable {
  /** Sends, and receives the answers. */
  readonly #fd: number
  readonly #batch: SendBatch
  readonly #readers: readonly Reader[]
  readonly #open: DisposableStack

  constructor({ family, source, magic, mark, tos, received, refused = () => undefined }: RawSocketOptions) {
    const address = socketAddress(family, source)
    using opened = new DisposableStack()
    const bound = (type: number | undefined) => {
      const words = type === REPLY[family] && mark !== undefined ? [...wordsOf(magic), mark] : wordsOf(magic)
      const fd = boundSocket(family, address, words, type)
      opened.defer(() => close(fd))
      return fd
    }
    this.#fd = bound(received && REPLY[family])
    option(this.#fd, SOL[family], MTU_DISCOVER[family], int(PMTUDISC_PROBE))
    if (tos !== undefined && family === 4) option(this.#fd, SOL[4], IP_TOS, int(tos))
    this.#readers =
      received === undefined
        ? []
        : [
            opened.use(new Reader(this.#fd, { received })),
            opened.use(new Reader(bound(REQUEST[family]), { received, most: MOST_REQUESTS, hasSource: family === 6 }))
          ]
    this.#batch = new SendBatch(this.#fd, address, ADDRESS_AT[family], refused)
    this.#open = opened.move()
  }

  /** Has it sent by the next flush(), or before. Behind the first 64 octets of the message there must be zeros only. */
  send(to: Uint8Array, message: Uint8Array, tag = 0): void {
    this.#batch.add(to, message, tag)
  }

  /** Never waits. */
  flush(): void {
    this.#batch.flush()
  }

  /** Reads what has arrived, of a flood a part. */
  drain(): void {
    for (const reader of this.#readers) reader.drain()
  }

  /** Calls when something has arrived, at most once for requests and once for answers; drain() ends that. */
  watch(ready: () => void): void {
    for (const reader of this.#readers) reader.watch(ready)
  }

  [Symbol.dispose](): void {
    this.#open[Symbol.dispose]()
  }
}

/** Receives messages of this type alone, or none. */
function boundSocket(family: 4 | 6, source: Buffer, words: readonly Word[], type: number | undefined): number {
  const fd = icmpSocket(family, type === undefined ? [] : [type])
  try {
    // IPv6 sockets receive the message alone.
    filterPayload(fd, family === 4 ? 'IPv4 header' : 0, words)
    if (type !== undefined) forceBuffers(fd, { receive: QUEUE_BYTES })
    checked('bind', prototypes.bind(fd, source, source.length))
  } catch (error) {
    close(fd)
    throw error
  }
  return fd
}

export type PacketSocketOptions = {
  readonly family: 4 | 6
  readonly device: string
  readonly magic: string
  /** As of a raw socket: IPv4 packets with their header, of IPv6 the message alone. */
  readonly received: Received
}

/**
 * Sees what arrives on a device before the firewall drops it. The filter runs for each packet of the device, so this is
 * for a time of trouble. Errors: CallFailed, with ENODEV when there is no such device.
 */
export class PacketSocket implements Disposable {
  readonly #fd: number
  readonly #reader: Reader

  constructor({ family, device, magic, received }: PacketSocketOptions) {
    // Without a protocol it receives nothing until it is bound.
    this.#fd = checked('socket', prototypes.socket(AF_PACKET, SOCK_DGRAM | FLAGS, 0))
    try {
      filterPayload(this.#fd, family === 4 ? 'IPv4 header' : IPV6_HEADER, wordsOf(magic))
      const index = deviceIndex(this.#fd, device)
      if (index === undefined) throw new CallFailed('bind', errnoNumber('ENODEV'))
      // A struct sockaddr_ll.
      const address = Buffer.alloc(20)
      address.writeUInt16LE(AF_PACKET)
      address.writeUInt16BE(ETH_P[family], 2)
      address.writeInt32LE(index, 4)
      checked('bind', prototypes.bind(this.#fd, address, address.length))
    } catch (error) {
      close(this.#fd)
      throw error
    }
    const message: Received = (packet, ago, length) => received(packet.subarray(IPV6_HEADER), ago, length - IPV6_HEADER)
    this.#reader = new Reader(this.#fd, { received: family === 4 ? received : message, most: MOST_REQUESTS })
  }

  /** Reads what has arrived. */
  drain(): void {
    this.#reader.drain()
  }

  [Symbol.dispose](): void {
    this.#reader[Symbol.dispose]()
    close(this.#fd)
  }
}

/** Instructions of classic BPF, <linux/bpf_common.h>: operation, and how far to jump when true and false. */
const LOAD_HEADER_LENGTH = 0xb1
const LOAD_WORD_BEHIND = 0x40
const LOAD_WORD = 0x20
const JUMP_IF_EQUAL = 0x15
const RETURN = 0x06

/** Four octets of the payload, and where they are in it. */
type Word = { readonly at: number; readonly value: number }

const wordsOf = (magic: string): readonly Word[] =>
  [0, 4].map((at) => ({ at, value: Buffer.from(magic).readUInt32BE(at) }))

/** Other pings of this host, a flood of them for example, never wake the daemon. `before`: octets before the message. */
function filterPayload(fd: number, before: number | 'IPv4 header', words: readonly Word[]): void {
  const [load, from] = before === 'IPv4 header' ? [LOAD_WORD_BEHIND, 8] : [LOAD_WORD, before + 8]
  const program: readonly (readonly [code: number, onTrue: number, onFalse: number, value: number])[] = [
    // The length of the IP header to the index register.
    ...(before === 'IPv4 header' ? ([[LOAD_HEADER_LENGTH, 0, 0, 0]] as const) : []),
    ...words.flatMap(({ at, value }, index): readonly (readonly [number, number, number, number])[] => [
      [load, 0, 0, from + at],
      [JUMP_IF_EQUAL, 0, 2 * (words.length - index) - 1, value]
    ]),
    [RETURN, 0, 0, 0x4_0000],
    [RETURN, 0, 0, 0]
  ]
  const filter = Buffer.allocUnsafeSlow(program.length * 8)
  for (const [at, [code, onTrue, onFalse, value]] of program.entries()) {
    filter.writeUInt16LE(code, at * 8)
    filter.writeUInt8(onTrue, at * 8 + 2)
    filter.writeUInt8(onFalse, at * 8 + 3)
    filter.writeUInt32LE(value, at * 8 + 4)
  }
  const header = Buffer.alloc(16)
  header.writeUInt16LE(program.length)
  header.writeBigUInt64LE(addressOf(filter), 8)
  option(fd, SOL_SOCKET, SO_ATTACH_FILTER, header)
}
