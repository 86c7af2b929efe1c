// Reading what a measured host's kernel says, and the leases of made-up nodes.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { routeChange } from '../../bench/kernel-watch.ts'
import { fakeLease, subnetKey, writtenValue } from '../../bench/leases.ts'

test('a line of ip monitor gives time, direction and route', () => {
  const at = Date.parse('2026-11-21T12:00:00Z') + 1.5
  const route = '10.64.0.0/24 via 10.64.0.0 dev flannel.1 onlink'
  assert.deepEqual(routeChange(`[2026-11-21T12:00:00.001500] Deleted ${route} `), { atMs: at, gone: true, route })
  assert.deepEqual(routeChange(`[2026-11-21T12:00:00.001500] ${route}`), { atMs: at, gone: false, route })
  assert.equal(routeChange('nonsense'), undefined)
})

test('made-up nodes have subnets, addresses and VTEPs of their own, as flannel writes them', () => {
  assert.deepEqual(fakeLease(4999, 'vxlan'), {
    subnet: '10.83.135.0-24',
    publicIp: '172.20.20.135',
    backend: 'vxlan',
    vtepMac: '0e:00:00:00:13:87'
  })
  assert.equal(subnetKey('/coreos.com/network', fakeLease(0, 'vxlan')), '/coreos.com/network/subnets/10.64.0.0-24')
  assert.equal(
    writtenValue(fakeLease(1, 'vxlan')),
    '{"PublicIP":"172.20.1.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"0e:00:00:00:00:01"}}'
  )
  assert.equal(
    writtenValue(fakeLease(0, 'host-gw')),
    '{"PublicIP":"172.20.1.0","PublicIPv6":null,"BackendType":"host-gw"}'
  )
  const all = Array.from({ length: 60_000 }, (_, n) => fakeLease(n % 60_000, 'vxlan'))
  for (const key of ['subnet', 'publicIp', 'vtepMac'] as const)
    assert.equal(new Set(all.map((lease) => lease[key])).size, 60_000, key)
  assert.throws(() => fakeLease(60_000, 'vxlan'), /60000/)
})
