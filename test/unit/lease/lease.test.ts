// flannel's lease keys and values: byte for byte when printed, tolerant when parsed.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { formatLeaseValue, type Lease, leaseKey, parseLease, parseLeaseKey } from '../../../daemon/lease/lease.ts'
import { nameOf, readRecord } from '../../../daemon/stores/etcd/record.ts'
import { formatPrefix, network, parseIp, parsePrefix, perFamily } from '../../../ipam/address.ts'

const prefix = (text: string) => parsePrefix(text)!
const ip = (text: string) => parseIp(text)!
const KEY = '10.2.14.0-24'

for (const [key, subnets] of [
  ['10.2.14.0-24', '10.2.14.0/24'],
  ['/coreos.com/network/subnets/10.2.14.0-24', '10.2.14.0/24'],
  ['/a-1/10.0.0.0-8/subnets/10.2.14.0-24&fd00:2:e::-64', '10.2.14.0/24 fd00:2:e::/64'],
  ['10.2.14.7-24', undefined],
  ['10.2.14.0-24&fd00:2:e::1-64', undefined],
  ['fd00:2:e::-64', 'fd00:2:e::/64'],
  ['0.0.0.0-0&fd00:2:e::-64', 'fd00:2:e::/64'],
  ['FD00:2:E::-64', 'fd00:2:e::/64'],
  ['', undefined],
  ['10.2.14.0', undefined],
  ['10.2.14.0/24', undefined],
  ['10.2.14.0-33', undefined],
  ['10.2.14.0-24-24', undefined],
  ['10.2.14-24', undefined],
  ['10.2.14.0-24&', undefined],
  ['10.2.14.0-24&10.3.0.0-24', undefined],
  ['fd00::-64&10.2.14.0-24', undefined],
  ['0.0.0.0-0', undefined],
  ['config', undefined]
] as const)
  test(`key ${JSON.stringify(key)} names ${subnets ?? 'no subnet'}`, () => {
    const parsed = parseLeaseKey(key)
    const shown =
      parsed &&
      perFamily(parsed)
        .map(([, subnet]) => formatPrefix(subnet))
        .join(' ')
    assert.equal(shown, subnets)
  })

test('the value of a vxlan lease is flannel’s, byte for byte', () => {
  const lease: Lease = {
    subnet: { 4: prefix('10.2.14.0/24') },
    publicIp: { 4: ip('192.0.2.1') },
    backendType: 'vxlan',
    backendData: { 4: { VNI: 1, VtepMAC: 'aa:bb:cc:dd:ee:ff' } }
  }
  assert.equal(
    formatLeaseValue(lease),
    '{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"aa:bb:cc:dd:ee:ff"}}'
  )
})

test('a lease with IPv6 only publishes 0.0.0.0 for IPv4, and that is read as no address', () => {
  const lease: Lease = {
    subnet: { 6: prefix('fd00::/64') },
    publicIp: { 6: ip('2001:db8::1') },
    backendType: 'host-gw',
    backendData: { 6: null }
  }
  const value = formatLeaseValue(lease)
  assert.equal(value, '{"PublicIP":"0.0.0.0","PublicIPv6":"2001:db8::1","BackendType":"host-gw","BackendV6Data":null}')
  assert.deepEqual(parseLease(leaseKey(lease), value), lease)
})

test('keys are read in any letter case, and a reservation needs no backend', () => {
  const lease = parseLease(KEY, '{"publicip":"192.0.2.1","BACKENDTYPE":"vxlan","backenddata":{"vni":1},"extra":1}')
  assert.deepEqual([lease.backendType, lease.backendData[4], lease.publicIp[4]], ['vxlan', { vni: 1 }, ip('192.0.2.1')])
  assert.equal(parseLease(KEY, '{"PublicIP":"192.0.2.1"}').backendType, '')
})

for (const [value, message] of [
  ['', 'lease 10.2.14.0-24: the value is ""; it must be JSON'],
  ['nonsense', /the value is "nonsense"; it must be JSON/],
  ['[]', /the value is \[\]; it must be a JSON object/],
  ['{}', /PublicIP is missing; it must be the address other nodes send to/],
  ['{"PublicIP":"0.0.0.0"}', /PublicIP is "0.0.0.0"; .* other nodes send to/],
  ['{"PublicIP":5}', /PublicIP is 5; it must be an IPv4 address/],
  ['{"PublicIP":"2001:db8::1"}', /PublicIP is "2001:db8::1"; it must be an IPv4 address/],
  ['{"PublicIP":"192.0.2.1","PublicIPv6":"x"}', /PublicIPv6 is "x"; it must be an IPv6 address/],
  ['{"PublicIP":"192.0.2.1","BackendType":{}}', /BackendType is \{\}; it must be a text/]
] as const)
  test(`value ${JSON.stringify(value)} is refused with key, value and rule`, () => {
    assert.throws(() => parseLease(KEY, value), { name: 'WeftError', code: 'LEASE_MALFORMED', message })
  })

test('a lease under a key with host bits is refused by the key, and does not go under the name of the right one', () => {
  const key = '/coreos.com/network/subnets/10.2.14.7-24'
  assert.throws(() => parseLease(key, '{"PublicIP":"192.0.2.9"}'), {
    message: /^lease \S+10\.2\.14\.7-24: the key is .* without host bits/
  })
  const record = { key, value: '{"PublicIP":"192.0.2.9"}', created: 1, modified: 1, lease: 0n }
  const { parsed } = readRecord(record)
  assert.deepEqual([parsed.kind, parsed.kind === 'malformed' && parsed.key], ['malformed', '10.2.14.7-24'])
  assert.equal(nameOf(key), '10.2.14.7-24')
})

test('every lease comes back as it was from its key and value', () => {
  const address = fc
    .oneof(fc.ipV4(), fc.ipV6())
    .map(ip)
    .filter(({ value }) => value !== 0n)
  const subnet = fc
    .tuple(address, fc.integer({ min: 1, max: 32 }))
    .map(([first, length]) => network({ ip: first, length }))
  const json = fc.jsonValue().map((value) => JSON.parse(JSON.stringify(value)))
  const lease = fc.tuple(
    fc.array(subnet, { minLength: 1, maxLength: 2 }),
    fc.array(address, { minLength: 1, maxLength: 2 }),
    json,
    json,
    fc.constantFrom('vxlan', 'host-gw', '')
  )
  fc.assert(
    fc.property(lease, ([subnets, ips, data4, data6, backendType]) => {
      const written: Lease = {
        subnet: Object.fromEntries(subnets.map((one) => [one.ip.family, one])),
        publicIp: Object.fromEntries(ips.map((one) => [one.family, one])),
        backendType,
        backendData: { 4: data4, 6: data6 }
      }
      assert.deepEqual(parseLease(`/p/subnets/${leaseKey(written)}`, formatLeaseValue(written)), written)
    })
  )
})
