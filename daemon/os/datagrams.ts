// UDP datagrams by IPv4 in bulk: many in one send, cut by the kernel (UDP_SEGMENT of udp(7)), and many in one that was
// received, joined by the kernel (UDP_GRO).
import { addressOf, errno } from './foreign-function.ts'
import {
  AF_INET,
  CallFailed,
  checked,
  close,
  datagramSocket,
  errnoNumber,
  forceBuffers,
  int,
  MSG_DONTWAIT,
  prototypes,
  setOption,
  unlessBusy
} from './libc.ts'
import { socketAddress } from './socket-address.ts'

/** <linux/udp.h>; the same on every Linux. */
const SOL_UDP = 17
const UDP_SEGMENT = 103
const UDP_GRO = 104
/** Octets of socket buffer in each direction: with the usual 208 kB a burst is lost. */
const BUFFERS = 4 << 20
/** struct mmsghdr: octets, and where its fields are, in octets (64-bit systems). */
const HEADER = 64
const AT = { name: 0, nameLength: 8, parts: 16, partCount: 24, control: 32, controlLength: 40, length: 56 } as const
/** struct iovec; struct sockaddr_in; struct cmsghdr with an int. */
const [PART, NAME, CONTROL] = [16, 16, 24]
const [CONTROL_LENGTH, SEGMENT_LENGTH] = [24, 18]

/** Datagrams of one call before the kernel cuts them, and what it cuts one into at most (UDP_MAX_SEGMENTS). */
const MOST_SENT = 64
const MOST_SEGMENTS = 64
/** Payload of a datagram; of the datagrams of one call together. */
const LARGEST = 65_507
const ROOM = 4 * 65_536
/** Datagrams of one call that are received, and room for each. */
const MOST_RECEIVED = 8
export const RECEIVED_ROOM = 65_536

const lasting = (length: number): Buffer => Buffer.allocUnsafeSlow(length).fill(0)

/** A non-blocking UDP socket bound to this address. Errors: CallFailed, with EADDRINUSE. */
export function openDatagramSocket(local: Uint8Array, port: number): number {
  const fd = datagramSocket(4)
  try {
    forceBuffers(fd, { send: BUFFERS, receive: BUFFERS })
    const address = socketAddress(4, local, port)
    checked('bind', prototypes.bind(fd, address, address.length))
    // Kernels before 5.0 hand over each datagram by itself.
    setOption(fd, SOL_UDP, UDP_GRO, int(1))
    return fd
  } catch (error) {
    close(fd)
    throw error
  }
}

/** Memory with a struct mmsghdr, a struct iovec, an address and a control message for each of `count` datagrams. */
class Messages {
  readonly headers: Buffer
  readonly view: DataView
  readonly lengths: Uint32Array
  readonly parts: BigUint64Array
  readonly partLengths: Uint32Array
  readonly names: DataView
  readonly controls: DataView

  constructor(count: number) {
    this.headers = lasting(count * HEADER)
    this.view = new DataView(this.headers.buffer, this.headers.byteOffset, this.headers.length)
    this.lengths = new Uint32Array(this.headers.buffer, this.headers.byteOffset, count * 16)
    const [parts, names, controls] = [lasting(count * PART), lasting(count * NAME), lasting(count * CONTROL)]
    this.parts = new BigUint64Array(parts.buffer, parts.byteOffset, count * 2)
    this.partLengths = new Uint32Array(parts.buffer, parts.byteOffset, count * 4)
    this.names = new DataView(names.buffer, names.byteOffset, names.length)
    this.controls = new DataView(controls.buffer, controls.byteOffset, controls.length)
    for (let at = 0; at < count; at++) {
      const header = at * HEADER
      this.headers.writeBigUInt64LE(addressOf(names) + BigInt(at * NAME), header + AT.name)
      this.headers.writeUInt32LE(NAME, header + AT.nameLength)
      this.headers.writeBigUInt64LE(addressOf(parts) + BigInt(at * PART), header + AT.parts)
      this.headers.writeUInt32LE(1, header + AT.partCount)
      this.headers.writeBigUInt64LE(addressOf(controls) + BigInt(at * CONTROL), header + AT.control)
    }
  }
}

export type SenderOptions = {
  readonly port: number
  /** A datagram, or some of one length, that the kernel did not send, with the name of the error. */
  readonly refused: (errno: number) => void
  /** Called once, when the kernel turns out not to cut datagrams. */
  readonly withoutSegments: (why: string) => void
}

/** Collects datagrams; those of one length to one address that follow each other are cut by the kernel. */
export class DatagramSender {
  readonly memory: Uint8Array = lasting(ROOM)
  readonly #fd: number
  readonly #options: SenderOptions
  readonly #messages = new Messages(MOST_SENT)
  readonly #memoryAt = addressOf(this.memory)
  /** Of each: where it begins, how long it is, its pieces' length, how many pieces it has. */
  readonly #from = new Uint32Array(MOST_SENT)
  readonly #length = new Uint32Array(MOST_SENT)
  readonly #piece = new Uint32Array(MOST_SENT)
  readonly #pieces = new Uint32Array(MOST_SENT)
  #count = 0
  #used = 0
  #to = 0
  /** The last piece is shorter than the others: nothing may follow it. */
  #isClosed = true
  #cuts: boolean

  constructor(fd: number, options: SenderOptions) {
    this.#fd = fd
    this.#options = options
    const { names, controls } = this.#messages
    for (let at = 0; at < MOST_SENT; at++) {
      names.setUint16(at * NAME, AF_INET[4], true)
      names.setUint16(at * NAME + 2, options.port)
      controls.setBigUint64(at * CONTROL, BigInt(SEGMENT_LENGTH), true)
      controls.setInt32(at * CONTROL + 8, SOL_UDP, true)
      controls.setInt32(at * CONTROL + 12, UDP_SEGMENT, true)
    }
    // Kernels before 4.18 ignore the control message, and would send all pieces as one.
    this.#cuts = setOption(fd, SOL_UDP, UDP_SEGMENT, int(0))
    if (!this.#cuts) options.withoutSegments('it lacks UDP_SEGMENT')
  }

  get cuts(): boolean {
    return this.#cuts
  }

  /** Room for a datagram to this address; where it begins in the memory. Sends what is there when there is no more. */
  room(length: number, to: number): number {
    const last = this.#count - 1
    if (
      last >= 0 &&
      this.#cuts &&
      !this.#isClosed &&
      to === this.#to &&
      length <= (this.#piece[last] as number) &&
      (this.#pieces[last] as number) < MOST_SEGMENTS &&
      (this.#length[last] as number) + length <= LARGEST &&
      this.#used + length <= ROOM
    ) {
      this.#isClosed = length < (this.#piece[last] as number)
      this.#length[last] = (this.#length[last] as number) + length
      this.#pieces[last] = (this.#pieces[last] as number) + 1
    } else {
      // Begins at an even octet, where words are summed faster.
      if (this.#count === MOST_SENT || this.#used + 1 + length > ROOM) this.flush()
      this.#used += this.#used & 1
      const at = this.#count++
      this.#from[at] = this.#used
      this.#length[at] = length
      this.#piece[at] = length
      this.#pieces[at] = 1
      this.#messages.names.setUint32(at * NAME + 4, to)
      this.#to = to
      this.#isClosed = false
    }
    const from = this.#used
    this.#used += length
    return from
  }

  /** Sends all; never waits. */
  flush(): void {
    const count = this.#count
    if (count === 0) return
    const { parts, partLengths, lengths, controls, headers } = this.#messages
    for (let at = 0; at < count; at++) {
      parts[at * 2] = this.#memoryAt + BigInt(this.#from[at] as number)
      partLengths[at * 4 + 2] = this.#length[at] as number
      const isCut = (this.#pieces[at] as number) > 1
      lengths[at * 16 + AT.controlLength / 4] = isCut ? CONTROL_LENGTH : 0
      if (isCut) controls.setUint16(at * CONTROL + 16, this.#piece[at] as number, true)
    }
    for (let at = 0; at < count; ) {
      const some = at === 0 ? headers : headers.subarray(at * HEADER)
      const sent = prototypes.sendmmsg(this.#fd, some, count - at, MSG_DONTWAIT)
      if (sent > 0) at += sent
      else this.#failed(at++, errno())
    }
    this.#count = 0
    this.#used = 0
  }

  /** The call ends before the first that fails, and the next one names the error. */
  #failed(at: number, failure: number): void {
    const isRefused = failure === EIO || failure === EINVAL || failure === EMSGSIZE
    if ((this.#pieces[at] as number) === 1 || !isRefused) {
      this.#options.refused(failure)
      return
    }
    // EIO: the outgoing device computes no checksums. The others may also mean that a piece is too large for the path.
    const hasSent = this.#sendPieces(at)
    if (!this.#cuts || (failure !== EIO && !hasSent)) return
    this.#cuts = false
    this.#options.withoutSegments(new CallFailed('sendmmsg with UDP_SEGMENT', failure).message)
  }

  /** One by one; whether the kernel took any. */
  #sendPieces(at: number): boolean {
    const messages = new Messages(1)
    messages.names.setUint16(0, AF_INET[4], true)
    messages.names.setUint16(2, this.#options.port)
    messages.names.setUint32(4, this.#messages.names.getUint32(at * NAME + 4))
    const [from, length, piece] = [this.#from[at] as number, this.#length[at] as number, this.#piece[at] as number]
    let hasSent = false
    for (let done = 0; done < length; done += piece) {
      messages.parts[0] = this.#memoryAt + BigInt(from + done)
      messages.partLengths[2] = Math.min(piece, length - done)
      if (prototypes.sendmmsg(this.#fd, messages.headers, 1, MSG_DONTWAIT) > 0) hasSent = true
      else this.#options.refused(errno())
    }
    return hasSent
  }
}

const EIO = errnoNumber('EIO')
const EINVAL = errnoNumber('EINVAL')
const EMSGSIZE = errnoNumber('EMSGSIZE')

/** Receives datagrams: the first at the beginning of `memory`, the next RECEIVED_ROOM octets behind it, and so on. */
export class DatagramReceiver {
  readonly memory: Uint8Array = lasting(MOST_RECEIVED * RECEIVED_ROOM)
  readonly #fd: number
  readonly #messages = new Messages(MOST_RECEIVED)

  constructor(fd: number) {
    this.#fd = fd
    const { parts, partLengths } = this.#messages
    const at = addressOf(this.memory)
    for (let one = 0; one < MOST_RECEIVED; one++) {
      parts[one * 2] = at + BigInt(one * RECEIVED_ROOM)
      partLengths[one * 4 + 2] = RECEIVED_ROOM
    }
  }

  /** How many have arrived; 0: none, or an error that waited on the socket. Errors: CallFailed, for a socket that is none. */
  receive(): number {
    const { lengths, headers } = this.#messages
    for (let at = 0; at < MOST_RECEIVED; at++) {
      lengths[at * 16 + AT.nameLength / 4] = NAME
      lengths[at * 16 + AT.controlLength / 4] = CONTROL_LENGTH
    }
    try {
      return unlessBusy('recvmmsg', () => prototypes.recvmmsg(this.#fd, headers, MOST_RECEIVED, MSG_DONTWAIT, 0)) ?? 0
    } catch (error) {
      if (error instanceof CallFailed && error.errno !== errnoNumber('EBADF')) return 0
      throw error
    }
  }

  lengthOf(at: number): number {
    return this.#messages.lengths[at * 16 + AT.length / 4] as number
  }

  /** The sender's address. */
  sourceOf(at: number): number {
    return this.#messages.names.getUint32(at * NAME + 4)
  }

  /** The length of each piece but the last, where the kernel has joined several; otherwise the whole. */
  pieceOf(at: number): number {
    const { lengths, controls } = this.#messages
    const control = at * CONTROL
    const hasOne = (lengths[at * 16 + AT.controlLength / 4] as number) >= 20
    if (!hasOne || controls.getInt32(control + 8, true) !== SOL_UDP) return this.lengthOf(at)
    if (controls.getInt32(control + 12, true) !== UDP_GRO) return this.lengthOf(at)
    return Math.max(1, controls.getInt32(control + 16, true))
  }
}
