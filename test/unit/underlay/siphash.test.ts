// The code of a probe's answer against vectors.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { sipHash } from '../../../daemon/underlay/siphash.ts'

const count = (length: number, from = 0) => Uint8Array.from({ length }, (_, at) => at + from)

test('SipHash-2-4 of sixteen octets: the reference implementation’s vector, and another key and message', () => {
  // vectors_sip64 of github.com/veorq/SipHash: key and message count from 0.
  assert.equal(Buffer.from(sipHash(count(16))(count(16))).toString('hex'), 'db9bc2577fcc2a3f')
  const known = sipHash(count(16))
  const codes = [sipHash(count(16, 1))(count(16)), known(count(16, 1)), known(count(16))]
  assert.equal(new Set(codes.map((code) => Buffer.from(code).toString('hex'))).size, 2)
  assert.equal(Buffer.from(known(count(16))).toString('hex'), 'db9bc2577fcc2a3f')
})
