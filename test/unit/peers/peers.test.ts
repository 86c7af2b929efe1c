// Other nodes' leases: the objects for each, and routes kept while most leases are suddenly missing.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { WeftError } from '../../../daemon/base/error.ts'
import { leaseKey } from '../../../daemon/lease/lease.ts'
import type { KernelObject, Route } from '../../../daemon/state/object.ts'
import { MapKernel } from '../map-kernel.ts'
import { testNode } from '../test-node.ts'
import { until } from '../until.ts'
import { active, backends, eth0, followed, ip, lease, prefix, staleRoute } from './peers-scene.ts'

test('each peer of a list gets its route, our own lease none; a later put and gone are followed', async () => {
  const { send, routes } = await followed(new MapKernel([eth0]), 60_000)
  send({ kind: 'list', leases: [lease(1), lease(2), lease(3)] })
  await until(() => routes().length === 2, 'two routes')
  assert.deepEqual(routes(), ['10.244.2.0/24', '10.244.3.0/24'])
  send({ kind: 'put', lease: lease(4) }, { kind: 'gone', key: leaseKey(lease(2)) })
  await until(() => routes().join() === '10.244.3.0/24,10.244.4.0/24', 'the change')
})

test('a stale route is removed after the first complete list', async () => {
  const { send, routes } = await followed(new MapKernel([eth0, staleRoute(9)]), 60_000)
  assert.deepEqual(routes(), ['10.244.9.0/24'])
  send({ kind: 'list', leases: [lease(2)] })
  await until(() => routes().join() === '10.244.2.0/24', 'the stale route to go')
})

test('a list without other nodes removes nothing until it has lasted for the set time', async () => {
  const { send, routes, health } = await followed(new MapKernel([eth0]), 150)
  send({ kind: 'list', leases: [lease(1), lease(2), lease(3)] })
  await until(() => routes().length === 2, 'two routes')
  send({ kind: 'list', leases: [lease(1)] })
  await until(() => active(health).includes('LIST_DOUBTED'), 'the doubt')
  assert.equal(routes().length, 2)
  await until(() => routes().length === 0, 'confirmation')
  assert.equal(active(health).includes('LIST_DOUBTED'), false)
})

test('leases that come back clear the condition, and nothing was lost', async () => {
  const { send, routes, health } = await followed(new MapKernel([eth0]), 60_000)
  send({ kind: 'list', leases: [lease(2), lease(3)] })
  await until(() => routes().length === 2, 'two routes')
  send({ kind: 'list', leases: [] })
  await until(() => active(health).includes('LIST_DOUBTED'), 'the doubt')
  send({ kind: 'put', lease: lease(2) }, { kind: 'put', lease: lease(3) })
  await until(() => !active(health).includes('LIST_DOUBTED'), 'the end of the doubt')
  assert.equal(routes().length, 2)
})

test('a list without our own lease is doubted, however many others it has, and so is the next one that lacks the same leases', async () => {
  const { send, routes, health } = await followed(new MapKernel([eth0]), 60_000)
  send({ kind: 'list', leases: [lease(1), lease(2), lease(3), lease(4)] })
  await until(() => routes().length === 3, 'three routes')
  send({ kind: 'list', leases: [lease(3), lease(4)] })
  await until(() => active(health).includes('LIST_DOUBTED'), 'the doubt')
  send({ kind: 'list', leases: [lease(1), lease(3), lease(4), lease(5)] })
  await until(() => routes().includes('10.244.5.0/24'), 'a new lease')
  assert.deepEqual(routes(), ['10.244.2.0/24', '10.244.3.0/24', '10.244.4.0/24', '10.244.5.0/24'])
  send({ kind: 'put', lease: lease(2) })
  await until(() => !active(health).includes('LIST_DOUBTED'), 'the end of the doubt')
  send({ kind: 'list', leases: [lease(1), lease(3), lease(4), lease(5)] })
  await until(() => !routes().includes('10.244.2.0/24'), 'the lease to be believed gone')
})

test('most leases deleted one by one, but at once, are kept as with a list without them; a few are believed', async () => {
  const { send, routes, health } = await followed(new MapKernel([eth0]), 60_000)
  const leases = [2, 3, 4, 5, 6, 7, 8].map((n) => lease(n))
  send({ kind: 'list', leases })
  await until(() => routes().length === 7, 'seven routes')
  send(...leases.slice(0, 2).map((one) => ({ kind: 'gone', key: leaseKey(one) }) as const))
  await until(() => routes().length === 5, 'two to go')
  send(...leases.slice(2, 6).map((one) => ({ kind: 'gone', key: leaseKey(one) }) as const))
  await until(() => active(health).includes('LIST_DOUBTED'), 'the doubt')
  assert.equal(routes().length, 5)
  send(...leases.slice(2, 6).map((one) => ({ kind: 'put', lease: one }) as const))
  await until(() => !active(health).includes('LIST_DOUBTED'), 'the end of the doubt')
  assert.equal(routes().length, 5)
})

test('at start an empty list does not remove what the kernel still has', async () => {
  const { send, routes, health } = await followed(new MapKernel([eth0, staleRoute(2), staleRoute(3)]), 150)
  send({ kind: 'list', leases: [lease(1)] })
  await until(() => active(health).includes('LIST_DOUBTED'), 'the doubt')
  assert.equal(routes().length, 2)
  await until(() => routes().length === 0, 'confirmation')
})

test('at start routes of the network before a change of Network, and to pods here, say nothing about the list', async () => {
  const route = (destination: string): KernelObject => ({ ...staleRoute(2), destination: prefix(destination) }) as Route
  const before = ['10.99.2.0/24', '10.99.3.0/24', '10.99.4.0/24', '10.99.5.0/24', '10.244.1.9/32'].map(route)
  const { send, routes, health } = await followed(new MapKernel([eth0, ...before]), 60_000)
  send({ kind: 'list', leases: [lease(1)] })
  await until(() => routes().length === 0, 'all to go')
  assert.equal(active(health).includes('LIST_DOUBTED'), false)
})

test('an invalid lease is reported and skipped, and the others are served', async () => {
  const { send, routes, health } = await followed(new MapKernel([eth0]), 60_000)
  const error = new WeftError('LEASE_MALFORMED', 'the value of 10.244.8.0-24 is not JSON', 'delete it')
  send(
    { kind: 'malformed', key: '10.244.8.0-24', error },
    { kind: 'list', leases: [lease(2), lease(5, { publicIp: { 4: ip('224.0.0.5') } }), lease(3)] }
  )
  await until(() => routes().length === 2, 'the two good ones')
  assert.match(
    health.active().find((condition) => condition.code === 'LEASE_MALFORMED')?.detail ?? '',
    /10\.244\.(8|5)\.0/
  )
})

test('a lease outside the network, and one with an address that nothing can be sent to, divert no traffic', async () => {
  const { send, routes, health } = await followed(new MapKernel([eth0]), 60_000)
  send({
    kind: 'list',
    leases: [
      lease(2, { subnet: { 4: prefix('172.16.0.0/12') } }),
      lease(4, { publicIp: { 4: ip('224.0.0.1') } }),
      lease(3)
    ]
  })
  await until(() => routes().join() === '10.244.3.0/24', 'the one that fits')
  assert.match(
    health.active().find((condition) => condition.code === 'LEASE_MALFORMED')?.detail ?? '',
    /outside the network 10\.244\.0\.0\/16/
  )
})

test('a lease that could not be served is no longer reported once it can be', async () => {
  const { send, routes, health, peers } = await followed(new MapKernel([eth0]), 60_000)
  send({ kind: 'list', leases: [lease(5, { subnet: { 4: prefix('10.7.5.0/24') } })] })
  await until(() => active(health).includes('LEASE_MALFORMED'), 'the condition')
  await peers.settle({
    node: testNode(),
    backend: backends.configure('host-gw', {}),
    networks: { 4: prefix('10.0.0.0/8') }
  })
  await until(() => routes().join() === '10.7.5.0/24', 'the route')
  assert.equal(active(health).includes('LEASE_MALFORMED'), false)
})

test('host-gw: a node that the kernel reaches through a router is named, and gets its route once it is on the link', async () => {
  const kernel = new MapKernel([eth0])
  const { send, routes, health, peers } = await followed(kernel, 60_000)
  const key = leaseKey(lease(5))
  kernel.routes.set('192.0.2.5', { device: 'eth0', gateway: ip('192.0.2.254') })
  send({ kind: 'list', leases: [lease(5, { node: 'n5' }), lease(6), lease(3)] })
  await until(() => routes().length === 2, 'the others')
  const condition = health.active().find(({ code }) => code === 'PEER_OFF_LINK')
  assert.match(
    condition?.detail ?? '',
    /^n5 \(192\.0\.2\.5, subnet 10\.244\.5\.0-24\) .* eth0: the kernel's route to it is via 192\.0\.2\.254 dev eth0$/
  )
  assert.match(condition?.cure ?? '', /Backend\.Type to vxlan/)
  assert.equal(active(health).includes('LEASE_MALFORMED'), false, 'nothing is wrong with the lease')
  kernel.routes.delete('192.0.2.5')
  await peers.reroute([key])
  assert.deepEqual(routes(), ['10.244.3.0/24', '10.244.5.0/24', '10.244.6.0/24'])
  assert.equal(active(health).includes('PEER_OFF_LINK'), false)
  kernel.routes.set('192.0.2.5', undefined)
  await peers.reroute([key])
  assert.equal(routes().length, 3, 'no route at the moment: nothing better is known')
  kernel.routes.set('192.0.2.5', { device: 'eth1' })
  await peers.reroute([key])
  assert.deepEqual(routes(), ['10.244.3.0/24', '10.244.6.0/24'])

  for (const address of ['192.0.2.3', '192.0.2.7']) kernel.routes.set(address, new Error('ENOBUFS'))
  send({ kind: 'put', lease: lease(7) }, { kind: 'put', lease: lease(8) })
  await until(() => routes().includes('10.244.8.0/24'), 'the one that was asked for together with one that failed')
  await peers.reroute([leaseKey(lease(3))])
  assert.deepEqual(routes(), ['10.244.3.0/24', '10.244.6.0/24', '10.244.8.0/24'], 'an error keeps the answer of before')
  kernel.routes.delete('192.0.2.7')
  await peers.reroute([])
  assert.ok(routes().includes('10.244.7.0/24'), 'what was not answered is asked for again')
})

test('thousands of nodes are asked for in shares, and only by a backend that depends on it', async () => {
  const kernel = new MapKernel([eth0])
  const asked: number[] = []
  const { routesTo } = kernel
  kernel.routesTo = (ips) => {
    asked.push(ips.length)
    return routesTo.call(kernel, ips)
  }
  const { send, routes, peers } = await followed(kernel, 60_000)
  const leases = Array.from({ length: 250 }, (_, n) => lease(n, { publicIp: { 4: ip(`192.0.2.${n + 2}`) } }))
  send({ kind: 'list', leases: leases.filter((_, n) => n !== 1) })
  await until(() => routes().length === 249, 'the routes')
  assert.deepEqual(asked.splice(0), [100, 100, 49])
  send({ kind: 'put', lease: lease(7, { publicIp: { 4: ip('192.0.2.9') } }) })
  await peers.reroute([leaseKey(lease(9))])
  assert.deepEqual(asked.splice(0), [1], 'what is known is not asked for at each event')
  await peers.settle({
    node: testNode(),
    backend: backends.configure('vxlan', { DirectRouting: false }),
    networks: { 4: prefix('10.244.0.0/16') }
  })
  await peers.reroute(leases.map(leaseKey))
  assert.deepEqual(asked, [])
})

test('before our place is known nothing counts as stale, however the lists change', async () => {
  const kernel = new MapKernel([eth0, staleRoute(2), staleRoute(3)])
  const { send, routes, health } = await followed(kernel, 30, false)
  send({ kind: 'list', leases: [lease(2), lease(3)] }, { kind: 'list', leases: [] })
  await until(() => active(health).includes('LIST_DOUBTED'), 'the doubt')
  send({ kind: 'list', leases: [lease(2), lease(3)] })
  await until(() => !active(health).includes('LIST_DOUBTED'), 'the end of the doubt')
  await new Promise((resolve) => setTimeout(resolve, 80))
  assert.equal(routes().length, 2)
})

test('an error while following rejects', async () => {
  const { send, following } = await followed(new MapKernel([eth0]), 60_000)
  send({ kind: 'put', lease: { ...lease(2), subnet: undefined as never } })
  await assert.rejects(following)
})

test('a lease of another backend and one that overlaps ours are ignored', async () => {
  const { send, routes, health } = await followed(new MapKernel([eth0]), 60_000)
  send({
    kind: 'list',
    leases: [
      lease(2, { backendType: 'vxlan' }),
      lease(1, { publicIp: { 4: ip('192.0.2.77') }, subnet: { 4: prefix('10.244.0.0/16') } }),
      lease(3)
    ]
  })
  await until(() => routes().join() === '10.244.3.0/24', 'the one that fits')
  assert.match(health.active().find((condition) => condition.code === 'LEASE_MALFORMED')?.detail ?? '', /overlaps/)
})

test("a peer with our own VTEP MAC, and two peers with one another's, are reported while it lasts", async () => {
  const { send, health } = await followed(new MapKernel([eth0]), 60_000)
  const detail = () => health.active().find(({ code }) => code === 'VTEP_MAC_CONFLICT')?.detail ?? ''
  const tunnel = (n: number, mac: string) =>
    lease(n, { backendType: 'vxlan', backendData: { 4: { VNI: 1, VtepMAC: mac } } })
  const [mac, other] = ['02:00:00:00:00:01', '02:00:00:00:00:02']
  send({ kind: 'list', leases: [tunnel(1, mac), tunnel(2, mac)] })
  await until(() => /192\.0\.2\.1.*192\.0\.2\.2/.test(detail()), 'ours and the peer’s')
  send({ kind: 'put', lease: tunnel(2, other) }, { kind: 'put', lease: tunnel(3, other) })
  await until(() => /192\.0\.2\.2.*192\.0\.2\.3/.test(detail()), 'the two peers')
  send({ kind: 'gone', key: leaseKey(tunnel(3, other)) })
  await until(() => detail() === '', 'the end')
})
