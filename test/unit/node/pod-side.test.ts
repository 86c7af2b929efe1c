// Which devices count as those of pods.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { mattersToPodSide, podSide } from '../../../daemon/node/pod-side.ts'
import type { KernelObject, Route } from '../../../daemon/state/object.ts'
import { type Prefix, parsePrefix } from '../../../ipam/address.ts'

const prefix = (text: string): Prefix => parsePrefix(text) ?? assert.fail(text)
const networks = [{ 4: prefix('10.244.0.0/16') }]
const address = (device: string, text: string): KernelObject => ({ kind: 'address', device, prefix: prefix(text) })
const route = (to: string, device: string, gateway?: string): KernelObject => ({
  ...{ kind: 'route', table: 254, destination: prefix(to), metric: 0, type: 'unicast', device, protocol: 87 },
  ...(gateway === undefined ? {} : { gateway: prefix(`${gateway}/32`).ip })
})

test('a device with an address or a direct route in the pod network is of pods; one to other nodes carries theirs', () => {
  const { device: _, ...several } = route('10.244.4.0/24', '') as Route
  const objects = [
    address('cni0', '10.244.1.1/24'),
    address('weft.1', '10.244.1.0/32'),
    address('eth0', '192.168.10.1/24'),
    address('docker0', '172.17.0.1/16'),
    address('lo', '10.244.1.9/32'),
    route('10.244.2.0/24', 'weft.1', '10.244.2.0'),
    route('10.244.3.0/24', 'eth0', '192.168.10.3'),
    { ...several, nextHops: [{ device: 'eth2' }] },
    route('10.244.1.7/32', 'veth12345678'),
    route('10.244.1.8/32', 'tap0'),
    route('0.0.0.0/0', 'eth1', '192.168.10.254')
  ]
  assert.deepEqual(podSide(objects, networks), {
    devices: ['veth*', 'cni0', 'tap0', 'weft.1'],
    carriers: ['cni0', 'eth0', 'eth2', 'tap0', 'weft.1'],
    ...{ local: ['cni0', 'tap0'], remote: ['eth0', 'eth2', 'weft.1'], networks: [prefix('10.244.0.0/16')] }
  })
})

test('the links of default routes are not of pods although the pod network contains their addresses', () => {
  const hops = [{ device: 'eth0' }, { device: 'eth1' }]
  const { device: _, ...several } = route('0.0.0.0/0', '') as Route
  const ways: KernelObject = { ...several, nextHops: hops }
  const addresses = [address('cni0', '10.244.1.1/24'), address('eth0', '10.244.200.1/24')]
  const { local, devices } = podSide([...addresses, address('eth1', '10.244.201.1/24'), ways], networks)
  assert.deepEqual([local, devices], [['cni0'], ['veth*', 'cni0', 'eth0', 'eth1']])
  assert.equal(mattersToPodSide(ways, networks), true)
})

test('what comes and goes with each pod changes nothing', () => {
  const objects = [
    route('10.244.1.7/32', 'veth12345678'),
    address('docker0', '172.17.0.1/16'),
    address('cni0', '10.244.1.1/24')
  ]
  assert.deepEqual(
    objects.map((object) => mattersToPodSide(object, networks)),
    [false, false, true]
  )
})
