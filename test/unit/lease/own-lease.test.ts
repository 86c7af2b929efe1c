// Which leases are this node's: one rule, by addresses, names and backend data.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Lease, parseLease } from '../../../daemon/lease/lease.ts'
import { isOurs, isOursUnderOurKey, type Us } from '../../../daemon/lease/own-lease.ts'
import { parseIp } from '../../../ipam/address.ts'

const ip = (text: string) => parseIp(text) ?? assert.fail(text)
const lease = (publicIp: string, publicIpv6?: string, over: Partial<Lease> = {}): Lease => ({
  ...parseLease('10.2.1.0-24', JSON.stringify({ PublicIP: publicIp, PublicIPv6: publicIpv6 ?? '' })),
  ...over
})
const held = lease('192.0.2.1', '2001:db8::1', { node: 'us' })
const us = (over: Partial<Us> = {}): Us => ({
  publicIp: { 4: ip('192.0.2.1'), 6: ip('2001:db8::1') },
  lease: held,
  areOfTwoNodes: (a, b) => a.backendType !== b.backendType,
  ...over
})

const OURS = lease('192.0.2.1', '2001:db8::1')
const cases: readonly (readonly [what: string, lease: Lease, isOurs: boolean, us?: Us])[] = [
  ['all addresses are ours', OURS, true],
  ['the address of the only family that both have', lease('192.0.2.1'), true],
  ['one of two addresses', lease('192.0.2.1', '2001:db8::9'), false],
  ['no address', lease('192.0.2.9', '2001:db8::9'), false],
  ['none of a common family', lease('192.0.2.1'), false, us({ publicIp: { 6: ip('2001:db8::1') } })],
  ['another node’s name', lease('192.0.2.1', undefined, { node: 'other' }), false],
  ['our name', lease('192.0.2.1', undefined, { node: 'us' }), true],
  ['another node’s backend data', lease('192.0.2.1', undefined, { backendType: 'vxlan' }), false],
  [
    'any backend data, where we hold no lease',
    lease('192.0.2.1', undefined, { backendType: 'x' }),
    true,
    us({ lease: undefined })
  ],
  ['a name, where we know none of ours', lease('192.0.2.1', undefined, { node: 'x' }), true, us({ lease: undefined })]
]
for (const [what, each, expected, of = us()] of cases)
  test(`a lease with ${what} ${expected ? 'is' : 'is not'} ours`, () => assert.equal(isOurs(each, of), expected))

test('the lease under our key is ours with another address too, until the store reports the loss, its name or its data differ', () => {
  const moved = lease('192.0.2.9')
  const under = (each: Lease, isLost = false) => isOursUnderOurKey(each, us(), isLost)
  assert.deepEqual([under(moved), under(moved, true), under(OURS, true)], [true, false, true])
  const [other, data] = [{ node: 'other' }, { backendType: 'vxlan' }].map((over) => lease('192.0.2.1', undefined, over))
  assert.ok(other && data)
  assert.deepEqual([under(other), under(data)], [false, false])
  assert.equal(under(lease('192.0.2.9', undefined, { node: 'us', backendType: 'vxlan' }), true), true, 'a name decides')
})
