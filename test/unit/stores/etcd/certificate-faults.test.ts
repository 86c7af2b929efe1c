// Which message of a failed connection is about a certificate's dates, and what is said of it.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { certificateFault, validityOf } from '../../../../daemon/stores/etcd/certificate-faults.ts'

const now = Date.parse('2026-11-30T20:00:00Z')
const own = { from: now - 1_000, to: now + 1_000, path: '/pki/client.crt' }
const BAD = 'No connection established. Last error: error:0A000412:SSL routines:ssl3_read_bytes:alert bad certificate'
const what = (...args: Parameters<typeof certificateFault>) => certificateFault(...args)?.what

test('our own certificate is blamed only when its dates are wrong, and the fault is one of certificates', () => {
  assert.equal(
    what(BAD, { ...own, to: now - 1 }, now),
    'the client certificate /pki/client.crt expired on 2026-11-30 19:59'
  )
  assert.equal(
    what(BAD, { ...own, from: now + 60_000 }, now),
    'the client certificate /pki/client.crt is valid from 2026-11-30 20:01 on'
  )
  assert.equal(what(BAD, own, now), undefined)
  assert.equal(what(BAD, undefined, now), undefined)
  assert.equal(what('connect ECONNREFUSED 127.0.0.1:2379', { ...own, to: now - 1 }, now), undefined)
})

test('etcd’s certificate is blamed as Node says', () => {
  assert.match(what('Error: certificate has expired.', own, now) ?? '', /^etcd's certificate, or that of its authority/)
  assert.match(what('Error: certificate is not yet valid.', own, now) ?? '', /not valid yet$/)
})

test('what is no certificate has no dates', () => {
  assert.equal(validityOf(Buffer.from('no PEM'), '/pki/client.crt'), undefined)
  assert.equal(validityOf(null, '/pki/client.crt'), undefined)
})
