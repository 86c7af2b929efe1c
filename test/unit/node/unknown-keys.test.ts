// Unknown keys of the network configuration; and every key that a backend lists is really read.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BACKENDS, registry } from '../../../daemon/backend/registry.ts'
import { netConfSchema } from '../../../daemon/config/net-conf.schema.ts'
import type { JsonObject } from '../../../daemon/config/net-conf.ts'
import { unknownKeys } from '../../../daemon/node/unknown-keys.ts'

const backends = registry(BACKENDS)
const unknown = (conf: JsonObject, type = 'vxlan') =>
  unknownKeys(JSON.stringify(conf), backends.configure(type, {})).map(({ text }) => text)
const Network = '10.244.0.0/16'

test('a misspelled key is reported by its path, with the nearest known one', () => {
  assert.deepEqual(
    unknown({ Network, SubnetLenght: 25, backend: { Type: 'vxlan', DirectRoutng: true, 'note to self': 7 } }),
    [
      'SubnetLenght is no key of the network; the nearest is SubnetLen',
      'backend.DirectRoutng is no key of vxlan; the nearest is DirectRouting',
      'backend["note to self"] is no key of vxlan'
    ]
  )
})

test('of thousands of unknown keys, or one of a megabyte, a few are named and shortened', () => {
  const many = unknown({ Network, ...Object.fromEntries(Array.from({ length: 10_000 }, (_, at) => [`k${at}`, 1])) })
  assert.equal(many.length, 8)
  assert.match(many[7] ?? '', /^k7 is no key of the network; 9992 more are unknown$/)
  assert.equal(unknown({ Network, ['x'.repeat(1_000_000)]: 1 })[0]?.length, 110)
})

test('a key of another backend is unknown to this one', () => {
  assert.deepEqual(unknown({ Network, Backend: { Type: 'host-gw', VNI: 7 } }, 'host-gw'), [
    'Backend.VNI is no key of host-gw'
  ])
})

test('every known key is accepted in any letter case, and a missing Backend has no unknown keys', () => {
  const all = Object.fromEntries(Object.keys(netConfSchema.properties).map((key) => [key.toUpperCase(), null]))
  assert.deepEqual(unknown({ ...all, Backend: { type: 'vxlan', vni: 1, Gbp: true } }), [])
  assert.deepEqual(unknown({ Network }), [])
})

for (const type of ['vxlan', 'host-gw'])
  for (const key of Object.keys(backends.configure(type, {}).keys))
    test(`${type} reads ${key}`, () =>
      assert.throws(() => backends.configure(type, { [key]: 'of no type it has' }), {
        code: 'CONFIG_INVALID',
        message: new RegExp(`^Backend\\.${key} `)
      }))
