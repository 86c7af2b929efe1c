// Datagrams by the dozen: what one sendmmsg(2) sends and one recvmmsg(2) reads, in memory that is laid out once. A call
// of the C library, a view and an error for each datagram would cost more than the kernel's work.
import { addressOf, errno } from './foreign-function.ts'
import { errnoName, MSG_DONTWAIT, prototypes, SOL_SOCKET, unlessBusy, wallClock } from './libc.ts'

/** Datagrams of one call. */
export const MOST_TOGETHER = 32
/** struct mmsghdr, with a struct msghdr at its beginning: octets, and where its fields are (64-bit systems). */
const HEADER = 64
const AT = { name: 0, nameLength: 8, parts: 16, partCount: 24, control: 32, controlLength: 40, length: 56 } as const
/** struct iovec. */
const PART = 16
/** Room for a struct sockaddr_in6. */
const NAME = 32
/** A struct cmsghdr with a struct timespec, as SO_TIMESTAMPNS has it: where level, type and time are. */
const CONTROL = 32
const SCM_TIMESTAMPNS = 35
const [AT_LEVEL, AT_TYPE, AT_SECONDS, AT_NANOSECONDS] = [8, 12, 16, 24]
const MSG_TRUNC = 0x20
/** Nothing waits on a socket for so long. */
const MOST_AGO_MS = 60_000

/** Octets of a message that differ; what follows them is zero. */
export const HEAD = 64
/** Octets of a message that are read. */
const READ = 128

/** Memory that never moves, since the headers point into it. */
const lasting = (length: number): Buffer => Buffer.allocUnsafeSlow(length).fill(0)

/** Messages that wait to be sent by one socket. */
export class SendBatch {
  readonly #fd: number
  readonly #addressAt: number
  readonly #refused: (tag: number, name: string) => void
  readonly #headers = lasting(MOST_TOGETHER * HEADER)
  readonly #parts = lasting(MOST_TOGETHER * 2 * PART)
  readonly #names: Buffer
  readonly #heads = lasting(MOST_TOGETHER * HEAD)
  readonly #tags = new Float64Array(MOST_TOGETHER)
  #zeros = lasting(0)
  #count = 0

  /** `name`: a socket address, in which the address of each message is at `addressAt`. */
  constructor(fd: number, name: Uint8Array, addressAt: number, refused: (tag: number, name: string) => void) {
    this.#fd = fd
    this.#addressAt = addressAt
    this.#refused = refused
    this.#names = lasting(MOST_TOGETHER * NAME)
    for (let at = 0; at < MOST_TOGETHER; at++) {
      this.#names.set(name, at * NAME)
      const header = at * HEADER
      this.#headers.writeBigUInt64LE(addressOf(this.#names) + BigInt(at * NAME), header + AT.name)
      this.#headers.writeUInt32LE(name.length, header + AT.nameLength)
      this.#headers.writeBigUInt64LE(addressOf(this.#parts) + BigInt(at * 2 * PART), header + AT.parts)
      this.#headers.writeUInt32LE(2, header + AT.partCount)
      this.#parts.writeBigUInt64LE(addressOf(this.#heads) + BigInt(at * HEAD), at * 2 * PART)
    }
  }

  /** Copies the first HEAD octets; the others are sent as zeros. A full batch is sent. */
  add(to: Uint8Array, message: Uint8Array, tag: number): void {
    if (this.#count === MOST_TOGETHER) this.flush()
    const at = this.#count++
    const { length } = message
    if (length - HEAD > this.#zeros.length) this.#lengthen(length - HEAD)
    this.#names.set(to, at * NAME + this.#addressAt)
    this.#heads.set(length > HEAD ? message.subarray(0, HEAD) : message, at * HEAD)
    const part = at * 2 * PART
    this.#parts.writeUInt32LE(Math.min(length, HEAD), part + 8)
    this.#parts.writeUInt32LE(Math.max(0, length - HEAD), part + PART + 8)
    this.#tags[at] = tag
  }

  /** Never waits. What the kernel does not send is reported by its tag. */
  flush(): void {
    for (let at = 0; at < this.#count; ) {
      const headers = at === 0 ? this.#headers : this.#headers.subarray(at * HEADER)
      const sent = prototypes.sendmmsg(this.#fd, headers, this.#count - at, MSG_DONTWAIT)
      // The call ends before the first that fails, and the next one names the error.
      if (sent > 0) at += sent
      else this.#refused(this.#tags[at++] ?? 0, errnoName(errno()))
    }
    this.#count = 0
  }

  #lengthen(length: number): void {
    this.#zeros = lasting(length)
    for (let at = 0; at < MOST_TOGETHER; at++)
      this.#parts.writeBigUInt64LE(addressOf(this.#zeros), at * 2 * PART + PART)
  }
}

/** What was read last: of each message its first octets, how many it has, and where it came from. */
export class ReceiveBatch {
  readonly #headers = lasting(MOST_TOGETHER * HEADER)
  readonly #parts = lasting(MOST_TOGETHER * PART)
  readonly #names = lasting(MOST_TOGETHER * NAME)
  readonly #octets = lasting(MOST_TOGETHER * READ)
  readonly #controls = lasting(MOST_TOGETHER * CONTROL)
  #readAt = 0
  readonly #messages: readonly Uint8Array[]
  readonly #addresses: readonly Uint8Array[]

  constructor() {
    for (let at = 0; at < MOST_TOGETHER; at++) {
      const header = at * HEADER
      this.#headers.writeBigUInt64LE(addressOf(this.#names) + BigInt(at * NAME), header + AT.name)
      this.#headers.writeBigUInt64LE(addressOf(this.#parts) + BigInt(at * PART), header + AT.parts)
      this.#headers.writeUInt32LE(1, header + AT.partCount)
      this.#headers.writeBigUInt64LE(addressOf(this.#controls) + BigInt(at * CONTROL), header + AT.control)
      this.#parts.writeBigUInt64LE(addressOf(this.#octets) + BigInt(at * READ), at * PART)
      this.#parts.writeUInt32LE(READ, at * PART + 8)
    }
    const views = (of: Buffer, from: number, step: number, length: number) =>
      Array.from({ length: MOST_TOGETHER }, (_, at) => of.subarray(at * step + from, at * step + from + length))
    this.#messages = views(this.#octets, 0, READ, READ)
    // A struct sockaddr_in6 has 16 octets of address behind port and flow.
    this.#addresses = views(this.#names, 8, NAME, 16)
  }

  /**
   * Reads at most so many without waiting; returns how many. `undefined`: nothing has arrived. Errors: CallFailed, also
   * for an error that waited on the socket, which it no longer has then.
   */
  read(fd: number, most = MOST_TOGETHER): number | undefined {
    const count = Math.min(most, MOST_TOGETHER)
    for (let at = 0; at < count; at++) {
      this.#headers.writeUInt32LE(NAME, at * HEADER + AT.nameLength)
      this.#headers.writeUInt32LE(CONTROL, at * HEADER + AT.controlLength)
    }
    // The length is that of the message, however much of it is read.
    const read = prototypes.recvmmsg(fd, this.#headers, count, MSG_DONTWAIT | MSG_TRUNC, 0)
    if (read > 0) this.#readAt = wallClock()
    return unlessBusy('recvmmsg', () => read)
  }

  /**
   * Milliseconds since it arrived in the kernel, where the socket has SO_TIMESTAMPNS. 0: not known; a clock that was set
   * since then does not count.
   */
  ago(at: number): number {
    const from = at * CONTROL
    const controls = this.#controls
    const length = this.#headers.readUInt32LE(at * HEADER + AT.controlLength)
    if (length < CONTROL || controls.readInt32LE(from + AT_LEVEL) !== SOL_SOCKET) return 0
    if (controls.readInt32LE(from + AT_TYPE) !== SCM_TIMESTAMPNS) return 0
    const [seconds, nanoseconds] = [
      controls.readUIntLE(from + AT_SECONDS, 6),
      controls.readUInt32LE(from + AT_NANOSECONDS)
    ]
    const ago = this.#readAt - (seconds * 1_000 + nanoseconds / 1e6)
    return ago > 0 && ago < MOST_AGO_MS ? ago : 0
  }

  /** Its first octets, behind which are those of an earlier one. Valid until the next call of `read`. */
  message(at: number): Uint8Array {
    return this.#messages[at] as Uint8Array
  }

  lengthOf(at: number): number {
    return this.#headers.readUInt32LE(at * HEADER + AT.length)
  }

  /** Of a message by IPv6. */
  sourceOf(at: number): Uint8Array {
    return this.#addresses[at] as Uint8Array
  }
}
