// Memory that packets are worked on in, and the Internet checksum (RFC 1071) of a part of it.

/** One buffer by octets and by 16-bit words in the order of this machine, which is little-endian. */
export type Memory = { readonly bytes: Uint8Array; readonly words: Uint16Array }

/** `bytes` begins its buffer at an even octet, as a buffer of its own does. Errors: RangeError. */
export const memoryOf = (bytes: Uint8Array): Memory => ({
  bytes,
  words: new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length >> 1)
})

const swapped = (sum: number): number => ((sum & 0xff) << 8) | (sum >> 8)

/** A sum of 16-bit words to one of them, with the carries added. */
export function folded(sum: number): number {
  let rest = sum
  while (rest > 0xffff) rest = (rest % 0x1_0000) + Math.floor(rest / 0x1_0000)
  return rest
}

/** The ones' complement sum of the octets as words in network order, not inverted. */
export function sumOf({ bytes, words }: Memory, from: number, length: number): number {
  if (length <= 0) return 0
  // Words of another alignment have their octets the other way round, and so has their sum.
  const isOdd = (from & 1) === 1
  const start = isOdd ? from + 1 : from
  const end = from + length
  let sum = isOdd ? (bytes[from] as number) << 8 : 0
  let at = start >> 1
  const last = end >> 1
  for (const four = last - 3; at < four; at += 4)
    sum += (words[at] as number) + (words[at + 1] as number) + (words[at + 2] as number) + (words[at + 3] as number)
  for (; at < last; at++) sum += words[at] as number
  if ((end & 1) === 1 && end > start) sum += bytes[end - 1] as number
  const whole = folded(sum)
  return isOdd ? whole : swapped(whole)
}

export const get16 = (bytes: Uint8Array, at: number): number => ((bytes[at] as number) << 8) | (bytes[at + 1] as number)

export const get32 = (bytes: Uint8Array, at: number): number => get16(bytes, at) * 0x1_0000 + get16(bytes, at + 2)

export function put16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >> 8
  bytes[at + 1] = value
}

export function put32(bytes: Uint8Array, at: number, value: number): void {
  put16(bytes, at, value >>> 16)
  put16(bytes, at + 2, value & 0xffff)
}
