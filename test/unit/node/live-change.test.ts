// A network configuration that changes while weftd runs, over a real lease database and a kernel that is a Map: what the
// kernel has in between, what is published, when the earlier one ends, and what a restarted weftd makes of it.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { WeftError } from '../../../daemon/base/error.ts'
import { formatLeaseValue, leaseKey } from '../../../daemon/lease/lease.ts'
import type { Membership, MembershipDeps } from '../../../daemon/node/membership.ts'
import { linkNamed } from '../../../daemon/state/object.ts'
import { formatIp, perFamily } from '../../../ipam/address.ts'
import { until } from '../until.ts'
import { Scene, sqlOf } from './membership-scene.ts'

const conf = (backend: object, network = '10.244.0.0/16') => JSON.stringify({ Network: network, Backend: backend })
const VXLAN = { Type: 'vxlan', DirectRouting: false }
const HOST_GW = { Type: 'host-gw' }
const MAC = '02:00:00:00:00:02'
const vxlanLease = (more: object = { VNI: 1 }) =>
  JSON.stringify({ PublicIP: '192.0.2.2', BackendType: 'vxlan', BackendData: { VtepMAC: MAC, ...more } })
const hostGwLease = JSON.stringify({ PublicIP: '192.0.2.2', BackendType: 'host-gw' })

/** The other node, which publishes this now. */
const publishes = (scene: Scene, value: string, key = '10.244.99.0-24') =>
  sqlOf(
    scene,
    `INSERT INTO lease (key, value, node, revision) VALUES ('${key}', '${value}', 'node-2', 9) ON CONFLICT (key) DO UPDATE SET value = excluded.value`
  )

/** A weftd that reaches the other node. */
async function joined(
  text: string,
  other: string,
  over: Partial<MembershipDeps> = {}
): Promise<{ readonly scene: Scene; readonly network: Membership }> {
  const scene = new Scene()
  scene.file.configure(text)
  publishes(scene, other)
  const network = await scene.join({ changeLookMs: 50, ...over })
  await until(() => wayTo(scene) !== undefined, 'a route to the other node')
  return { scene, network }
}

/** The device of the route to the other node's pods. */
const wayTo = ({ kernel }: Scene, subnet = '10.244.99.0'): string | undefined => {
  for (const object of kernel.objects.values())
    if (object.kind === 'route' && object.protocol === 87 && formatIp(object.destination.ip) === subnet)
      return object.device
  return undefined
}
const devices = ({ kernel }: Scene): readonly string[] =>
  [...kernel.objects.values()].flatMap((object) =>
    object.kind === 'link' && object.name !== 'eth0' ? object.name : []
  )
const published = ({ place }: Membership) => JSON.parse(formatLeaseValue(place?.lease ?? assert.fail('no place')))
const complete = (scene: Scene, ...names: readonly string[]) =>
  until(() => String([...devices(scene)].sort()) === String(names), `${names} alone`)

test('vxlan to host-gw: both are there until the other node has changed, then only the new one', async () => {
  const { scene, network } = await joined(conf(VXLAN), vxlanLease())
  await using _ = scene
  const subnet = leaseKey(network.place?.lease ?? assert.fail('no place'))
  scene.file.configure(conf(HOST_GW))
  await until(() => published(network).BackendType === 'host-gw', 'the new backend in our lease')
  assert.equal(leaseKey(network.place?.lease ?? assert.fail('no place')), subnet)
  assert.deepEqual([...devices(scene)].sort(), ['weft-gw', 'weft.1'])
  assert.equal(wayTo(scene), 'weft.1')
  const said = await until(() => scene.detail('CONFIG_MIXED'), 'the node that has not changed')
  assert.equal(said, 'node-2: reached as before')
  assert.equal(scene.detail('CONFIG_CHANGED'), undefined)
  assert.equal(network.place?.mtu, 1450)
  publishes(scene, hostGwLease)
  await complete(scene, 'weft-gw')
  await until(() => network.place?.mtu === 1500, 'the MTU without a tunnel')
  assert.equal(wayTo(scene), 'eth0')
  assert.equal(scene.detail('CONFIG_MIXED'), undefined)
})

test('host-gw to vxlan, and back before the other node has changed: its route never goes', async () => {
  const { scene, network } = await joined(conf(HOST_GW), hostGwLease)
  await using _ = scene
  const gone: string[] = []
  const { apply } = scene.kernel
  scene.kernel.apply = (changes) => {
    for (const change of changes)
      if (change.do === 'remove' && change.object.kind === 'route') gone.push(formatIp(change.object.destination.ip))
    return apply.call(scene.kernel, changes)
  }
  scene.file.configure(conf(VXLAN))
  await until(() => published(network).BackendType === 'vxlan', 'vxlan in our lease')
  assert.equal(wayTo(scene), 'eth0')
  scene.file.configure(conf(HOST_GW))
  await until(() => published(network).BackendType === 'host-gw', 'host-gw in our lease')
  await complete(scene, 'weft-gw')
  assert.equal(wayTo(scene), 'eth0')
  assert.deepEqual(gone, [])
})

test('another VNI, then another port: a device beside the other each time, with one MAC', async () => {
  const { scene, network } = await joined(conf({ ...VXLAN, Port: 4789 }), vxlanLease({ VNI: 1, Port: 4789 }))
  await using _ = scene
  const { VtepMAC } = published(network).BackendData
  scene.file.configure(conf({ ...VXLAN, VNI: 7, Port: 4789 }))
  await until(() => published(network).BackendData.VNI === 7, 'the new VNI in our lease')
  assert.deepEqual([...devices(scene)].sort(), ['weft.1', 'weft.7'])
  assert.equal(wayTo(scene), 'weft.1')
  publishes(scene, vxlanLease({ VNI: 7, Port: 4789 }))
  await complete(scene, 'weft.7')
  assert.equal(wayTo(scene), 'weft.7')
  scene.file.configure(conf({ ...VXLAN, VNI: 7, Port: 4790 }))
  await until(() => published(network).BackendData.Port === 4790, 'the new port in our lease')
  assert.deepEqual([...devices(scene)].sort(), ['weft.7', 'weft.7b'])
  publishes(scene, vxlanLease({ VNI: 7, Port: 4790 }))
  await complete(scene, 'weft.7b')
  assert.equal(wayTo(scene), 'weft.7b')
  assert.equal(published(network).BackendData.VtepMAC, VtepMAC)
  // Published no more, and still where the other node sends to.
  scene.file.configure(conf(HOST_GW))
  await until(() => published(network).BackendType === 'host-gw', 'host-gw in our lease')
  assert.equal(linkNamed(scene.kernel.objects, 'weft.7b')?.mac, VtepMAC)
  scene.file.configure(conf({ ...VXLAN, VNI: 7, Port: 4790 }))
  await until(() => published(network).BackendData?.VtepMAC === VtepMAC, 'the MAC in our lease again')
})

test('a node that has changed earlier than this one is reached as before until this one changes too', async () => {
  const { scene, network } = await joined(conf(VXLAN), vxlanLease())
  await using _ = scene
  publishes(scene, hostGwLease)
  await until(() => scene.peers.leases.get('10.244.99.0-24')?.backendType === 'host-gw', 'its new lease')
  await scene.reconciler.want('nothing', [])
  assert.equal(wayTo(scene), 'weft.1')
  scene.file.configure(conf(HOST_GW))
  await until(() => wayTo(scene) === 'eth0', 'the new way')
  await complete(scene, 'weft-gw')
  assert.equal(published(network).BackendType, 'host-gw')
})

test('MTU, DirectRouting and a larger Network are set at once; nothing is published anew', async () => {
  const { scene, network } = await joined(conf(VXLAN), vxlanLease())
  await using _ = scene
  const { lease } = network.place ?? assert.fail('no place')
  scene.file.configure(conf({ ...VXLAN, MTU: 1400 }))
  await until(() => network.place?.mtu === 1350, 'the MTU')
  const mtu = () => linkNamed(scene.kernel.objects, 'weft.1')?.mtu
  await until(() => mtu() === 1350, 'the MTU of the device')
  scene.file.configure(conf({ ...VXLAN, MTU: 1400, DirectRouting: true }))
  await until(() => wayTo(scene) === 'eth0', 'the direct route')
  publishes(scene, vxlanLease().replace('192.0.2.2', '192.0.2.3').replace(MAC, '02:00:00:00:00:03'), '10.245.7.0-24')
  scene.file.configure(conf({ ...VXLAN, MTU: 1400, DirectRouting: true }, '10.244.0.0/15'))
  await until(() => wayTo(scene, '10.245.7.0') === 'eth0', 'the route into the larger network')
  assert.equal(formatLeaseValue(network.place?.lease ?? assert.fail('no place')), formatLeaseValue(lease))
  assert.deepEqual(network.place?.earlier, [])
  assert.equal(scene.detail('CONFIG_CHANGED'), undefined)
})

for (const [what, from, to, other, reason, cure] of [
  [
    'GBP',
    VXLAN,
    { ...VXLAN, GBP: true },
    vxlanLease(),
    /the kernel sets gbp of weft\.1 only when it makes it/,
    /^restore/
  ],
  [
    'a port, where a lease does not say which it uses',
    VXLAN,
    { ...VXLAN, Port: 4789 },
    vxlanLease({ VNI: 1 }),
    /the leases of node-2 do not say which of the two they use/,
    /^restore/
  ],
  [
    'the default port, which no lease names',
    { ...VXLAN, Port: 4789 },
    VXLAN,
    vxlanLease({ VNI: 1, Port: 4789 }),
    /this node's lease would not say which of the two it uses/,
    /^restore/
  ],
  [
    'a backend that does not reach the other node',
    VXLAN,
    HOST_GW,
    vxlanLease().replace('192.0.2.2', '198.51.100.2'),
    /node-2 can't be reached by host-gw, not being on the link of eth0/,
    /drain each node and restart weftd there/
  ]
] as const)
  test(`not taken while pods run: ${what}`, async () => {
    const { scene, network } = await joined(conf(from), other)
    await using _ = scene
    const before = formatLeaseValue(network.place?.lease ?? assert.fail('no place'))
    scene.file.configure(conf(to))
    assert.match(await until(() => scene.detail('CONFIG_CHANGED'), 'the condition'), reason)
    assert.match(scene.health.active().find(({ code }) => code === 'CONFIG_CHANGED')?.cure ?? '', cure)
    assert.equal(formatLeaseValue(network.place?.lease ?? assert.fail('no place')), before)
    assert.deepEqual(devices(scene), ['weft.1'])
    assert.equal(scene.health.blocking('add'), undefined)
    scene.file.configure(conf(from))
    await until(() => scene.detail('CONFIG_CHANGED') === undefined, 'the end of the condition')
  })

for (const [what, from, to, reason] of [
  ['comes', {}, { EnableIPv6: true, IPv6Network: 'fd00:10::/48' }, /this node's lease has no IPv6 subnet/],
  ['is another Network', {}, { Network: '10.9.0.0/16' }, /this node's subnet .* would not fit any more/],
  ['is a smaller Network', {}, { Network: '10.244.0.0/18' }, /node-2 would lie outside Network|would not fit any more/],
  ['has another SubnetLen', {}, { SubnetLen: 25 }, /would not fit any more, and 3 pods would be cut off/]
] as const)
  test(`not taken while pods run: what ${what}`, async () => {
    const text = (more: object) => JSON.stringify({ Network: '10.244.0.0/16', Backend: HOST_GW, ...more })
    const { scene, network } = await joined(text(from), hostGwLease, { pods: () => 3 })
    await using _ = scene
    const { lease } = network.place ?? assert.fail('no place')
    scene.file.configure(text(to))
    assert.match(await until(() => scene.detail('CONFIG_CHANGED'), 'the condition'), reason)
    assert.equal(network.place?.lease, lease)
    assert.equal(wayTo(scene), 'eth0')
  })

test('a kernel that lacks what the new backend needs: not taken, with what is missing', async () => {
  const missing = async (features: readonly unknown[]) =>
    features.length === 0 ? [] : [new WeftError('KERNEL_FEATURE', 'no vxlan in this kernel', 'load it')]
  const { scene } = await joined(conf(HOST_GW), hostGwLease, { missing })
  await using _ = scene
  scene.file.configure(conf(VXLAN))
  assert.match(await until(() => scene.detail('CONFIG_CHANGED'), 'the condition'), /no vxlan in this kernel/)
  assert.deepEqual(devices(scene), ['weft-gw'])
})

test('a weftd that is killed while the other node has not changed goes on from there', async () => {
  const { scene, network } = await joined(conf(VXLAN), vxlanLease())
  scene.file.configure(conf(HOST_GW))
  await until(() => published(network).BackendType === 'host-gw', 'the new backend in our lease')
  await scene.stop()
  await using next = new Scene(scene.folder)
  for (const [key, object] of scene.kernel.objects) next.kernel.objects.set(key, object)
  const again = await next.join({ changeLookMs: 50 })
  assert.equal(perFamily(again.place?.node.subnet ?? {}).length, 1)
  await until(() => next.reconciler.trusts, 'the list of the store')
  assert.equal(wayTo(next), 'weft.1')
  assert.deepEqual([...devices(next)].sort(), ['weft-gw', 'weft.1'])
  publishes(next, hostGwLease)
  await complete(next, 'weft-gw')
  assert.equal(wayTo(next), 'eth0')
})

test('a configuration that changed while no weftd ran: nodes that use the earlier one are reached', async () => {
  const { scene } = await joined(conf(VXLAN), vxlanLease())
  await scene.stop()
  await using next = new Scene(scene.folder)
  for (const [key, object] of scene.kernel.objects) next.kernel.objects.set(key, object)
  next.file.configure(conf(HOST_GW))
  const network = await next.join({ changeLookMs: 50 })
  await until(() => next.reconciler.trusts, 'the list of the store')
  assert.equal(published(network).BackendType, 'host-gw')
  assert.equal(wayTo(next), 'weft.1')
  publishes(next, hostGwLease)
  await complete(next, 'weft-gw')
})

for (const [from, to] of [
  [VXLAN, { Type: 'wireguard' }],
  [VXLAN, { Type: 'udp' }],
  [{ Type: 'ipip' }, VXLAN]
] as const)
  test(`${from.Type} to ${to.Type} is for a restart: one of them serves no nodes of the other`, async () => {
    const scene = new Scene()
    scene.file.configure(conf(from))
    const network = await scene.join({ changeLookMs: 50 })
    await using _ = scene
    scene.file.configure(conf(to))
    const said = await until(() => scene.detail('CONFIG_CHANGED'), 'the refusal')
    assert.ok(said.includes(`${to === VXLAN ? 'ipip' : to.Type} can't reach nodes of both configurations`), said)
    assert.equal(network.place?.backend.type, from.Type)
  })
