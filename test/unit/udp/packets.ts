// IPv4 packets for the tests of the UDP proxy, made field by field, and the plainest way to check their checksums.
import { type Memory, memoryOf } from '../../../daemon/udp/memory.ts'

/** The Internet checksum as RFC 1071 writes it down, octet by octet; 0 for what includes its right checksum. */
export function plainChecksum(bytes: Uint8Array): number {
  let sum = 0
  for (let at = 0; at < bytes.length; at++) sum += (bytes[at] as number) << (at % 2 === 0 ? 8 : 0)
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  return ~sum & 0xffff
}

/** Memory of its own with `bytes` from octet `from`. */
export function memoryWith(bytes: Uint8Array, from = 0): Memory {
  const own = new Uint8Array(from + bytes.length + 8)
  own.set(bytes, from)
  return memoryOf(own)
}

export type TcpPacket = {
  readonly source: number
  readonly destination: number
  readonly sequence: number
  readonly flags: number
  readonly payload: Uint8Array
  readonly id?: number
  readonly ttl?: number
  /** Octets of options, a multiple of four. */
  readonly options?: Uint8Array
}

const TCP_ACK = 0x10

/** A whole TCP packet with right checksums. */
export function tcpPacket(packet: TcpPacket): Uint8Array {
  const { source, destination, sequence, flags, payload, id = 1, ttl = 63, options = new Uint8Array(0) } = packet
  const headers = 40 + options.length
  const bytes = new Uint8Array(headers + payload.length)
  const view = new DataView(bytes.buffer)
  bytes.set([0x45, 0, 0, 0])
  view.setUint16(2, bytes.length)
  view.setUint16(4, id)
  view.setUint16(6, 0x4000)
  bytes.set([ttl, 6], 8)
  view.setUint32(12, source)
  view.setUint32(16, destination)
  view.setUint16(10, plainChecksum(bytes.subarray(0, 20)))
  view.setUint16(20, 40_000)
  view.setUint16(22, 5_201)
  view.setUint32(24, sequence)
  view.setUint32(28, 7)
  bytes.set([(5 + options.length / 4) << 4, flags | TCP_ACK], 32)
  view.setUint16(34, 500)
  bytes.set(options, 40)
  bytes.set(payload, headers)
  view.setUint16(36, plainChecksum(withPseudoHeader(bytes)))
  return bytes
}

/** The segment behind its pseudo header. */
export function withPseudoHeader(packet: Uint8Array): Uint8Array {
  const header = ((packet[0] as number) & 15) * 4
  const segment = packet.subarray(header)
  const bytes = new Uint8Array(12 + segment.length)
  bytes.set(packet.subarray(12, 20))
  bytes.set([0, packet[9] as number, segment.length >> 8, segment.length & 0xff], 8)
  bytes.set(segment, 12)
  return bytes
}

/** What is wrong with the packet's length and checksums; empty: nothing. */
export function faultsOf(packet: Uint8Array): readonly string[] {
  const view = new DataView(packet.buffer, packet.byteOffset, packet.length)
  return [
    ...(view.getUint16(2) === packet.length ? [] : ['length']),
    ...(plainChecksum(packet.subarray(0, 20)) === 0 ? [] : ['checksum of the header']),
    ...(plainChecksum(withPseudoHeader(packet)) === 0 ? [] : ['checksum of TCP'])
  ]
}

export const sequenceOf = (packet: Uint8Array): number => new DataView(packet.buffer, packet.byteOffset).getUint32(24)
export const idOf = (packet: Uint8Array): number => new DataView(packet.buffer, packet.byteOffset).getUint16(4)
export const flagsOf = (packet: Uint8Array): number => packet[33] as number
export const payloadOf = (packet: Uint8Array): Uint8Array => packet.subarray(20 + ((packet[32] as number) >> 4) * 4)

/** struct virtio_net_hdr before a packet: with `piece` a large TCP packet to be cut, whose checksum is not finished. */
export function frameOf(packet: Uint8Array, piece = 0): Memory {
  const bytes = new Uint8Array(10 + packet.length)
  const view = new DataView(bytes.buffer)
  if (piece > 0) {
    bytes.set([1, 1])
    view.setUint16(4, piece, true)
    view.setUint16(6, 20, true)
    view.setUint16(8, 16, true)
  }
  bytes.set(packet, 10)
  return memoryOf(bytes)
}
