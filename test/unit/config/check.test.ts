// Values against the precompiled schemas: path of the first fault, the value found, and the rule in words.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { check, spelled } from '../../../daemon/config/check.ts'

for (const [value, fault] of [
  [{ Network: '10.0.0.0/8', Other: 1 }, undefined],
  [7, { path: [], value: 7, rule: 'a JSON object' }],
  [{ SubnetLen: 2.5 }, { path: ['SubnetLen'], value: 2.5, rule: 'a prefix length of at most 30' }],
  [{ Backend: {} }, { path: ['Backend', 'Type'], value: undefined, rule: 'the name of a backend as in "vxlan"' }],
  [{ Backend: { Type: [] } }, { path: ['Backend', 'Type'], value: [], rule: 'the name of a backend as in "vxlan"' }]
] as const)
  test(`${JSON.stringify(value)} ${fault === undefined ? 'is valid' : `fails at ${fault.path.join('.') || 'the top'}`}`, () => {
    assert.deepEqual(check('netConf', value), fault)
  })

test('known keys get the schema’s spelling at every level, nulls go, unknown keys stay', () => {
  const written = { network: 'a', NETWORK: 'b', enableipv6: null, backend: { type: 'vxlan', vni: 1 }, more: null }
  assert.deepEqual(spelled('netConf', written), { Network: 'b', Backend: { Type: 'vxlan', vni: 1 }, more: null })
})
