// A short stable fingerprint for names and comments: 64-bit FNV-1a. Not for secrets.

/** Sixteen hex digits of FNV-1a 64 (draft-eastlake-fnv) over the UTF-16 code units of `text`, low byte first. */
export function digest(text: string): string {
  // Two halves of 32 bits instead of a BigInt, which is twenty times slower; a pod's ADD makes a handful. The prime is
  // 2^40 + 0x1b3.
  let [high, low] = [0xcbf29ce4, 0x84222325]
  for (let at = 0; at < text.length; at++) {
    const unit = text.charCodeAt(at)
    for (let shift = 0; shift <= 8; shift += 8) {
      low = (low ^ ((unit >> shift) & 255)) >>> 0
      const product = low * 0x1b3
      high = (high * 0x1b3 + Math.floor(product / 0x1_0000_0000) + ((low << 8) >>> 0)) >>> 0
      low = product >>> 0
    }
  }
  return hex(high) + hex(low)
}

const hex = (half: number): string => half.toString(16).padStart(8, '0')
