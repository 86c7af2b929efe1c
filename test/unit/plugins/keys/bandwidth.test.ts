// Limits to throughput: static keys and the capability, which of them counts, and the errors of wrong values.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { formatPrefix } from '../../../../ipam/address.ts'
import { bandwidthOf } from '../../../../plugins/keys/bandwidth.ts'

const read = (value: object) => bandwidthOf({ path: '', value })
const runtime = (bandwidth: object) => read({ runtimeConfig: { bandwidth } })
const limit = (rateBitsPerSecond: number, burstBits: number) => ({ rateBitsPerSecond, burstBits })

test('each direction has its own limit, by keys in any case', () => {
  assert.deepEqual(runtime({ IngressRate: 8_000_000, IngressBurst: 4_294_967_295, EgressRate: 1000, EgressBurst: 9 }), {
    ingress: limit(8_000_000, 4_294_967_295),
    egress: limit(1000, 9)
  })
  assert.deepEqual(runtime({ ingressRate: 0, ingressBurst: 0, egressRate: 8, egressBurst: 34_359_738_359 }), {
    egress: limit(8, 34_359_738_359)
  })
})

test('without keys, with null and with zeros there is no limit', () => {
  for (const none of [
    {},
    { runtimeConfig: null },
    { runtimeConfig: { bandwidth: { ingressRate: 0, egressBurst: 0 } } }
  ])
    assert.equal(read(none), undefined)
})

test('what the configuration says wins as a whole, zeros too', () => {
  const bandwidth = { ingressRate: 1000, ingressBurst: 1000, egressRate: 1000, egressBurst: 1000 }
  assert.deepEqual(read({ ingressRate: 2000, ingressBurst: 2000, runtimeConfig: { bandwidth } }), {
    ingress: limit(2000, 2000)
  })
  assert.equal(read({ ingressRate: 0, runtimeConfig: { bandwidth } }), undefined)
})

test('subnets beside the limits count, else those of the configuration, and without a limit none', () => {
  const [ingressRate, ingressBurst] = [8000, 8000]
  const only = (value: object) => {
    const found = read(value)?.only
    return found && [found.limits, ...found.subnets.map(formatPrefix)]
  }
  const limits = { ingressRate, ingressBurst }
  assert.deepEqual(only({ ...limits, shapedSubnets: ['10.0.0.0/8', 'fd00::/8'] }), ['these', '10.0.0.0/8', 'fd00::/8'])
  const bandwidth = { ...limits, UnshapedSubnets: ['10.1.0.0/16'] }
  assert.deepEqual(only({ runtimeConfig: { bandwidth } }), ['others', '10.1.0.0/16'])
  assert.deepEqual(only({ shapedSubnets: ['10.2.0.0/16'], runtimeConfig: { bandwidth } }), ['others', '10.1.0.0/16'])
  assert.deepEqual(only({ unshapedSubnets: ['10.2.0.0/16'], runtimeConfig: { bandwidth: limits } }), [
    'others',
    '10.2.0.0/16'
  ])
  assert.equal(only({ ...limits, shapedSubnets: [], unshapedSubnets: null }), undefined)
  assert.equal(read({ shapedSubnets: ['10.0.0.0/8'] }), undefined)
  const many = Array.from({ length: 257 }, () => '10.0.0.0/8')
  assert.throws(() => read({ ...limits, shapedSubnets: many }), /shapedSubnets: .* at most 256/)
})

for (const [value, expected] of [
  [{ ingressRate: 8000 }, /ingressRate: 8000 is wrong: must come together with ingressBurst/],
  [{ egressBurst: 8000 }, /egressBurst: 8000 is wrong: must come together with egressRate/],
  [{ egressRate: 8000, egressBurst: 34_359_738_360 }, /egressBurst: 34359738360 is wrong: .* to 34359738359/],
  [{ ingressRate: 7, ingressBurst: 8000 }, /ingressRate: 7 is wrong: .*at least 8 bits/],
  [{ ingressRate: -1, ingressBurst: 8000 }, /ingressRate: -1/],
  [{ ingressRate: '8M', ingressBurst: 8000 }, /ingressRate: "8M"/],
  [
    { runtimeConfig: { bandwidth: { ingressRate: 1.5, ingressBurst: 8 } } },
    /runtimeConfig\.bandwidth\.ingressRate: 1\.5/
  ],
  [{ runtimeConfig: { bandwidth: 5 } }, /runtimeConfig\.bandwidth: 5/]
] as const) {
  test(`${JSON.stringify(value)} is refused by its value`, () => assert.throws(() => read(value), expected))
}
