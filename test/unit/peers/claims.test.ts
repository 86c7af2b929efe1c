// What leases of other nodes must not claim: another's addresses, our subnet and address, what this host has.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Health } from '../../../daemon/health/health.ts'
import { type Lease, leaseKey, parseLease } from '../../../daemon/lease/lease.ts'
import { type KernelObject, keyOf, type Route } from '../../../daemon/state/object.ts'
import { ROUTE_PROTOCOL } from '../../../daemon/state/ownership.ts'
import { MapKernel } from '../map-kernel.ts'
import { testNode } from '../test-node.ts'
import { until } from '../until.ts'
import { active, backends, eth0, followed, ip, lease, own, prefix, skipped } from './peers-scene.ts'

test('a younger lease takes no addresses of an older one, and gets its own once that is gone', async () => {
  const at = await followed(new MapKernel([eth0]), 60_000)
  await at.peers.settle(own('10.244.0.0/16'))
  const older = lease(2, { created: 10 })
  const [half, one] = ['10.244.2.128/25', '10.244.2.7/32'].map((text, n) =>
    lease(3 + n, { created: 20 + n, subnet: { 4: prefix(text) } })
  )
  assert.ok(half && one)
  at.send({ kind: 'list', leases: [lease(1, { created: 5 }), half, one] })
  await until(() => at.routes().length === 2, 'both, which share nothing')
  at.send({ kind: 'put', lease: older })
  await until(() => at.routes().join() === '10.244.2.0/24', 'the older one alone')
  assert.match(skipped(at, one), /is younger than lease 10\.244\.2\.0-24, which keeps its addresses$/)
  assert.ok(active(at.health).includes('SUBNET_CONFLICT'))
  at.send({ kind: 'gone', key: leaseKey(older) })
  await until(() => at.routes().length === 2, 'both again')
  assert.equal(active(at.health).includes('SUBNET_CONFLICT'), false)
})

test('another node’s lease with our podCIDR or our address is never taken for our own', async () => {
  const at = await followed(new MapKernel([eth0]), 60_000)
  await at.peers.settle({ ...own('10.244.0.0/16'), lease: lease(1, { node: 'node-1', created: 5 }) })
  const older = lease(1, {
    node: 'other',
    created: 1,
    publicIp: { 4: ip('192.0.2.9') },
    rivals: [lease(1, { node: 'node-1' })]
  })
  const twin = lease(2, { node: 'twin', created: 9, publicIp: { 4: ip('192.0.2.1') } })
  at.send({ kind: 'list', leases: [older, twin, lease(3, { node: 'third' })] })
  await until(() => at.routes().join() === '10.244.3.0/24', 'the third node alone')
  assert.deepEqual(
    [older, twin].map((each) => at.peers.isOwn(leaseKey(each))),
    [false, false]
  )
  assert.match(skipped(at, twin), /publishes our own address 192\.0\.2\.1$/)
  assert.match(at.health.active().find(({ code }) => code === 'SUBNET_CONFLICT')?.detail ?? '', /other.*node-1/)
})

test('a lease that covers a network of this host is skipped by name while the host has it, and the route is given back', async () => {
  const address: KernelObject = { kind: 'address', device: 'eth0', prefix: prefix('192.0.2.1/24') }
  const replaced: KernelObject = {
    ...({ kind: 'route', table: 254, destination: prefix('192.0.2.0/24'), metric: 0, type: 'unicast' } as const),
    ...{ device: 'eth0', gateway: ip('192.0.2.9'), protocol: ROUTE_PROTOCOL }
  }
  const kernel = new MapKernel([eth0, address, replaced])
  const at = await followed(kernel, 60_000, false)
  const covering = lease(9, { subnet: { 4: prefix('192.0.2.0/24') } })
  at.send({ kind: 'list', leases: [covering, lease(8, { subnet: { 4: prefix('192.0.3.0/24') } })] })
  await until(() => at.peers.isListed, 'the list')
  await at.peers.settle({ ...own('192.0.0.0/16'), node: testNode({ subnet: { 4: prefix('192.0.7.0/24') } }) })
  await until(() => at.routes().join() === '192.0.2.0/24,192.0.3.0/24', 'the other one')
  const route = () => kernel.objects.get(keyOf(replaced)) as Route
  assert.deepEqual([route().protocol, route().source], [2, ip('192.0.2.1')])
  assert.match(
    at.health.active().find(({ code }) => code === 'LEASE_MALFORMED')?.detail ?? '',
    /192\.0\.2\.0-24 covers 192\.0\.2\.0\/24/
  )
  assert.match(cureOf(at.health), /^choose a Network without the networks of hosts.*restart weftd on the node of 192\./)
  const later: KernelObject = { kind: 'address', device: 'eth0', prefix: prefix('192.0.3.1/24') }
  kernel.change(later, keyOf(later))
  await until(() => at.routes().join() === '192.0.2.0/24', 'the lease that covers the later network to be refused')
  kernel.change(undefined, keyOf(later))
  await until(() => at.routes().includes('192.0.3.0/24'), 'the lease again')
})

const cureOf = (health: Health) => health.active().find(({ code }) => code === 'LEASE_MALFORMED')?.cure ?? ''

test('a lease outside the network is of a node with another configuration: it is not to be deleted', async () => {
  const at = await followed(new MapKernel([eth0]), 60_000)
  at.send({ kind: 'list', leases: [lease(2), lease(9, { subnet: { 4: prefix('10.42.9.0/24') } })] })
  await until(() => cureOf(at.health) !== '', 'the condition')
  assert.match(cureOf(at.health), /^restart weftd on the node of 192\.0\.2\.9, which still uses another configuration/)
})

test('a lease of what the bridge has from an earlier subnet is not malformed', async () => {
  const kernel = new MapKernel([eth0])
  const at = await followed(kernel, 60_000)
  at.send({ kind: 'list', leases: [lease(2), lease(3)] })
  await until(() => at.routes().length === 2, 'both')
  const old: KernelObject = { kind: 'address', device: 'cni0', prefix: prefix('10.244.3.1/24') }
  kernel.change(old, keyOf(old))
  await until(() => at.routes().join() === '10.244.2.0/24', 'the other one alone')
  assert.match(skipped(at, lease(3)), /covers 10\.244\.3\.0\/24, an earlier subnet of this node .*BRIDGE_FOREIGN/)
  assert.equal(active(at.health).includes('LEASE_MALFORMED'), false)
})

test('a lease that publishes an address of this host is refused by name, and used once the host does not have it', async () => {
  const kernel = new MapKernel([eth0])
  const at = await followed(kernel, 60_000)
  at.send({ kind: 'list', leases: [lease(2), lease(3)] })
  await until(() => at.routes().length === 2, 'both')
  const virtual: KernelObject = { kind: 'address', device: 'eth0', prefix: prefix('192.0.2.3/32') }
  kernel.change(virtual, keyOf(virtual))
  await until(() => at.routes().join() === '10.244.2.0/24', 'the other one alone')
  const detail = at.health.active().find(({ code }) => code === 'LEASE_MALFORMED')?.detail ?? ''
  assert.match(detail, /^lease 10\.244\.3\.0-24 publishes 192\.0\.2\.3, an address of eth0 on this host; /)
  kernel.change(undefined, keyOf(virtual))
  await until(() => at.routes().length === 2, 'both again')
  assert.equal(active(at.health).includes('LEASE_MALFORMED'), false)
})

test('our key in another node’s hands is not ours: by its backend data, else once the store reports the loss', async () => {
  const tunnel = (n: number): Partial<Lease> => ({
    ...{ backendType: 'vxlan', backendData: { 4: { VNI: 1, VtepMAC: `02:00:00:00:00:0${n}` } } }
  })
  for (const data of [() => ({}), tunnel]) {
    const at = await followed(new MapKernel([eth0]), 60_000)
    const [ours, theirs] = [lease(1, data(1)), lease(1, { ...data(9), publicIp: { 4: ip('192.0.2.9') } })]
    const backend = backends.configure(ours.backendType, {})
    await at.peers.settle({ ...own('10.244.0.0/16'), backend, lease: ours })
    at.send({ kind: 'list', leases: [ours, lease(2, data(2))] })
    await until(() => at.peers.isOwn(leaseKey(ours)), 'our lease')
    if (data !== tunnel) at.health.raise('LEASE_LOST', 'another node has it')
    at.send({ kind: 'put', lease: theirs })
    await until(() => skipped(at, ours) !== '', 'the loss')
    assert.equal(at.peers.isOwn(leaseKey(ours)), false)
    assert.match(skipped(at, ours), /^lease 10\.244\.1\.0-24, our subnet, is that of 192\.0\.2\.9$/)
    assert.equal(active(at.health).includes('LEASE_MALFORMED'), false)
    at.send({ kind: 'put', lease: ours })
    await until(() => at.peers.isOwn(leaseKey(ours)), 'our lease again')
    await until(() => skipped(at, ours) === '', 'nothing to be skipped')
  }
})

test('whoever writes a lease nested a thousandfold does not end weftd on the other nodes', async () => {
  const at = await followed(new MapKernel([eth0]), 60_000)
  await at.peers.settle({ ...own('10.244.0.0/16'), backend: backends.configure('vxlan', {}) })
  const nested = `${'{"0":'.repeat(30_000)}1${'}'.repeat(30_000)}`
  const value = (n: number, more = '') =>
    `{"PublicIP":"192.0.2.${n}","BackendType":"vxlan","BackendData":{"VtepMAC":"02:00:00:00:00:01"${more}}}`
  // Equally old, so that their values decide, which have to be printed for that.
  const created = (n: number, more?: string) => ({ ...parseLease(`10.244.${n}.0-24`, value(n, more)), created: 7 })
  assert.throws(() => parseLease('10.244.3.0-24', value(3, `,"x":${nested}`)), {
    ...{ code: 'LEASE_MALFORMED', message: /it must be JSON with at most 64 arrays and objects inside each other$/ }
  })
  const deepest = `,"x":${'['.repeat(62)}"]]{{"${']'.repeat(62)}`
  at.send({ kind: 'list', leases: [created(2), created(3, deepest)] })
  await until(() => active(at.health).includes('VTEP_MAC_CONFLICT'), 'the conflict between the two')
  assert.equal(at.peers.skipped.size, 1, 'one of them')
})
