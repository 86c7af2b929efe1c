// SipHash-2-4 of sixteen octets (Aumasson, Bernstein 2012), in halves of 32 bits: Node's ciphers and HMACs allocate
// several objects and a buffer outside of the heap for each call, which costs more than all the rest of a probe.

/** The code of sixteen octets under a key of sixteen octets, in memory that the next call writes again. */
export function sipHash(key: Uint8Array): (message: Uint8Array) => Uint8Array {
  const [k0, k1, k2, k3] = [word(key, 0), word(key, 4), word(key, 8), word(key, 12)]
  const code = new Uint8Array(8)
  const out = new DataView(code.buffer)
  /** v0 to v3, each as its low and its high half. */
  const v = new Int32Array(8)
  const absorb = (low: number, high: number) => {
    v[6] = at(v, 6) ^ low
    v[7] = at(v, 7) ^ high
    round(v)
    round(v)
    v[0] = at(v, 0) ^ low
    v[1] = at(v, 1) ^ high
  }
  return (message) => {
    v[0] = k0 ^ 0x70736575
    v[1] = k1 ^ 0x736f6d65
    v[2] = k2 ^ 0x6e646f6d
    v[3] = k3 ^ 0x646f7261
    v[4] = k0 ^ 0x6e657261
    v[5] = k1 ^ 0x6c796765
    v[6] = k2 ^ 0x79746573
    v[7] = k3 ^ 0x74656462
    absorb(word(message, 0), word(message, 4))
    absorb(word(message, 8), word(message, 12))
    // The last word has the length in its highest octet.
    absorb(0, 16 << 24)
    v[4] = at(v, 4) ^ 0xff
    for (let rounds = 0; rounds < 4; rounds++) round(v)
    out.setInt32(0, at(v, 0) ^ at(v, 2) ^ at(v, 4) ^ at(v, 6), true)
    out.setInt32(4, at(v, 1) ^ at(v, 3) ^ at(v, 5) ^ at(v, 7), true)
    return code
  }
}

const at = (v: Int32Array, index: number): number => v[index] ?? 0

const word = (bytes: Uint8Array, from: number): number =>
  (bytes[from] ?? 0) | ((bytes[from + 1] ?? 0) << 8) | ((bytes[from + 2] ?? 0) << 16) | ((bytes[from + 3] ?? 0) << 24)

/** v[a] += v[b]; v[b] = rotated left by so many bits, ^ v[a]. */
function mix(v: Int32Array, a: number, b: number, bits: number): void {
  const low = (at(v, a) >>> 0) + (at(v, b) >>> 0)
  v[a] = low | 0
  v[a + 1] = (at(v, a + 1) + at(v, b + 1) + (low > 0xffff_ffff ? 1 : 0)) | 0
  const [x, y] = [at(v, b), at(v, b + 1)]
  v[b] = ((x << bits) | (y >>> (32 - bits))) ^ at(v, a)
  v[b + 1] = ((y << bits) | (x >>> (32 - bits))) ^ at(v, a + 1)
}

function swap(v: Int32Array, a: number): void {
  const low = at(v, a)
  v[a] = at(v, a + 1)
  v[a + 1] = low
}

function round(v: Int32Array): void {
  mix(v, 0, 2, 13)
  swap(v, 0)
  mix(v, 4, 6, 16)
  mix(v, 0, 6, 21)
  mix(v, 4, 2, 17)
  swap(v, 4)
}
