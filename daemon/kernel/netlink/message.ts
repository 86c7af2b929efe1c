// Reads and writes the framing of netlink messages (RFC 3549, <linux/netlink.h>): headers and attributes, every length
// checked. Numbers are in host order, which is little endian on x86-64 and arm64.
import { WeftError } from '../../base/error.ts'

export const HEADER = 16
const ATTRIBUTE = 4
const NESTED = 0x8000
const NET_BYTEORDER = 0x4000

export const NLMSG_NOOP = 1
export const NLMSG_ERROR = 2
export const NLMSG_DONE = 3
export const NLM_F = {
  request: 0x1,
  multi: 0x2,
  ack: 0x4,
  echo: 0x8,
  dumpInterrupted: 0x10,
  dump: 0x300,
  replace: 0x100,
  exclusive: 0x200,
  create: 0x400,
  append: 0x800,
  ackTlvs: 0x200,
  capped: 0x100
} as const

/** One message as received: the header's fields and what follows the header. */
export type Message = {
  readonly type: number
  readonly flags: number
  readonly sequence: number
  readonly port: number
  readonly body: Buffer
}

/** Bytes that are no netlink message, or one without what the kernel always sends. */
export class MalformedMessage extends WeftError {
  constructor(what: string) {
    super(
      'NETLINK_MALFORMED',
      `the kernel's message can't be read: ${what}`,
      'report this with the kernel version (uname -r)'
    )
    this.name = 'MalformedMessage'
  }
}

const aligned = (length: number): number => (length + 3) & ~3

/** Writes one message: header first, then a fixed part, then attributes that may nest. */
export class MessageWriter {
  #bytes = Buffer.alloc(192)
  #length = HEADER

  constructor(type: number, flags: number) {
    this.#u16(4, type)
    this.#u16(6, flags)
  }

  // Octet by octet: Buffer's writers repeat checks that are done here, and cost as much as the rest of a message.
  #u16(at: number, value: number): void {
    this.#bytes[at] = value
    this.#bytes[at + 1] = value >> 8
  }

  #u32(at: number, value: number): void {
    this.#bytes[at] = value
    this.#bytes[at + 1] = value >> 8
    this.#bytes[at + 2] = value >> 16
    this.#bytes[at + 3] = value >> 24
  }

  /** Writes the header of an attribute whose value has this many octets; returns where the value begins. */
  #attribute(type: number, length: number): number {
    const at = this.#room(ATTRIBUTE + length)
    this.#u16(at, ATTRIBUTE + length)
    this.#u16(at + 2, type)
    return at + ATTRIBUTE
  }

  #room(length: number): number {
    const at = this.#length
    const end = at + aligned(length)
    if (end > this.#bytes.length) this.#bytes = Buffer.concat([this.#bytes], end * 2)
    this.#length = end
    return at
  }

  /** The fixed part, such as struct rtmsg: fields of 1, 2 or 4 octets, in order. */
  fixed(...fields: readonly (readonly [octets: 1 | 2 | 4, value: number])[]): this {
    let length = 0
    for (const [octets] of fields) length += octets
    let at = this.#room(length)
    for (const [octets, value] of fields) {
      if (octets === 1) this.#bytes[at] = value
      else if (octets === 2) this.#u16(at, value)
      else this.#u32(at, value)
      at += octets
    }
    return this
  }

  bytes(type: number, value: ArrayLike<number>): this {
    const at = this.#attribute(type, value.length)
    this.#bytes.set(value, at)
    return this
  }

  u8(type: number, value: number): this {
    const at = this.#attribute(type, 1)
    this.#bytes[at] = value
    return this
  }

  u32(type: number, value: number): this {
    this.#u32(this.#attribute(type, 4), value)
    return this
  }

  /** 16 bits in network order, as ports are. */
  port(type: number, value: number): this {
    const at = this.#attribute(type, 2)
    this.#bytes[at] = value >> 8
    this.#bytes[at + 1] = value
    return this
  }

  /** Text with a NUL at its end, as the kernel's policies require. */
  text(type: number, value: string): this {
    const at = this.#attribute(type, Buffer.byteLength(value) + 1)
    this.#bytes.write(value, at)
    return this
  }

  flag(type: number): this {
    return this.bytes(type, new Uint8Array(0))
  }

  nest(type: number, fill: (writer: this) => void): this {
    const at = this.#room(ATTRIBUTE)
    fill(this)
    this.#u16(at, this.#length - at)
    this.#u16(at + 2, type | NESTED)
    return this
  }

  /** The finished message; the sequence number is set when it is sent. */
  done(): Buffer {
    this.#u32(0, this.#length)
    return this.#bytes.subarray(0, this.#length)
  }
}

/** The messages of one datagram. Errors: MalformedMessage for an impossible length. */
export function readMessages(bytes: Buffer): readonly Message[] {
  const messages: Message[] = []
  for (let at = 0; at < bytes.length; ) {
    if (at + HEADER > bytes.length)
      throw new MalformedMessage(`${bytes.length - at} octets are left where a header needs ${HEADER}`)
    const length = bytes.readUInt32LE(at)
    if (length < HEADER || at + length > bytes.length)
      throw new MalformedMessage(`a length of ${length} at octet ${at} of ${bytes.length}`)
    messages.push({
      type: bytes.readUInt16LE(at + 4),
      flags: bytes.readUInt16LE(at + 6),
      sequence: bytes.readUInt32LE(at + 8),
      port: bytes.readUInt32LE(at + 12),
      body: bytes.subarray(at + HEADER, at + length)
    })
    at += aligned(length)
  }
  return messages
}

/**
 * The attributes of a message after a fixed part of `from` octets, or of a nested attribute. Of a repeated type the
 * last counts. Lengths are checked at once, values are decoded on access: a link has some fifty attributes, of which a
 * dozen are read, and a pod's start brings a dozen link messages.
 */
export class Attributes {
  readonly #bytes: Buffer
  /** Three numbers for each attribute: its type, where its value begins and where it ends. */
  readonly #places: number[] = []

  constructor(bytes: Buffer, from = 0, to = bytes.length) {
    if (from > to) throw new MalformedMessage(`${to} octets where the fixed part alone has ${from}`)
    this.#bytes = bytes
    // The kernel pads the last attribute of some messages; fewer octets than a header are padding.
    for (let at = from; at + ATTRIBUTE <= to; ) {
      const length = u16(bytes, at)
      if (length < ATTRIBUTE || at + length > to)
        throw new MalformedMessage(`an attribute of ${length} octets at ${at} of ${to}`)
      this.#places.push(u16(bytes, at + 2) & ~(NESTED | NET_BYTEORDER), at + ATTRIBUTE, at + length)
      at += aligned(length)
    }
  }

  /** Where the value begins and ends. */
  #place(type: number, octets = 0): readonly [from: number, to: number] | undefined {
    const places = this.#places
    for (let at = places.length - 3; at >= 0; at -= 3) {
      if (places[at] !== type) continue
      const [from = 0, to = 0] = [places[at + 1], places[at + 2]]
      if (to - from < octets)
        throw new MalformedMessage(`attribute ${type} has ${to - from} octets instead of ${octets}`)
      return [from, to]
    }
    return undefined
  }

  bytes(type: number): Buffer | undefined {
    const place = this.#place(type)
    return place && this.#bytes.subarray(...place)
  }

  /** All values of a repeated type, as lists have them. */
  all(type: number): readonly Buffer[] {
    const found: Buffer[] = []
    for (let at = 0; at < this.#places.length; at += 3) {
      if (this.#places[at] === type) found.push(this.#bytes.subarray(this.#places[at + 1], this.#places[at + 2]))
    }
    return found
  }

  /** The same as texts. */
  texts(type: number): readonly string[] {
    return this.all(type).map((value) => value.toString('utf8').replace(/\0.*$/s, ''))
  }

  has(type: number): boolean {
    return this.#place(type) !== undefined
  }

  u8(type: number): number | undefined {
    const place = this.#place(type, 1)
    return place && this.#bytes[place[0]]
  }

  u32(type: number): number | undefined {
    const place = this.#place(type, 4)
    return place && this.#bytes.readUInt32LE(place[0])
  }

  /** nf_tables' numbers are in network byte order. */
  u32BigEndian(type: number): number | undefined {
    const place = this.#place(type, 4)
    return place && this.#bytes.readUInt32BE(place[0])
  }

  /** A handle of nf_tables: 64 bits in network order. */
  u64BigEndian(type: number): bigint | undefined {
    const place = this.#place(type, 8)
    return place && this.#bytes.readBigUInt64BE(place[0])
  }

  port(type: number): number | undefined {
    const place = this.#place(type, 2)
    return place && this.#bytes.readUInt16BE(place[0])
  }

  text(type: number): string | undefined {
    const place = this.#place(type)
    if (place === undefined) return undefined
    const [from, to] = place
    const end = this.#bytes.indexOf(0, from)
    return this.#bytes.toString('utf8', from, end < 0 || end > to ? to : end)
  }

  nested(type: number): Attributes | undefined {
    const place = this.#place(type)
    return place && new Attributes(this.#bytes, ...place)
  }
}

const u16 = (bytes: Buffer, at: number): number => (bytes[at] ?? 0) | ((bytes[at + 1] ?? 0) << 8)

/** An NLMSG_ERROR: errno (0: success) and the kernel's sentence, where it has one (extended acknowledgement). */
export type Acknowledgement = { readonly errno: number; readonly sentence?: string }

const NLMSGERR_ATTR_MSG = 1

/** Reads an NLMSG_ERROR, which the kernel caps after the request's header because NETLINK_CAP_ACK is on. */
export function readAcknowledgement(message: Message): Acknowledgement {
  if (message.body.length < 4) throw new MalformedMessage(`an error message of ${message.body.length} octets`)
  const errno = -message.body.readInt32LE(0)
  if ((message.flags & NLM_F.ackTlvs) === 0 || message.body.length < 4 + HEADER) return { errno }
  const capped = (message.flags & NLM_F.capped) !== 0
  const request = capped ? HEADER : aligned(message.body.readUInt32LE(4))
  const sentence = new Attributes(message.body, 4 + request).text(NLMSGERR_ATTR_MSG)
  return sentence === undefined || sentence === '' ? { errno } : { errno, sentence }
}
