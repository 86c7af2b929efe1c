// Host misconfigurations: each is reported with its values, and nothing is reported on a correct host.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { bridgeMac } from '../../../daemon/attachment/identity.ts'
import { BACKENDS, registry } from '../../../daemon/backend/registry.ts'
import { checkHost, watchedSysctls } from '../../../daemon/node/host-checks.ts'
import { type KernelObject, type Route, stateOf } from '../../../daemon/state/object.ts'
import { parsePrefix } from '../../../ipam/address.ts'
import { dualStackNode } from '../test-node.ts'

const backends = registry(BACKENDS)
const prefix = (text: string) => parsePrefix(text) ?? assert.fail(text)
const link = (name: string, over: object = {}): KernelObject => ({
  kind: 'link',
  name,
  up: true,
  carrier: true,
  ...over
})
const address = (device: string, text: string): KernelObject => ({ kind: 'address', device, prefix: prefix(text) })
const expectations = {
  networks: { 4: prefix('10.244.0.0/16'), 6: prefix('fd00::/48') },
  ...{ bridge: 'cni0', recognises: backends.recognises }
}
const uplink = [link('eth0'), address('eth0', '192.0.2.1/24'), address('eth0', '2001:db8::1/64')]
const reported = (...objects: readonly KernelObject[]) =>
  Object.entries(checkHost(stateOf(objects), dualStackNode(), expectations)).flatMap(([code, fault]) =>
    fault === undefined ? [] : [`${code}: ${fault.detail}`]
  )

test('a correct node has no fault: its tunnel, its bridge and its pods’ gateways are expected', () => {
  const tunnel = link('weft.1', { form: { type: 'vxlan' } })
  const bridge = [link('cni0', { form: { type: 'bridge' } }), address('cni0', '10.244.1.1/24')]
  const docker = [link('docker0', { form: { type: 'bridge' } }), address('docker0', '172.17.0.1/16')]
  const routed = [address('veth1', '10.244.1.1/32'), address('cni0', 'fe80::1/64'), address('cni0', 'fd00:0:0:1::1/64')]
  const all = [...uplink, tunnel, address('weft.1', '10.244.1.0/32'), ...bridge, ...docker, ...routed]
  assert.deepEqual(reported(...all), [])
})

for (const [what, objects, expected] of [
  ['gone', [], 'eth0 is gone'],
  ['set down', [link('eth0', { up: false, carrier: false }), ...uplink.slice(1)], 'eth0 is set down'],
  ['without carrier', [link('eth0', { carrier: false }), ...uplink.slice(1)], 'eth0 has no carrier'],
  ['without its address', uplink.slice(0, 2), 'eth0 has lost its address 2001:db8::1']
] as const)
  test(`an interface that is ${what} is reported`, () =>
    assert.deepEqual(reported(...objects), [`LINK_DOWN: ${expected}`]))

test('a bridge with an address of an earlier subnet is reported with both', () => {
  assert.deepEqual(reported(...uplink, address('cni0', '10.244.9.1/24'), address('cni0', '10.244.1.1/24')), [
    "BRIDGE_FOREIGN: cni0 has 10.244.9.1/24, and this node's subnet is 10.244.1.0/24 (from this node's earlier subnet)"
  ])
})

const bridgeFaultOf = (...objects: readonly KernelObject[]) =>
  checkHost(stateOf([...uplink, ...objects]), dualStackNode(), expectations).BRIDGE_FOREIGN

test('a bridge with an address of another network may be another program’s: a bridge of Weft’s own is the other cure', () => {
  const theirs = bridgeFaultOf(link('cni0', { form: { type: 'bridge' } }), address('cni0', '10.88.0.1/16'))
  assert.equal(theirs?.detail, "cni0 has 10.88.0.1/16, and this node's subnet is 10.244.1.0/24")
  assert.match(theirs?.cure ?? '', /^once nothing has an address of 10\.88\.0\.0\/16, run: ip address del/)
  assert.match(theirs?.cure ?? '', /another program's.*"bridge":"weft0"$/)
  const mac = bridgeMac(dualStackNode().identity, 'cni0')
  const ours = bridgeFaultOf(link('cni0', { form: { type: 'bridge' }, mac }), address('cni0', '10.42.3.1/24'))
  assert.match(ours?.detail ?? '', /\(from this node's earlier subnet\)$/)
  assert.doesNotMatch(ours?.cure ?? '', /weft0/)
})

test('a second link with the gateway of our subnet is reported; Docker alone with it, and gateways of routed pods, are not', () => {
  const both = bridgeFaultOf(address('cni0', '10.244.1.1/24'), address('docker0', '10.244.1.1/24'))
  assert.match(
    both?.detail ?? '',
    /^cni0 and docker0 have 10\.244\.1\.1\/24, the gateway address of this node's subnet/
  )
  assert.match(both?.cure ?? '', /ip link del cni0 or ip link del docker0/)
  assert.equal(bridgeFaultOf(address('docker0', '10.244.1.1/24'), address('veth1', '10.244.1.1/32')), undefined)
})

test('the cure of an interface that was set down says that the host’s own routes are gone', () => {
  const { cure = '' } =
    checkHost(stateOf([link('eth0', { up: false }), ...uplink.slice(1)]), dualStackNode(), expectations).LINK_DOWN ??
    assert.fail()
  assert.match(cure, /routes and pods of Weft are kept, but the kernel has removed .*default route.*ifup eth0/)
})

test('an address in our subnet that is not the gateway of pods refuses them too; one of IPv6 beside theirs does not', () => {
  assert.deepEqual(reported(...uplink, address('cni0', '10.244.1.5/24')), [
    "BRIDGE_FOREIGN: cni0 has 10.244.1.5/24, and this node's subnet is 10.244.1.0/24, whose gateway is 10.244.1.1/24 (from this node's earlier subnet)"
  ])
  assert.deepEqual(reported(...uplink, address('cni0', 'fd01::1/64')), [])
  assert.deepEqual(reported(...uplink, address('cni0', 'fd00:0:0:9::1/64')), [
    'NETWORK_OVERLAPS: the pod network fd00::/48 and fd00:0:0:9::/64 of cni0'
  ])
})

test('Docker with the subnet of an earlier lease is told so, with what to start it with', () => {
  const host = stateOf([...uplink, address('docker0', '10.244.9.1/24')])
  const { detail, cure } = checkHost(host, dualStackNode(), expectations).NETWORK_OVERLAPS ?? assert.fail()
  assert.equal(
    detail,
    "docker0 has 10.244.9.1/24, which is not in this node's subnet 10.244.1.0/24 and may be another node's"
  )
  assert.match(cure, /^restart Docker with --bip=10\.244\.1\.1\/24 /)
})

test('a network of the host that contains our whole subnet is reported, whichever address the host has in it', () => {
  assert.deepEqual(reported(...uplink, address('eth1', '10.244.1.9/20')), [
    'NETWORK_OVERLAPS: the pod network 10.244.0.0/16 and 10.244.0.0/20 of eth1'
  ])
})

test('a network of the host that overlaps the pod network is reported with both, also when it is in our own subnet', () => {
  assert.deepEqual(reported(...uplink, address('eth1', '10.244.7.9/20'), address('eth0', '10.244.1.4/24')), [
    'NETWORK_OVERLAPS: the pod network 10.244.0.0/16 and 10.244.0.0/20 of eth1; the pod network 10.244.0.0/16 and 10.244.1.0/24 of eth0'
  ])
})

const defaultBy = (device: string): KernelObject => ({
  kind: 'route',
  table: 254,
  destination: prefix('0.0.0.0/0'),
  metric: 0,
  type: 'unicast',
  device,
  protocol: 4
})
const forwards = (device: string, value: string): KernelObject => ({
  kind: 'sysctl',
  path: `net/ipv4/conf/${device}/forwarding`,
  value
})

test('an interface by which packets to pods arrive and that does not forward is reported; another is not', () => {
  assert.deepEqual(reported(...uplink, forwards('eth0', '1'), forwards('eth7', '0')), [])
  const objects = [...uplink, defaultBy('wan0.5'), forwards('eth0', '0'), forwards('wan0.5', '0')]
  assert.deepEqual(reported(...objects), [
    'FORWARDING_OFF: net/ipv4/conf/eth0/forwarding=0, net/ipv4/conf/wan0.5/forwarding=0: packets to pods that arrive on eth0 and wan0.5 are dropped'
  ])
  const { cure = '' } = checkHost(stateOf(objects), dualStackNode(), expectations).FORWARDING_OFF ?? assert.fail()
  assert.match(
    cure,
    /sysctl -w net\/ipv4\/conf\/eth0\/forwarding=1 net\/ipv4\/conf\/wan0\.5\/forwarding=1; .*IPv4Forwarding=yes/
  )
})

test('what is looked at is the interface to the nodes and those of default routes, once there is a place', () => {
  const observed = stateOf([...uplink, defaultBy('wan0'), defaultBy('eth0')])
  assert.deepEqual(watchedSysctls(observed, dualStackNode()), ['net/ipv4/conf/eth0/forwarding'])
  assert.deepEqual(watchedSysctls(observed, undefined), [])
  const { device: _, ...several } = defaultBy('') as Route
  const byBgp = stateOf([...uplink, { ...several, nextHops: [{ device: 'eth1' }, { device: 'eth2' }] }])
  assert.deepEqual(watchedSysctls(byBgp, { ...dualStackNode(), device: 'lo' }), [
    'net/ipv4/conf/eth1/forwarding',
    'net/ipv4/conf/eth2/forwarding'
  ])
})

for (const [what, objects, expected] of [
  ['gone', [], /^bring eth0 back/],
  ['set down', [link('eth0', { up: false }), ...uplink.slice(1)], /^run: ip link set eth0 up/],
  ['without carrier', [link('eth0', { carrier: false }), ...uplink.slice(1)], /^check the cable of eth0/],
  ['without its address', uplink.slice(0, 2), /^give eth0 its address 2001:db8::1 back/]
] as const)
  test(`the cure for an interface that is ${what} names it and nothing else`, () => {
    const { cure = '' } = checkHost(stateOf(objects), dualStackNode(), expectations).LINK_DOWN ?? assert.fail()
    assert.match(cure, expected)
    assert.doesNotMatch(cure, /<|the message/)
  })
