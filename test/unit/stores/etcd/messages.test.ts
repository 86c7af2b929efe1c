// etcd's messages: requests have the bytes that protoc writes, and responses are read whatever they leave out or add.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { decode, encode } from '../../../../daemon/base/protobuf.ts'
import { CALLS } from '../../../../daemon/stores/etcd/messages.ts'

const hex = (buffer: Buffer): string => buffer.toString('hex')

test('requests have the bytes that protobuf prescribes', () => {
  // protoc --encode=etcdserverpb.RangeRequest: key "a", range_end "b", limit 1000, revision 300, keys_only true.
  const range = { key: 'a', rangeEnd: 'b', limit: 1000, revision: 300, keysOnly: true }
  assert.equal(hex(encode(CALLS.range.request, range)), '0a0161120162' + '18e807' + '20ac02' + '4001')
  // A comparison with version 0 names the version, although 0 is the default: it is a member of a oneof.
  const transaction = {
    compare: [{ key: 'k', target: 0, version: 0 }],
    success: [{ put: { key: 'k', value: 'v', lease: 5n } }]
  }
  assert.equal(
    hex(encode(CALLS.transaction.request, transaction)),
    '0a07' + '1000' + '1a016b' + '2000' + '120a' + '1208' + '0a016b' + '120176' + '1805'
  )
  assert.equal(hex(encode(CALLS.watch.request, { progress: {} })), '1a00')
})

test('negative numbers and ids of 63 bits are whole', () => {
  assert.equal(decode(CALLS.watch.response, Buffer.from('10ffffffffffffffffff01', 'hex')).watchId, -1)
  const id = 7587846322184347908n
  assert.equal(decode(CALLS.revoke.request, encode(CALLS.revoke.request, { id })).id, id)
})

test('unknown fields of every kind are passed by', () => {
  const unknown = 'f80101' + 'f9010102030405060708' + 'fa0103616263' + 'fd0101020304'
  assert.deepEqual(decode(CALLS.grant.response, Buffer.from(`${unknown}1007${unknown}`, 'hex')), { id: 7n })
})

test('what was left out has protobuf’s default', () => {
  assert.deepEqual(decode(CALLS.range.response, Buffer.alloc(0)), { header: undefined, records: [], more: false })
})
