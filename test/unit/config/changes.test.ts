// The description of a changed configuration names the keys that differ, not what is derived from them.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { configurationChanges } from '../../../daemon/config/changes.ts'
import { parseNetConf } from '../../../daemon/config/net-conf.ts'

const changes = (here: object, there: object): readonly string[] =>
  configurationChanges(parseNetConf(JSON.stringify(here)), parseNetConf(JSON.stringify(there)))
const usual = { Network: '10.244.0.0/16', Backend: { Type: 'vxlan', VNI: 1 } }

test('what means the same is no change, however it is written', () => {
  assert.deepEqual(
    changes(usual, { network: '10.244.7.0/16', SubnetLen: 24, backend: { TYPE: 'VXLAN', vni: 1, MTU: null } }),
    []
  )
})

for (const [what, there, expected] of [
  ['another network', { ...usual, Network: '10.9.0.0/16' }, ['Network is 10.244.0.0/16 here and 10.9.0.0/16 there']],
  ['a narrower range', { ...usual, SubnetMax: '10.244.9.0' }, ['SubnetMax is 10.244.255.0 here and 10.244.9.0 there']],
  [
    'another backend',
    { ...usual, Backend: { Type: 'host-gw' } },
    ['Backend.Type is vxlan here and host-gw there', 'Backend.VNI is 1 here and absent there']
  ],
  [
    'a second family',
    { ...usual, EnableIPv6: true, IPv6Network: 'fd00::/48' },
    ['IPv6Network is absent here and fd00::/48 there']
  ]
] as const)
  test(`${what} is named with both values`, () => assert.deepEqual(changes(usual, there), expected))

test('a secret that was changed is named and not shown', () => {
  const Backend = { Type: 'wireguard', PSK: 'one secret' }
  const rows = [
    [{ ...Backend, psk: 'another secret' }, 'Backend.PSK is a secret here and another there'],
    [{ Type: 'wireguard' }, 'Backend.PSK is a secret here and absent there']
  ] as const
  for (const [there, text] of rows)
    assert.deepEqual(changes({ ...usual, Backend }, { ...usual, Backend: there }), [text])
  assert.deepEqual(changes({ ...usual, Backend }, { ...usual, Backend: { ...Backend } }), [])
})
