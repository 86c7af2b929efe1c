// A short stable fingerprint for names and comments, in pure code: FNV-1a with 64 bits. Not for secrets.

/** Sixteen hex digits of FNV-1a 64 (draft-eastlake-fnv) over the UTF-16 code units of `text`, low byte first. */
export function digest(text: string): string {
  let hash = 0xcbf29ce484222325n
  for (let at = 0; at < text.length; at++) {
    const unit = text.charCodeAt(at)
    for (const byte of [unit & 255, unit >> 8]) hash = ((hash ^ BigInt(byte)) * 0x100000001b3n) & 0xffff_ffff_ffff_ffffn
  }
  return hash.toString(16).padStart(16, '0')
}
