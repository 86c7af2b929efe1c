// Which of the store's leases say what this node published before.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BACKENDS, registry } from '../../../daemon/backend/registry.ts'
import { type Lease, parseLease, parseLeaseKey } from '../../../daemon/lease/lease.ts'
import { dataOfOurs, publishedBefore } from '../../../daemon/node/published-before.ts'
import { type KernelObject, type Mac, stateOf } from '../../../daemon/state/object.ts'
import { formatIp, parseIp, parsePrefix, perFamily } from '../../../ipam/address.ts'

const backends = registry(BACKENDS)
const MAC = '02:00:00:00:00:01'
const lease = (n: number, publicIp: string, over: Partial<Lease> = {}): Lease => ({
  ...parseLease(`10.2.${n}.0-24`, JSON.stringify({ PublicIP: publicIp, BackendType: 'vxlan' })),
  ...over
})
const address = (text: string, over: object = {}): KernelObject =>
  ({ kind: 'address', device: 'eth0', prefix: parsePrefix(text) ?? assert.fail(text), ...over }) as KernelObject
const flannel: KernelObject = {
  ...({ kind: 'link', name: 'flannel.1', mac: MAC as Mac } as const),
  form: {
    ...({ type: 'vxlan', vni: 1, port: 8472, parent: 'eth0', learning: false, gbp: false } as const),
    local: parseIp('192.0.2.1') ?? assert.fail()
  }
}
const data = { 4: { VNI: 1, VtepMAC: MAC } }
const OWN = address('192.0.2.1/24')

const cases: readonly (readonly [
  what: string,
  leases: readonly Lease[],
  host: readonly KernelObject[],
  expected: string,
  previous?: string
])[] = [
  ['the lease that the store found by our name', [lease(1, '192.0.2.5', { node: 'us' })], [OWN], '192.0.2.5'],
  ['the lease of subnet.env', [lease(1, '192.0.2.1'), lease(2, '192.0.2.5')], [OWN], '192.0.2.5', '10.2.2.0-24'],
  [
    'the lease of our device',
    [lease(1, '192.0.2.1'), lease(2, '192.0.2.5', { backendData: data })],
    [OWN, flannel],
    '192.0.2.5'
  ],
  [
    'without proof, the only one with an address of ours',
    [lease(1, '192.0.2.1'), lease(2, '192.0.2.9')],
    [OWN],
    '192.0.2.1'
  ],
  ['not of several', [lease(1, '192.0.2.1'), lease(2, '192.0.2.5')], [OWN, address('192.0.2.5/24')], ''],
  ['not a virtual one', [lease(1, '192.0.2.100')], [OWN, address('192.0.2.100/32')], ''],
  ['nor a secondary one', [lease(1, '192.0.2.100')], [OWN, address('192.0.2.100/24', { secondary: true })], ''],
  ['none', [lease(2, '192.0.2.9')], [OWN], '']
]
for (const [what, leases, host, expected, previous] of cases)
  test(`what this node published before: ${what}`, () => {
    const found = publishedBefore(leases, {
      ...{ observed: stateOf(host), backends },
      previous: previous === undefined ? {} : (parseLeaseKey(previous) ?? assert.fail())
    })
    assert.equal(
      found
        .flatMap(perFamily)
        .map(([, ip]) => formatIp(ip))
        .join(' '),
      expected
    )
  })

test('backend data are kept of a lease that is proven to be ours, not of one that has our address only', () => {
  const held = lease(1, '192.0.2.1', { backendData: data })
  const proof = { previous: {}, namesOurDevice: () => false }
  assert.deepEqual(dataOfOurs(held, proof), {})
  assert.deepEqual(dataOfOurs(held, { ...proof, previous: held.subnet }), data)
  assert.deepEqual(dataOfOurs(held, { ...proof, namesOurDevice: () => true }), data)
  assert.deepEqual(dataOfOurs({ ...held, node: 'us' }, proof), data)
  assert.deepEqual(dataOfOurs(undefined, proof), {})
})
