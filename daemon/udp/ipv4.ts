// Fields and checksums of IPv4 packets (RFC 791) with TCP (RFC 9293) in them.
import { folded, get16, type Memory, put16, sumOf } from './memory.ts'

/** Octets of the smallest header. */
export const LEAST_HEADER = 20
/** Where the fields are in the header. */
export const AT = { length: 2, id: 4, fragment: 6, ttl: 8, protocol: 9, checksum: 10, source: 12, destination: 16 }
export const TCP = 6
/** Where the fields are in the header of TCP. */
export const TCP_AT = { sequence: 4, acknowledged: 8, offset: 12, flags: 13, window: 14, checksum: 16, urgent: 18 }
export const FLAG = { fin: 0x01, psh: 0x08, ack: 0x10, cwr: 0x80 }

/** Octets of the header of a packet that is there in full; 0: that is no IPv4 packet of this length. */
export function headerLength(bytes: Uint8Array, from: number, length: number): number {
  if (length < LEAST_HEADER) return 0
  const first = bytes[from] as number
  const header = (first & 15) * 4
  const whole = get16(bytes, from + AT.length)
  return first >> 4 === 4 && header >= LEAST_HEADER && whole >= header && whole <= length ? header : 0
}

export function putHeaderChecksum(memory: Memory, from: number, header: number): void {
  put16(memory.bytes, from + AT.checksum, 0)
  put16(memory.bytes, from + AT.checksum, ~sumOf(memory, from, header) & 0xffff)
}

/** The sum of the pseudo header (RFC 9293, 3.1) of a segment of so many octets. */
export const pseudoSum = (memory: Memory, from: number, segment: number): number =>
  folded(sumOf(memory, from + AT.source, 8) + (memory.bytes[from + AT.protocol] as number) + segment)

/** Writes TCP's checksum. */
export function putTcpChecksum(memory: Memory, from: number, header: number, segment: number): void {
  const at = from + header
  put16(memory.bytes, at + TCP_AT.checksum, 0)
  const sum = folded(pseudoSum(memory, from, segment) + sumOf(memory, at, segment))
  put16(memory.bytes, at + TCP_AT.checksum, ~sum & 0xffff)
}

/** Whether TCP's checksum, which is part of what is summed, is right. */
export const isTcpChecksumRight = (memory: Memory, from: number, header: number, segment: number): boolean =>
  folded(pseudoSum(memory, from, segment) + sumOf(memory, from + header, segment)) === 0xffff
