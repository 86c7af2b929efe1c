// From the device to the nodes: what the kernel left to the device's hardware is done here, finishing a checksum or
// cutting a large TCP packet into segments. The pieces lie one behind the other, as UDP_SEGMENT wants them (udp(7)).
import type { Counters } from './counters.ts'
import { AT, FLAG, headerLength, putHeaderChecksum, putTcpChecksum, TCP, TCP_AT } from './ipv4.ts'
import { folded, get16, get32, type Memory, put16, put32, sumOf } from './memory.ts'
import type { PeerTable } from './table.ts'

/** Octets of struct virtio_net_hdr before each packet: flags, kind, header length, piece size, checksum start, offset. */
export const FRAME_HEADER = 10
export const FRAME_AT = { flags: 0, kind: 1, headerLength: 2, pieceSize: 4, checksumStart: 6, checksumOffset: 8 }
export const NEEDS_CHECKSUM = 1
/** Kinds; TCP's may have GSO_ECN. */
export const GSO = { none: 0, tcp4: 1, ecn: 0x80 }

/** Where datagrams are written before they are sent. */
export type Datagrams = {
  readonly memory: Memory
  /** Room for a datagram of this length to this address; where it begins in the memory. */
  room(length: number, to: number): number
}

/** The fields are in the order of this machine. */
const host16 = (bytes: Uint8Array, at: number): number => (bytes[at] as number) | ((bytes[at + 1] as number) << 8)

/** Sends what was read from the device: `length` octets from the beginning of `frame`. */
export function sendFrame(frame: Memory, length: number, table: PeerTable, out: Datagrams, counters: Counters): void {
  const { bytes } = frame
  const from = FRAME_HEADER
  const size = length - FRAME_HEADER
  const header = headerLength(bytes, from, size)
  if (header === 0) {
    counters.malformed++
    return
  }
  const to = table.find(get32(bytes, from + AT.destination))
  if (to === 0) {
    counters.noPeer++
    return
  }
  const kind = (bytes[FRAME_AT.kind] as number) & ~GSO.ecn
  if (kind === GSO.none) {
    if (((bytes[FRAME_AT.flags] as number) & NEEDS_CHECKSUM) !== 0 && !finishChecksum(frame, size)) {
      counters.malformed++
      return
    }
    out.memory.bytes.set(bytes.subarray(from, from + size), out.room(size, to))
  } else if (kind !== GSO.tcp4 || !sendSegments(frame, header, size, to, out)) {
    counters.malformed++
    return
  }
  counters.sent++
  counters.sentOctets += size
}

/** The field has the sum of the pseudo header already. */
function finishChecksum(frame: Memory, size: number): boolean {
  const { bytes } = frame
  const start = host16(bytes, FRAME_AT.checksumStart)
  const at = start + host16(bytes, FRAME_AT.checksumOffset)
  if (at + 2 > size) return false
  const sum = ~folded(sumOf(frame, FRAME_HEADER + start, size - start)) & 0xffff
  // UDP has 0 for "no checksum", and 0xffff is the same number in ones' complement.
  put16(bytes, FRAME_HEADER + at, sum === 0 ? 0xffff : sum)
  return true
}

function sendSegments(frame: Memory, header: number, size: number, to: number, out: Datagrams): boolean {
  const { bytes } = frame
  const from = FRAME_HEADER
  const piece = host16(bytes, FRAME_AT.pieceSize)
  if (size < header + 20 || bytes[from + AT.protocol] !== TCP || piece === 0) return false
  const headers = header + ((bytes[from + header + TCP_AT.offset] as number) >> 4) * 4
  if (headers < header + 20 || headers >= size) return false
  const id = get16(bytes, from + AT.id)
  const sequence = get32(bytes, from + header + TCP_AT.sequence)
  for (let at = headers, count = 0; at < size; at += piece, count++) {
    const payload = Math.min(piece, size - at)
    const start = out.room(headers + payload, to)
    const { memory } = out
    const tcp = start + header
    memory.bytes.set(bytes.subarray(from, from + headers), start)
    memory.bytes.set(bytes.subarray(from + at, from + at + payload), start + headers)
    put16(memory.bytes, start + AT.length, headers + payload)
    put16(memory.bytes, start + AT.id, (id + count) & 0xffff)
    putHeaderChecksum(memory, start, header)
    put32(memory.bytes, tcp + TCP_AT.sequence, (sequence + at - headers) >>> 0)
    let flags = memory.bytes[tcp + TCP_AT.flags] as number
    if (at + payload < size) flags &= ~(FLAG.fin | FLAG.psh)
    if (count > 0) flags &= ~FLAG.cwr
    memory.bytes[tcp + TCP_AT.flags] = flags
    putTcpChecksum(memory, start, header, headers - header + payload)
  }
  return true
}
