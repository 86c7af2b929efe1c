// Which of the store's leases say what this node published before.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BACKENDS, registry } from '../../../daemon/backend/registry.ts'
import { type Lease, parseLease, parseLeaseKey } from '../../../daemon/lease/lease.ts'
import { dataOfOurs, proofOf, publishedBefore } from '../../../daemon/node/published-before.ts'
import { type KernelObject, type Link, type Mac, stateOf } from '../../../daemon/state/object.ts'
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
  const proof = { previous: {}, namesOurDevice: () => false, isAnothers: () => false }
  assert.deepEqual(dataOfOurs(held, proof), {})
  assert.deepEqual(dataOfOurs(held, { ...proof, previous: held.subnet }), data)
  assert.deepEqual(dataOfOurs(held, { ...proof, namesOurDevice: () => true }), data)
  assert.deepEqual(dataOfOurs({ ...held, node: 'us' }, proof), data)
  assert.deepEqual(dataOfOurs(undefined, proof), {})
  assert.deepEqual(dataOfOurs(held, { ...proof, previous: held.subnet, isAnothers: () => true }), {})
})

const THEIRS = { 4: { VNI: 1, VtepMAC: '02:00:00:00:00:99' } }
const proofWith = (over: {
  remembered?: Lease
  links?: readonly KernelObject[]
  publicIp?: string
  fresh?: typeof data
}) =>
  proofOf({
    ...{ previous: lease(1, '10.0.2.15').subnet, backends, present: undefined, remembered: over.remembered },
    links: (over.links ?? []) as readonly Link[],
    publicIp: lease(1, over.publicIp ?? '10.0.2.15').publicIp,
    fresh: { backendType: 'vxlan', backendData: over.fresh ?? {} }
  })
const ours = lease(1, '10.0.2.15', { backendData: data })
const taken = lease(1, '10.0.2.15', { backendData: THEIRS })
const old = flannel as Link
for (const [what, record, isAnothers, with_] of [
  ['our subnet under our address with other data than our lease had', taken, true, { remembered: ours }],
  ['the same by the device alone: the lease file is too old', taken, true, { links: [old] }],
  ['nothing that is known of us', taken, false, {}],
  ['the data of our device', ours, false, { links: [old], remembered: taken }],
  ['the data of our lease, whatever MAC the device has by now', taken, false, { links: [old], remembered: taken }],
  ['the data that we would publish', taken, false, { links: [old], fresh: THEIRS }],
  ['a device of another network', taken, false, { links: [{ ...old, name: 'flannel.7' }] }],
  ['a name that the store found', { ...taken, node: 'us' }, false, { remembered: ours }],
  ['no data', lease(1, '10.0.2.15'), false, { remembered: ours, links: [old] }],
  [
    'our data, and an address that is neither ours nor was',
    lease(1, '192.0.2.9', { backendData: data }),
    true,
    { remembered: ours, links: [old], publicIp: '192.0.2.1' }
  ],
  ['our data, and the address that we had', ours, false, { remembered: ours, links: [old], publicIp: '192.0.2.1' }]
] as const)
  test(`a lease is ${isAnothers ? '' : 'not '}certainly another node's: ${what}`, () =>
    assert.equal(proofWith(with_).isAnothers(record), isAnothers))
