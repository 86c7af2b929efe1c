// The protobuf codec: every value comes back as it was, unknown fields are skipped, and bytes that are no message are
// an error.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { decode, encode, type Message } from '../../../daemon/base/protobuf.ts'

const MESSAGE = {
  number: [1, 'number'],
  id: [2, 'int64'],
  flag: [3, 'flag'],
  text: [4, 'text'],
  inner: [5, { number: [1, 'number'], deep: [3, { bytes: [1, 'bytes'] }] }],
  many: [600, [{ text: [2, 'text'] }]],
  words: [7, ['text']],
  blobs: [8, ['bytes']]
} as const satisfies Message

/** Decoded messages are plain objects; fast-check's records have no prototype unless told. */
const record = <T>(model: { [K in keyof T]: fc.Arbitrary<T[K]> }) => fc.record(model, { noNullPrototype: true })
const blob = fc.uint8Array({ maxLength: 20 }).map((bytes) => Buffer.from(bytes))
const value = record({
  number: fc.maxSafeInteger(),
  id: fc.bigInt({ min: -(1n << 63n), max: (1n << 63n) - 1n }),
  flag: fc.boolean(),
  text: fc.string({ unit: 'grapheme' }),
  inner: record({ number: fc.nat(), deep: record({ bytes: blob }) }),
  many: fc.array(record({ text: fc.string() })),
  words: fc.array(fc.string()),
  blobs: fc.array(blob)
})
/** A few fields of each wire type with numbers that MESSAGE does not have. */
const UNKNOWN = 'f80101' + 'f9010102030405060708' + 'fa0103616263' + 'fd0101020304'

const decoded = (hex: string): unknown => decode(MESSAGE, Buffer.from(hex, 'hex'))

test('every value comes back as it was', () => {
  fc.assert(fc.property(value, (one) => assert.deepEqual(decode(MESSAGE, encode(MESSAGE, one)), one)))
})

test('what a table does not name is skipped', () => {
  const unknown = Buffer.from(UNKNOWN, 'hex')
  fc.assert(
    fc.property(value, (one) =>
      assert.deepEqual(decode(MESSAGE, Buffer.concat([unknown, encode(MESSAGE, one), unknown])), one)
    )
  )
  const { id, inner } = MESSAGE
  const part = { id, inner: [inner[0], { number: inner[1].number }] } as const
  fc.assert(
    fc.property(value, (one) =>
      assert.deepEqual(decode(part, encode(MESSAGE, one)), { id: one.id, inner: { number: one.inner.number } })
    )
  )
})

test('a field of another type than the table’s is skipped, and of a repeated single field the last counts', () => {
  assert.deepEqual(
    decode({ a: [1, 'text'], b: [2, 'number'] } as const, Buffer.from('08071207616263646566671003' + '1005', 'hex')),
    {
      a: '',
      b: 5
    }
  )
})

test('what was left out has a default', () => {
  const { text, ...none } = decode(MESSAGE, Buffer.alloc(0))
  assert.equal(text, '')
  assert.deepEqual(none, { number: 0, id: 0n, flag: false, inner: undefined, many: [], words: [], blobs: [] })
})

test('malformed messages are a RangeError', () => {
  for (const [hex, why] of [
    ['08', 'no value'],
    ['0880', 'a varint cut short'],
    ['08ffffffffffffffffffff01', 'a varint of eleven bytes'],
    ['0880808080808080807f', 'a number of more than 53 bits'],
    ['2205616263', 'a text longer than the message'],
    ['22ffffffffffffffffff01', 'a negative length'],
    ['22ffffffff7f', 'a length of 32 GiB'],
    ['2a0308808001', 'a nested field that reads past its message'],
    ['2a021a05', 'a nested message longer than its own'],
    ['0b', 'a group'],
    ['0c', 'the end of a group'],
    ['0001', 'field number 0'],
    ['f8ffffffff0101', 'a field number of more than 29 bits'],
    ['f90101', 'a fixed64 cut short'],
    ['fd0101', 'a fixed32 cut short']
  ] as const)
    assert.throws(() => decoded(hex), RangeError, why)
})

test('empty messages inside, of two bytes each, do not take a hundred times their length', () => {
  const many = { inner: [1, [{ a: [1, 'text'], b: [2, 'int64'], c: [3, ['text']] }]] } as const satisfies Message
  const bytes = Buffer.alloc(2 << 20, Buffer.from([0x0a, 0x00]))
  assert.throws(() => decode(many, bytes), { name: 'RangeError', message: /more messages inside/ })
  const few = Buffer.alloc(8_000, Buffer.from([0x0a, 0x00]))
  assert.equal(decode(many, few).inner.length, 4_000)
  const entry = encode(many, { inner: [{ a: 'a.example.com/key', b: 1n, c: ['v'] }] })
  assert.equal(decode(many, Buffer.concat(Array(50_000).fill(entry))).inner.length, 50_000)
})

test('any bytes are a message or a RangeError, and cost no more than they are long', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      try {
        decode(MESSAGE, Buffer.from(bytes))
      } catch (error) {
        assert.ok(error instanceof RangeError)
      }
    }),
    { numRuns: 2_000 }
  )
  fc.assert(
    fc.property(value, fc.nat(), fc.nat(255), (one, at, byte) => {
      const bytes = encode(MESSAGE, one)
      bytes[at % bytes.length] = byte
      try {
        decode(MESSAGE, bytes)
      } catch (error) {
        assert.ok(error instanceof RangeError)
      }
    }),
    { numRuns: 2_000 }
  )
})
