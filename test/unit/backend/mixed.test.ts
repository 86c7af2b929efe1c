// Two configurations at once: the devices of both, and for each node the objects of the one that its lease is of.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { mixed } from '../../../daemon/backend/mixed.ts'
import { BACKENDS, registry } from '../../../daemon/backend/registry.ts'
import { parseLease } from '../../../daemon/lease/lease.ts'
import { formatIp, parsePrefix } from '../../../ipam/address.ts'
import { testNode } from '../test-node.ts'

const backends = registry(BACKENDS)
const tunnel = backends.configure('vxlan', { DirectRouting: false })
const plain = backends.configure('host-gw', {})
const node = testNode()
const lease = (backendType: string, data?: object) =>
  parseLease('10.244.2.0-24', JSON.stringify({ PublicIP: '192.0.2.2', BackendType: backendType, BackendData: data }))
const tunnelled = lease('vxlan', { VNI: 1, VtepMAC: '02:00:00:00:00:02', Port: 8472 })
const direct = lease('host-gw')
const both = mixed(plain, [tunnel])
const subnet = parsePrefix('10.244.2.0/24') ?? assert.fail()

test('without an earlier configuration it is the backend itself', () => assert.equal(mixed(plain, []), plain))

test('each node is reached by the configuration that its lease is of', () => {
  const routes = { 4: { device: 'eth0' } }
  assert.deepEqual(both.peer(tunnelled, node, routes), tunnel.peer(tunnelled, node, routes))
  assert.deepEqual(both.peer(direct, node, routes), plain.peer(direct, node, routes))
  assert.equal(formatIp(both.held(subnet, tunnelled)), '10.244.2.0')
  assert.equal(formatIp(both.held(subnet, direct)), '10.244.2.1')
  assert.deepEqual([tunnelled, direct, lease('udp')].map(both.serves), [true, true, false])
})

test('this node has the devices and ports of both, publishes the current one, and pods get the smaller MTU', () => {
  const links = both.own(node).flatMap((object) => (object.kind === 'link' ? object.name : []))
  assert.deepEqual(links, ['weft.1', 'weft-gw'])
  assert.deepEqual(both.ports, tunnel.ports)
  assert.deepEqual(both.publish(node), {})
  assert.equal(both.type, 'host-gw')
  assert.equal(both.mtu(node), 1450)
  assert.deepEqual(both.features, tunnel.features)
})

test('of an object that both want, the current one counts', () => {
  const smaller = backends.configure('vxlan', { MTU: 1400 })
  const there = tunnel.own(node).filter((object) => object.kind === 'link')
  const links = mixed(smaller, [tunnel]).own({ ...node, links: there })
  const mtus = links.flatMap((object) => (object.kind === 'link' ? [object.mtu] : []))
  assert.deepEqual(mtus, [1350])
})

test('vxlan: a lease without a port can be of any port; with another port or VNI it is of another configuration', () => {
  const data = { VNI: 1, VtepMAC: '02:00:00:00:00:02' }
  const other = backends.configure('vxlan', { Port: 4789 })
  assert.deepEqual([tunnel.serves(lease('vxlan', data)), other.serves(lease('vxlan', data))], [true, true])
  assert.deepEqual([tunnel.serves(tunnelled), other.serves(tunnelled)], [true, false])
  assert.equal(backends.configure('vxlan', { VNI: 2 }).serves(tunnelled), false)
  assert.throws(() => other.peer(tunnelled, node), /is on port 8472, and this network's is 4789/)
})
