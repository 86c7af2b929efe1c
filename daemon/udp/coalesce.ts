// From the nodes to the device: packets of one TCP stream that continue each other are handed to the kernel as one,
// which spares it most of its work. All others are handed over one by one.
import type { Counters } from './counters.ts'
import {
  AT,
  FLAG,
  headerLength,
  isTcpChecksumRight,
  LEAST_HEADER,
  pseudoSum,
  putHeaderChecksum,
  TCP,
  TCP_AT
} from './ipv4.ts'
import { get16, get32, type Memory, put16 } from './memory.ts'
import { FRAME_AT, FRAME_HEADER, GSO, NEEDS_CHECKSUM } from './segment.ts'
import type { PeerTable } from './table.ts'

/** Where a frame for the device is put together: a head, and pieces of the memory that datagrams are received in. */
export type Frames = {
  /** Of HEAD octets. */
  readonly head: Memory
  /** Pieces that one frame may have. */
  readonly most: number
  piece(at: number, length: number): void
  /** Hands over so many octets of the head and the pieces behind them. */
  write(head: number): void
}

/** The frame's header and the largest of IPv4 and TCP. */
export const HEAD = FRAME_HEADER + 120
/** Where the packet begins in the head. */
const PACKET = FRAME_HEADER
/** More fragments, and the offset: a fragment has either. */
const FRAGMENT = 0x3fff
const LONGEST = 65_535

export class Coalescer {
  readonly #in: Memory
  readonly #table: PeerTable
  readonly #out: Frames
  readonly #counters: Counters
  /** Pieces of the packet that is being put together; 0: none is. */
  #pieces = 0
  #headers = 0
  #length = 0
  /** Octets of payload of each piece but the last. */
  #size = 0
  /** The sequence number that continues it. */
  #next = 0
  #isOpen = false

  constructor(received: Memory, table: PeerTable, out: Frames, counters: Counters) {
    this.#in = received
    this.#table = table
    this.#out = out
    this.#counters = counters
  }

  /** A packet of `length` octets from `sender`. It must stay where it is until `flush`. */
  packet(from: number, length: number, sender: number): void {
    const { bytes } = this.#in
    const header = headerLength(bytes, from, length)
    if (header === 0) {
      this.#counters.malformed++
      return
    }
    if (!this.#table.maySend(sender, get32(bytes, from + AT.source))) {
      this.#counters.foreignSender++
      return
    }
    const size = get16(bytes, from + AT.length)
    this.#counters.received++
    this.#counters.receivedOctets += size
    const headers = this.#joinable(from, header, size)
    if (headers !== 0) {
      if (this.#continues(from, headers, size)) this.#append(from, headers, size)
      else this.#begin(from, headers, size)
      return
    }
    this.flush()
    this.#out.head.bytes.fill(0, 0, FRAME_HEADER)
    this.#out.piece(from, size)
    this.#out.write(FRAME_HEADER)
  }

  /** Hands over what waits for more. */
  flush(): void {
    if (this.#pieces === 0) return
    const { head } = this.#out
    const { bytes } = head
    bytes.fill(0, 0, FRAME_HEADER)
    if (this.#pieces > 1) {
      put16(bytes, PACKET + AT.length, this.#length)
      putHeaderChecksum(head, PACKET, LEAST_HEADER)
      const sum = pseudoSum(head, PACKET, this.#length - LEAST_HEADER)
      put16(bytes, PACKET + LEAST_HEADER + TCP_AT.checksum, sum)
      bytes[FRAME_AT.flags] = NEEDS_CHECKSUM
      bytes[FRAME_AT.kind] = GSO.tcp4
      host16(bytes, FRAME_AT.headerLength, this.#headers)
      host16(bytes, FRAME_AT.pieceSize, this.#size)
      host16(bytes, FRAME_AT.checksumStart, LEAST_HEADER)
      host16(bytes, FRAME_AT.checksumOffset, TCP_AT.checksum)
    }
    this.#pieces = 0
    this.#out.write(FRAME_HEADER + this.#headers)
  }

  /** Octets of both headers of a TCP packet that may be joined with others; 0: it may not. */
  #joinable(from: number, header: number, size: number): number {
    const { bytes } = this.#in
    if (bytes[from + AT.protocol] !== TCP || header !== LEAST_HEADER || size < LEAST_HEADER + 20) return 0
    if ((get16(bytes, from + AT.fragment) & FRAGMENT) !== 0) return 0
    const flags = bytes[from + LEAST_HEADER + TCP_AT.flags] as number
    if ((flags & ~FLAG.psh) !== FLAG.ack) return 0
    const tcp = ((bytes[from + LEAST_HEADER + TCP_AT.offset] as number) >> 4) * 4
    const headers = LEAST_HEADER + tcp
    if (tcp < 20 || headers >= size) return 0
    return isTcpChecksumRight(this.#in, from, LEAST_HEADER, size - LEAST_HEADER) ? headers : 0
  }

  #continues(from: number, headers: number, size: number): boolean {
    const { bytes } = this.#in
    if (this.#pieces === 0 || !this.#isOpen || headers !== this.#headers) return false
    if (get32(bytes, from + LEAST_HEADER + TCP_AT.sequence) !== this.#next) return false
    const payload = size - headers
    if (payload > this.#size || this.#length + payload > LONGEST || this.#pieces >= this.#out.most) return false
    // Type of service; fragment bits, TTL and protocol; addresses and ports.
    if (!this.#agree(from, 1, 2) || !this.#agree(from, AT.fragment, AT.checksum)) return false
    if (!this.#agree(from, AT.source, LEAST_HEADER + TCP_AT.sequence)) return false
    // What is acknowledged and the header's length; window; urgent pointer and options.
    return (
      this.#agree(from, LEAST_HEADER + TCP_AT.acknowledged, LEAST_HEADER + TCP_AT.flags) &&
      this.#agree(from, LEAST_HEADER + TCP_AT.window, LEAST_HEADER + TCP_AT.checksum) &&
      this.#agree(from, LEAST_HEADER + TCP_AT.urgent, headers)
    )
  }

  /** Whether these octets of the headers are the same. */
  #agree(from: number, start: number, end: number): boolean {
    const [{ bytes }, head] = [this.#in, this.#out.head.bytes]
    for (let at = start; at < end; at++) if (bytes[from + at] !== head[PACKET + at]) return false
    return true
  }

  #begin(from: number, headers: number, size: number): void {
    this.flush()
    const { bytes } = this.#in
    this.#out.head.bytes.set(bytes.subarray(from, from + headers), PACKET)
    this.#headers = headers
    this.#length = headers
    this.#size = size - headers
    this.#next = get32(bytes, from + LEAST_HEADER + TCP_AT.sequence)
    this.#isOpen = true
    this.#append(from, headers, size)
  }

  #append(from: number, headers: number, size: number): void {
    const payload = size - headers
    const push = (this.#in.bytes[from + LEAST_HEADER + TCP_AT.flags] as number) & FLAG.psh
    this.#out.piece(from + headers, payload)
    this.#pieces++
    this.#length += payload
    this.#next = (this.#next + payload) >>> 0
    const flags = PACKET + LEAST_HEADER + TCP_AT.flags
    const { bytes } = this.#out.head
    bytes[flags] = (bytes[flags] as number) | push
    if (payload < this.#size || push !== 0) this.#isOpen = false
  }
}

function host16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value
  bytes[at + 1] = value >> 8
}
