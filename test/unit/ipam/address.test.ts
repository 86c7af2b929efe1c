// Address arithmetic: text both ways, and the laws that hold in either family.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import * as address from '../../../ipam/address.ts'

const family = fc.constantFrom<address.Family>(4, 6)
const ip = family.chain((f) =>
  fc.bigInt({ min: 0n, max: (1n << BigInt(address.width(f))) - 1n }).map((value): address.Ip => ({ family: f, value }))
)
const prefix = ip.chain((one) =>
  fc.integer({ min: 0, max: address.width(one.family) }).map((length): address.Prefix => ({ ip: one, length }))
)

for (const [text, canonical] of [
  ['192.0.2.1', '192.0.2.1'],
  ['0.0.0.0', '0.0.0.0'],
  ['2001:DB8:0:0:0:0:0:1', '2001:db8::1'],
  ['::', '::'],
  ['1::', '1::'],
  ['1:0:0:2:0:0:0:3', '1:0:0:2::3'],
  ['1:0:2:3:4:5:6:7', '1:0:2:3:4:5:6:7'],
  ['::ffff:192.0.2.1', '::ffff:c000:201'],
  ['64:ff9b::192.0.2.33', '64:ff9b::c000:221']
] as const) {
  test(`${text} is read and printed as ${canonical}`, () => {
    const parsed = address.parseIp(text)
    assert.ok(parsed)
    assert.equal(address.formatIp(parsed), canonical)
  })
}

for (const bad of [
  '',
  '1.2.3',
  '1.2.3.4.5',
  '256.1.1.1',
  '01.2.3.4',
  '1.2.3.-4',
  ' 1.2.3.4',
  '1::2::3',
  '1:2:3:4:5:6:7',
  '1:2:3:4:5:6:7:8:9',
  '12345::',
  'g::',
  'fe80::1%eth0',
  '::1.2.3',
  '1.2.3.4::',
  ':1:2:3:4:5:6:7',
  '1:2:3:4:5:6:7::8'
]) {
  test(`${JSON.stringify(bad)} is no address`, () => assert.equal(address.parseIp(bad), undefined))
}

for (const bad of ['10.0.0.0', '10.0.0.0/', '10.0.0.0/33', '10.0.0.0/08', 'fd00::/129', '10.0.0.0/8/8', '/8']) {
  test(`${JSON.stringify(bad)} is no prefix`, () => assert.equal(address.parsePrefix(bad), undefined))
}

test('what is printed is read again as the same value', () => {
  fc.assert(fc.property(ip, (one) => assert.deepEqual(address.parseIp(address.formatIp(one)), one)))
  fc.assert(fc.property(prefix, (one) => assert.deepEqual(address.parsePrefix(address.formatPrefix(one)), one)))
  fc.assert(fc.property(ip, (one) => assert.deepEqual(address.ipFromBytes(address.ipBytes(one)), one)))
})

test('a prefix contains its first and last address and itself, and nothing beyond', () => {
  fc.assert(
    fc.property(prefix, (one) => {
      const { first, last } = address.rangeOf(one)
      assert.ok(address.contains(one, first) && address.contains(one, last) && address.contains(one, one))
      for (const outside of [address.offset(first, -1n), address.offset(last, 1n)])
        assert.ok(outside === undefined || !address.contains(one, outside))
    })
  )
})

test('two prefixes overlap exactly when one contains the other, and never across families', () => {
  fc.assert(
    fc.property(prefix, prefix, (a, b) => {
      const overlap = address.overlaps(a, b)
      assert.equal(overlap, address.contains(a, b) || address.contains(b, a))
      if (a.ip.family !== b.ip.family) assert.equal(overlap, false)
    })
  )
})

test('addresses sort by family and number', () => {
  fc.assert(
    fc.property(ip, ip, (a, b) => {
      assert.equal(Math.sign(address.compareIp(a, b)) + Math.sign(address.compareIp(b, a)), 0)
      assert.equal(address.compareIp(a, b) === 0, address.sameIp(a, b))
    })
  )
})

test('special addresses are known by their ranges', () => {
  const of = (text: string) => address.parseIp(text) ?? assert.fail(text)
  for (const text of ['127.0.0.1', '::1']) assert.ok(address.isLoopback(of(text)))
  for (const text of ['169.254.1.1', 'fe80::1']) assert.ok(address.isLinkLocal(of(text)))
  for (const text of ['224.0.0.1', 'ff02::1']) assert.ok(address.isMulticast(of(text)))
  for (const text of ['10.0.0.1', '2001:db8::1', 'fd00::1']) assert.ok(address.isGlobalUnicast(of(text)))
  for (const text of ['0.0.0.0', '::', '255.255.255.255', '127.0.0.1', 'fe80::1', 'ff02::1'])
    assert.equal(address.isGlobalUnicast(of(text)), false)
})

test('a list per family is walked IPv4 first', () => {
  assert.deepEqual(address.perFamily({ 6: 'b', 4: 'a' }), [
    [4, 'a'],
    [6, 'b']
  ])
})
