// The probe as octets: an ICMP or ICMPv6 echo request whose payload says who sent it, when, by which way and at which
// size, under a MAC, so that an answer is judged by itself and nothing is kept for each packet.
import { type Ip, ipFromBytes } from '../../ipam/address.ts'

/**
 * `pods`: as a pod's packet goes now. `nodes`: from node address to node address. `plain`: by the plain route to the
 * peer's pods where the tunnel is in use.
 */
export const WAYS = ['pods', 'nodes', 'plain'] as const
export type Way = (typeof WAYS)[number]

/** What is counted separately: a way at a size. Node addresses are asked with small packets only. */
export const LANES = [
  { way: 'pods', isLarge: false },
  { way: 'pods', isLarge: true },
  { way: 'nodes', isLarge: false },
  { way: 'plain', isLarge: false },
  { way: 'plain', isLarge: true }
] as const satisfies readonly { readonly way: Way; readonly isLarge: boolean }[]
export const POD_LANES = [0, 1] as const
export const NODE_LANE = 2
export const PLAIN_LANES = [3, 4] as const

/** Octets of the ICMP header, and of the IP header in front of it without options. */
const ICMP_HEADER = 8
const IP_HEADER = { 4: 20, 6: 40 } as const
/** RFC 792, RFC 4443. */
const REQUEST = { 4: 8, 6: 128 } as const
const REPLY = { 4: 0, 6: 129 } as const

/*
 * The payload, integers in network order: 0 the magic; 8 MAC of octets 16 to 31; 16 time of sending, milliseconds of
 * the sender's monotonic clock as a double; 24 the sender's slot for the peer; 28 octets of the payload; 30 lane;
 * 31 version; 32 digest of the sender's lease key; 40 for each lane, how long ago the sender heard the peer's last
 * probe, in tenths of a second; 50 bits: 1 the sender misses answers, 2 it takes the plain route, 4 it refuses it; 52
 * the mark of the sender's process.
 */
export const MAGIC = 'weftprob'
const VERSION = 1
const [AT_MAC, AT_SENT, AT_SLOT, AT_LENGTH, AT_LANE, AT_VERSION, AT_SENDER, AT_HEARD, AT_TROUBLE] = [
  8, 16, 24, 28, 30, 31, 32, 40, 50
]
/** Where the mark is, which the socket's filter asks of answers. */
export const AT_MARK = 52
const MAC_BYTES = 8
const [TROUBLE, PLAIN, REFUSED] = [1, 2, 4]
/** Of a small probe; a ping's. */
export const SMALL_PAYLOAD = 56
const NEVER_HEARD = 0xffff

/** Authenticates octets with a key of this process: eight octets, which the next call may overwrite. */
export type Mac = (bytes: Uint8Array) => Uint8Array

/** Of the 64 bits of a digest. */
export type Digest = { readonly high: number; readonly low: number }

export type Probe = {
  readonly family: 4 | 6
  /** Milliseconds. */
  readonly sent: number
  readonly slot: number
  readonly lane: number
  readonly sender: Digest
  /** For each lane, tenths of a second since the peer's last probe was heard; `undefined`: never, or too long ago. */
  readonly heardAgo: readonly (number | undefined)[]
  readonly isTrouble: boolean
  /** Packets of pods take a plain route to the peer. */
  readonly isPlain: boolean
  /** Packets of pods are not to come by a plain route. */
  readonly isPlainRefused: boolean
  /** Bytes of the largest packet of a pod. */
  readonly mtu: number
  /** Bytes of this packet, where another size than the lane's is tried. */
  readonly size?: number
  /** A number of 32 bits that only this process and the hosts that it asks know: in no packet that a pod sees. */
  readonly mark?: number
}

export type Received =
  /** A peer's kernel sent our probe back. */
  | {
      readonly kind: 'answer'
      readonly sent: number
      readonly slot: number
      readonly lane: number
      readonly size: number
    }
  /** A peer's own probe. */
  | {
      readonly kind: 'heard'
      /** The address that it came from. */
      readonly source?: Ip
      readonly sender: Digest
      readonly lane: number
      readonly heardAgo: readonly (number | undefined)[]
      readonly isTrouble: boolean
      readonly isPlain: boolean
      readonly isPlainRefused: boolean
    }

/** Octets of the packet's payload in this lane. */
export const payloadBytes = (family: 4 | 6, lane: number, mtu: number, isLarge = LANES[lane]?.isLarge): number =>
  isLarge ? Math.max(SMALL_PAYLOAD, mtu - IP_HEADER[family] - ICMP_HEADER) : SMALL_PAYLOAD

/**
 * Writes the ICMP message and returns its length. `into` must be as long and zero behind the first 64 octets, which
 * are all that is written.
 */
export function writeProbe(into: Uint8Array, probe: Probe, mac: Mac): number {
  const { family, sent, slot, lane, sender, heardAgo, isTrouble, isPlain, isPlainRefused, mtu, size, mark = 0 } = probe
  const length = payloadBytes(family, lane, size ?? mtu, size !== undefined || undefined)
  const head = new DataView(into.buffer, into.byteOffset, ICMP_HEADER + SMALL_PAYLOAD)
  head.setUint8(0, REQUEST[family])
  head.setUint8(1, 0)
  head.setUint16(2, 0)
  // Identifier and sequence number: for readers of a capture.
  head.setUint16(4, 0x5745)
  head.setUint16(6, slot & 0xffff)
  for (let at = 0; at < MAGIC.length; at++) head.setUint8(ICMP_HEADER + at, MAGIC.charCodeAt(at))
  head.setFloat64(ICMP_HEADER + AT_SENT, sent)
  head.setUint32(ICMP_HEADER + AT_SLOT, slot)
  head.setUint16(ICMP_HEADER + AT_LENGTH, length)
  head.setUint8(ICMP_HEADER + AT_LANE, lane)
  head.setUint8(ICMP_HEADER + AT_VERSION, VERSION)
  head.setUint32(ICMP_HEADER + AT_SENDER, sender.high)
  head.setUint32(ICMP_HEADER + AT_SENDER + 4, sender.low)
  for (let each = 0; each < LANES.length; each++)
    head.setUint16(ICMP_HEADER + AT_HEARD + 2 * each, Math.min(heardAgo[each] ?? NEVER_HEARD, NEVER_HEARD))
  head.setUint8(
    ICMP_HEADER + AT_TROUBLE,
    (isTrouble ? TROUBLE : 0) | (isPlain ? PLAIN : 0) | (isPlainRefused ? REFUSED : 0)
  )
  head.setUint32(ICMP_HEADER + AT_MARK, mark)
  into.set(mac(signed(into, ICMP_HEADER)), ICMP_HEADER + AT_MAC)
  // The kernel writes ICMPv6's (RFC 3542, 3.1), since that covers the addresses.
  if (family === 4) head.setUint16(2, checksum(head))
  return ICMP_HEADER + length
}

/** A mark of this process that nothing else tells: the code of what no probe says. */
export const markOf = (mac: Mac): number => {
  const [a = 0, b = 0, c = 0, d = 0] = mac(new Uint8Array(AT_VERSION + 1 - AT_SENT))
  return ((a << 24) | (b << 16) | (c << 8) | d) >>> 0
}

const signed = (bytes: Uint8Array, payload: number): Uint8Array =>
  bytes.subarray(payload + AT_SENT, payload + AT_VERSION + 1)

/** RFC 1071; the zeros that follow do not change it. */
function checksum(head: DataView): number {
  let sum = 0
  for (let at = 0; at < head.byteLength; at += 2) sum += head.getUint16(at)
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  return ~sum & 0xffff
}

/**
 * Reads what a raw socket of this family received: with its IP header in IPv4, without in IPv6, where `from` is the
 * address that it came from. `bytes` may be its beginning alone; it has `length` octets. `undefined`: no probe, not as
 * long as it says, or an answer to something that we did not send.
 */
export function readReceived(
  bytes: Uint8Array,
  family: 4 | 6,
  mac: Mac,
  length = bytes.length,
  from?: Uint8Array
): Received | undefined {
  const icmp = family === 4 ? ((bytes[0] ?? 0) & 15) * 4 : 0
  const payload = icmp + ICMP_HEADER
  if (Math.min(length, bytes.length) < payload + SMALL_PAYLOAD || !isMagic(bytes, payload)) return undefined
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  const lane = view.getUint8(payload + AT_LANE)
  if (view.getUint8(payload + AT_VERSION) !== VERSION || lane >= LANES.length) return undefined
  if (view.getUint16(payload + AT_LENGTH) !== length - payload) return undefined
  const type = view.getUint8(icmp)
  if (type === REPLY[family]) {
    if (!isSame(mac(signed(bytes, payload)), bytes, payload + AT_MAC)) return undefined
    return {
      kind: 'answer',
      sent: view.getFloat64(payload + AT_SENT),
      slot: view.getUint32(payload + AT_SLOT),
      lane,
      size: length - icmp + IP_HEADER[family]
    }
  }
  if (type !== REQUEST[family]) return undefined
  const address = family === 4 ? bytes.subarray(12, 16) : from
  return { kind: 'heard', ...(address && sourceOf(address)), lane, ...spoken(view, payload) }
}

const sourceOf = (address: Uint8Array): { readonly source?: Ip } => {
  const source = ipFromBytes(address)
  return source === undefined ? {} : { source }
}

/** What a peer's probe says. */
function spoken(view: DataView, payload: number): Omit<Extract<Received, { kind: 'heard' }>, 'kind' | 'lane'> {
  const bits = view.getUint8(payload + AT_TROUBLE)
  return {
    sender: { high: view.getUint32(payload + AT_SENDER), low: view.getUint32(payload + AT_SENDER + 4) },
    heardAgo: LANES.map((_, each) => {
      const ago = view.getUint16(payload + AT_HEARD + 2 * each)
      return ago === NEVER_HEARD ? undefined : ago
    }),
    isTrouble: (bits & TROUBLE) !== 0,
    isPlain: (bits & PLAIN) !== 0,
    isPlainRefused: (bits & REFUSED) !== 0
  }
}

function isMagic(bytes: Uint8Array, from: number): boolean {
  for (let at = 0; at < MAGIC.length; at++) if (bytes[from + at] !== MAGIC.charCodeAt(at)) return false
  return true
}

function isSame(code: Uint8Array, bytes: Uint8Array, from: number): boolean {
  let difference = 0
  for (let at = 0; at < MAC_BYTES; at++) difference |= (code[at] ?? 0) ^ (bytes[from + at] ?? 0)
  return difference === 0
}
