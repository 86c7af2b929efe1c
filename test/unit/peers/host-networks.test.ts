// What a host has inside the pod network: its own networks and addresses, and a route that a lease has replaced.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BACKENDS, registry } from '../../../daemon/backend/registry.ts'
import { coveredBy, hostNetworks, mayOccupy, routesToGiveBack } from '../../../daemon/peers/host-networks.ts'
import { type KernelObject, stateOf } from '../../../daemon/state/object.ts'
import { textOf } from '../../../daemon/state/text.ts'
import { formatPrefix, parseIp, parsePrefix } from '../../../ipam/address.ts'

const ip = (text: string) => parseIp(text) ?? assert.fail(text)
const prefix = (text: string) => parsePrefix(text) ?? assert.fail(text)
const { recognises } = registry(BACKENDS)
const viewOf = (network: string, subnet = '10.0.9.0/24') => ({
  networks: { 4: prefix(network) },
  device: 'eth0',
  subnet: { 4: prefix(subnet) },
  recognises
})
const address = (device: string, text: string, over: object = {}): KernelObject =>
  ({ kind: 'address', device, prefix: prefix(text), ...over }) as KernelObject
const route = (destination: string, over: object): KernelObject =>
  ({ kind: 'route', table: 254, destination: prefix(destination), metric: 0, type: 'unicast', ...over }) as KernelObject
const kernels = (destination: string, device: string) => route(destination, { device, protocol: 2 })
const gateway = (text: string) => route('0.0.0.0/0', { device: 'eth0', gateway: ip(text), protocol: 3 })

const cases: readonly (readonly [what: string, network: string, objects: readonly KernelObject[], expected: string])[] =
  [
    ['a network of the host inside counts whole', '10.0.0.0/16', [address('eth0', '10.0.5.7/24')], '10.0.5.0/24'],
    ['also where its route has a metric', '10.0.0.0/16', [kernels('10.0.5.0/24', 'eth1')], '10.0.5.0/24'],
    ['of a larger network only the address counts', '10.0.0.0/16', [address('eth0', '10.0.5.7/8')], '10.0.5.7/32'],
    ['and its gateway', '10.0.0.0/16', [address('eth0', '10.9.0.7/8'), gateway('10.0.0.1')], '10.0.0.1/32'],
    [
      'of a route with several next hops each gateway',
      '10.0.0.0/16',
      [
        address('eth0', '192.0.2.7/24'),
        route('0.0.0.0/0', {
          protocol: 3,
          nextHops: [
            { device: 'eth0', gateway: ip('10.0.0.1') },
            { device: 'eth1', gateway: ip('10.0.1.1') }
          ]
        })
      ],
      '10.0.0.1/32 10.0.1.1/32'
    ],
    ['a larger network around counts for nothing', '10.244.0.0/16', [address('eth0', '10.0.5.7/8')], ''],
    ['another network counts for nothing', '10.0.0.0/16', [address('eth0', '192.0.2.7/24'), gateway('192.0.2.1')], ''],
    [
      'gateways of our pods are expected',
      '10.0.0.0/16',
      [address('cni0', '10.0.9.1/24'), kernels('10.0.9.0/24', 'cni0')],
      ''
    ],
    ['but not on the interface to the nodes', '10.0.0.0/16', [address('eth0', '10.0.9.1/24')], '10.0.9.0/24'],
    [
      'our tunnel, and one to be adopted, are Weft’s',
      '10.0.0.0/16',
      [address('weft.1', '10.0.7.0/32'), address('flannel.1', '10.0.7.0/32')],
      ''
    ],
    ['link-local addresses count for nothing', '169.254.0.0/15', [address('eth0', '169.254.3.4/16')], '']
  ]
for (const [what, network, objects, expected] of cases)
  test(what, () => {
    const found = hostNetworks(stateOf(objects), viewOf(network)).map(formatPrefix)
    assert.equal(found.join(' '), expected)
    if (expected !== '') assert.ok(objects.some((object) => mayOccupy(object, viewOf(network))))
  })

test('a lease covers what it contains, equals or lies in', () => {
  const occupied = [prefix('10.0.5.0/24')]
  const covered = (text: string) => coveredBy({ 4: prefix(text) }, occupied) !== undefined
  assert.deepEqual(['10.0.5.0/24', '10.0.5.128/25', '10.0.4.0/22', '10.0.6.0/24'].map(covered), [
    true,
    true,
    true,
    false
  ])
})

test('a route to a network of the host that a lease has replaced is given back as the kernel makes it', () => {
  const ours = (destination: string) => route(destination, { gateway: ip('192.0.2.9'), device: 'eth0', protocol: 87 })
  const given = (...objects: readonly KernelObject[]) =>
    routesToGiveBack(stateOf(objects), viewOf('10.0.0.0/16')).map(textOf)
  assert.deepEqual(given(address('eth0', '10.0.5.7/24'), ours('10.0.5.0/24')), [
    'route 10.0.5.0/24 dev eth0 proto 2 scope link src 10.0.5.7'
  ])
  assert.deepEqual(given(address('eth0', '10.0.5.7/24'), kernels('10.0.5.0/24', 'eth0')), [])
  assert.deepEqual(given(address('eth0', '10.0.5.7/24'), ours('10.0.6.0/24')), [])
  assert.deepEqual(given(address('eth0', '10.0.5.7/24', { noPrefixRoute: true }), ours('10.0.5.0/24')), [])
})
