// The Internet checksum by words gives what RFC 1071 gives octet by octet, wherever the octets are.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { get32, memoryOf, put32, sumOf } from '../../../daemon/udp/memory.ts'
import { memoryWith, plainChecksum } from './packets.ts'

test('the sum is that of the octets, from even and odd places, of even and odd lengths', () => {
  const part = fc.tuple(fc.uint8Array({ maxLength: 3_000 }), fc.integer({ min: 0, max: 5 }))
  fc.assert(
    fc.property(part, ([bytes, from]) => {
      const sum = sumOf(memoryWith(bytes, from), from, bytes.length)
      // 0 and 0xffff are one number in ones' complement.
      assert.equal(sum % 0xffff, (~plainChecksum(bytes) & 0xffff) % 0xffff)
    })
  )
})

test('the longest packet of all ones does not overflow', () => {
  assert.equal(sumOf(memoryOf(new Uint8Array(65_536).fill(0xff)), 0, 65_535) % 0xffff, 0xff00)
})

test('numbers of 32 bits are unsigned', () => {
  fc.assert(
    fc.property(fc.nat({ max: 0xffff_ffff }), (value) => {
      const bytes = new Uint8Array(6)
      put32(bytes, 1, value)
      assert.equal(get32(bytes, 1), value)
      assert.equal(new DataView(bytes.buffer).getUint32(1), value)
    })
  )
})
