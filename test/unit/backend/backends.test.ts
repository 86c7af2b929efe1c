// Backends: leases and configuration in, kernel objects as text of `ip` and `bridge` out.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BACKENDS, registry } from '../../../daemon/backend/registry.ts'
import type { JsonObject } from '../../../daemon/config/json.ts'
import { parseNetConf } from '../../../daemon/config/net-conf.ts'
import type { Lease } from '../../../daemon/lease/lease.ts'
import type { Node } from '../../../daemon/state/node.ts'
import { LEAST_MTU } from '../../../daemon/state/node.ts'
import { type KernelObject, keyOf, type Link, stateOf } from '../../../daemon/state/object.ts'
import { mayRemove } from '../../../daemon/state/ownership.ts'
import { textOf } from '../../../daemon/state/text.ts'
import { parseIp, parsePrefix } from '../../../ipam/address.ts'
import { stateText } from '../state-text.ts'
import { dualStackNode, testNode } from '../test-node.ts'

const backends = registry(BACKENDS)
const ip = (text: string) => parseIp(text) ?? assert.fail(text)
const prefix = (text: string) => parsePrefix(text) ?? assert.fail(text)
const lines = (objects: readonly KernelObject[]) => objects.map(textOf)
const mac = '02:00:00:00:00:02'
const near: Lease = {
  subnet: { 4: prefix('10.244.2.0/24') },
  publicIp: { 4: ip('192.0.2.2') },
  backendType: 'vxlan',
  backendData: { 4: { VNI: 1, VtepMAC: mac } }
}
const far: Lease = { ...near, publicIp: { 4: ip('198.51.100.2') } }
const dual: Lease = {
  subnet: { 4: prefix('10.244.2.0/24'), 6: prefix('fd00:0:0:2::/64') },
  publicIp: { 4: ip('198.51.100.2'), 6: ip('2001:db8:1::2') },
  backendType: 'vxlan',
  backendData: { 4: { VNI: 1, VtepMAC: mac }, 6: { VNI: 1, VtepMAC: '02:00:00:00:00:06' } }
}

test('vxlan: our end is one device with our subnet’s address, bound to the interface', () => {
  const node = testNode({ remembered: { 4: { vtepmac: '0E:00:00:00:00:01' } } })
  assert.equal(
    stateText(stateOf(backends.configure('vxlan', {}).own(node))),
    [
      'address 10.244.1.0/32 dev weft.1',
      'link weft.1 type vxlan id 1 local 192.0.2.1 dev eth0 dstport 8472 nolearning mtu 1450 address 0e:00:00:00:00:01 up',
      'sysctl net/ipv4/conf/weft.1/forwarding=1',
      'sysctl net/ipv4/conf/weft.1/rp_filter=2',
      'sysctl net/ipv6/conf/weft.1/accept_ra=0'
    ].join('\n')
  )
})

test('vxlan: the IPv6 tunnel has IPv6 on, whatever new links get; the IPv4 tunnel is left without', () => {
  const own = stateText(stateOf(backends.configure('vxlan', {}).own(dualStackNode())))
  assert.match(own, /sysctl net\/ipv6\/conf\/weft6\.1\/disable_ipv6=0/)
  assert.doesNotMatch(own, /weft\.1\/disable_ipv6/)
})

test('vxlan: a device too small for IPv6 has none of its settings', () => {
  const own = (mtu: number) => stateText(stateOf(backends.configure('vxlan', { MTU: mtu }).own(testNode())))
  assert.match(own(LEAST_MTU[6] + 50), /mtu 1280 .*net\/ipv4.*net\/ipv6/s)
  assert.match(own(LEAST_MTU[6] + 49), /mtu 1279 .*net\/ipv4/s)
  assert.doesNotMatch(own(LEAST_MTU[6] + 49), /ipv6/)
})

test('vxlan: a peer behind a router is a neighbour, an FDB entry and a route, in this order', () => {
  assert.deepEqual(lines(backends.configure('vxlan', {}).peer(far, testNode())), [
    'neigh 10.244.2.0 lladdr 02:00:00:00:00:02 dev weft.1 nud permanent',
    'fdb 02:00:00:00:00:02 dev weft.1 dst 198.51.100.2 self permanent',
    'route 10.244.2.0/24 via 10.244.2.0 dev weft.1 proto 87 onlink'
  ])
})

test('vxlan: with DirectRouting a peer on our link gets a direct route, without it once it is proven, with false never', () => {
  const onLink = { device: 'eth0' }
  const direct = ['route 10.244.2.0/24 via 192.0.2.2 dev eth0 proto 87']
  const rows: readonly (readonly [JsonObject, boolean | undefined, boolean])[] = [
    [{}, undefined, false],
    [{}, true, true],
    [{}, false, false],
    [{ directrouting: true }, undefined, true],
    [{ directrouting: true }, true, true],
    // It carries nothing: the tunnel does.
    [{ directrouting: true }, false, false],
    [{ directrouting: false }, undefined, false],
    [{ directrouting: false }, true, false]
  ]
  for (const [keys, passes, isDirect] of rows) {
    const backend = backends.configure('vxlan', keys)
    const routes = { 4: { ...onLink, ...(passes !== undefined && { passes }) } }
    const objects = backend.peer(near, testNode(), routes)
    const what = `${JSON.stringify(keys)} ${passes}`
    if (isDirect) assert.deepEqual(lines(objects), direct, what)
    else assert.equal(objects.length, 3, what)
    assert.equal(backend.asksRoutes, keys.directrouting !== false)
  }
})

test('the tunnel whose packets keep the mark of those in them is VXLAN, without its policy extension', () => {
  const outer = (type: string, keys: JsonObject) => backends.configure(type, keys).markedOuter
  assert.deepEqual(outer('vxlan', { Port: 4789 }), { port: 4789, innerAt: 8 + 8 + 14 })
  assert.deepEqual([outer('vxlan', { GBP: true }), outer('host-gw', {})], [undefined, undefined])
})

test('vxlan: probes try a plain route by one of their own, where the peer is on our link and there is a choice', () => {
  const plain = backends.configure('vxlan', {}).plain ?? assert.fail('no choice')
  assert.deepEqual(lines(plain(near, testNode(), { 4: { device: 'eth0' } })), [
    'route 10.244.2.0/32 via 192.0.2.2 dev eth0 tos 0xc proto 87'
  ])
  assert.deepEqual(plain(near, testNode(), { 4: { device: 'eth0', gateway: ip('192.0.2.254') } }), [])
  assert.deepEqual(plain(near, testNode(), {}), [])
  assert.equal(backends.configure('vxlan', { DirectRouting: false }).plain, undefined)
  assert.equal(backends.configure('host-gw', {}).plain, undefined)
})

for (const [what, route] of [
  ['has no route to', undefined],
  ['reaches by a gateway, though it is in our prefix', { device: 'eth0', gateway: ip('192.0.2.254') }],
  ['reaches by another link', { device: 'eth1' }],
  ['reaches by a link that resolves no next hops', { device: 'eth0', pointToPoint: true }]
] as const)
  test(`a node that the kernel ${what} gets no direct route: the tunnel with vxlan, an error with host-gw`, () => {
    const routes = route === undefined ? {} : { 4: route }
    const lengths = backends.configure('vxlan', { DirectRouting: true }).peer(near, testNode(), routes).length
    assert.equal(lengths, 3)
    assert.throws(() => backends.configure('host-gw', {}).peer(near, testNode(), routes), { code: 'PEER_OFF_LINK' })
  })

test('vxlan: dual stack is one tunnel per family, each with its own MTU; pods get the smaller', () => {
  const backend = backends.configure('vxlan', { VNI: 7, Port: 4789, GBP: true, Learning: true })
  const links = backend.own(dualStackNode()).filter((object): object is Link => object.kind === 'link')
  assert.deepEqual(
    links.map((link) => [link.name, link.mtu]),
    [
      ['weft.7', 1450],
      ['weft6.7', 1430]
    ]
  )
  assert.match(textOf(links[1] as Link), /vxlan id 7 local 2001:db8::1 dev eth0 dstport 4789 learning gbp/)
  assert.equal(backend.mtu(dualStackNode()), 1430)
})

test('vxlan: both families of a peer are served, and only those that this node has', () => {
  const backend = backends.configure('vxlan', {})
  assert.deepEqual(lines(backend.peer(dual, dualStackNode())).slice(3), [
    'neigh fe80::ff:fe00:6 lladdr 02:00:00:00:00:06 dev weft6.1 nud permanent',
    'fdb 02:00:00:00:00:06 dev weft6.1 dst 2001:db8:1::2 self permanent',
    'route fd00:0:0:2::/64 via fe80::ff:fe00:6 dev weft6.1 proto 87'
  ])
  assert.equal(backend.peer(dual, testNode()).length, 3)
})

test('vxlan: an IPv6 route leads to the link-local address of the MAC, whatever its bits are', () => {
  const backend = backends.configure('vxlan', {})
  for (const [VtepMAC, gateway] of [
    ['96:04:53:43:ef:67', 'fe80::9404:53ff:fe43:ef67'],
    ['00:00:00:00:00:01', 'fe80::200:ff:fe00:1'],
    ['fe:ff:ff:ff:ff:fe', 'fe80::fcff:ffff:feff:fffe']
  ]) {
    const lease = { ...dual, backendData: { ...dual.backendData, 6: { VNI: 1, VtepMAC: VtepMAC ?? '' } } }
    const [neighbour, , route] = lines(backend.peer(lease, dualStackNode())).slice(3)
    assert.equal(neighbour, `neigh ${gateway} lladdr ${VtepMAC} dev weft6.1 nud permanent`)
    assert.equal(route, `route fd00:0:0:2::/64 via ${gateway} dev weft6.1 proto 87`)
  }
})

test('vxlan: the MAC that our lease publishes is kept, else it is derived from the node and stays the same', () => {
  const backend = backends.configure('vxlan', {})
  const published = (node: Node) => (backend.publish(node)[4] as { VtepMAC: string }).VtepMAC
  assert.equal(published(testNode({ remembered: { 4: { vtepmac: '0E:00:00:00:00:01' } } })), '0e:00:00:00:00:01')
  const derived = published(testNode())
  assert.equal(derived, published(testNode()))
  assert.notEqual(derived, published(testNode({ identity: 'machine node-2' })))
  assert.equal(Number.parseInt(derived.slice(0, 2), 16) & 3, 2, 'locally administered and unicast')
})

test('vxlan: flanneld’s device with the same VNI and port is adopted under its name, another is not', () => {
  const existing = (over: object): Link => ({
    kind: 'link',
    name: 'flannel.1',
    form: {
      type: 'vxlan',
      vni: 1,
      port: 8472,
      local: ip('192.0.2.1'),
      parent: 'eth0',
      learning: false,
      gbp: false,
      ...over
    }
  })
  const nameWith = (links: readonly Link[]) =>
    (backends.configure('vxlan', {}).own(testNode({ links }))[0] as Link).name
  assert.equal(nameWith([existing({})]), 'flannel.1')
  assert.equal(nameWith([existing({ port: 4789 })]), 'weft.1')
  assert.equal(nameWith([{ ...existing({}), name: 'vxlan-of-somebody' }]), 'weft.1')
})

for (const [what, backendData, expected] of [
  ['without data', {}, /VtepMAC null/],
  ['with null', { 4: null }, /VtepMAC null/],
  ['with a list', { 4: [1] }, /VtepMAC null/],
  ['with a bad MAC', { 4: { VtepMAC: 'zz' } }, /VtepMAC "zz"/],
  ['with the MAC of nobody', { 4: { VtepMAC: '00:00:00:00:00:00' } }, /VtepMAC "00:00/],
  ['with the MAC of a group', { 4: { VtepMAC: '01:00:5e:00:00:01' } }, /VtepMAC "01:00/],
  ['with a number for a MAC', { 4: { VtepMAC: 7 } }, /VtepMAC 7/],
  ['of another VNI', { 4: { VNI: 2, VtepMAC: mac } }, /VNI 2, and this network's is 1/]
] as const) {
  test(`vxlan: a lease ${what} is refused with its name and the value`, () => {
    assert.throws(() => backends.configure('vxlan', {}).peer({ ...far, backendData }, testNode()), expected)
  })
}

test('vxlan: MTU in Backend is the underlay’s, not the device’s', () => {
  const backend = backends.configure('vxlan', { mtu: 9000 })
  assert.equal(backend.mtu(testNode({ deviceMtu: 9001 })), 8950)
  assert.equal(backend.underlayMtu(testNode({ deviceMtu: 9001 })), 9000)
})

for (const [type, mtu, node, range] of [
  ['vxlan', 9000, testNode(), 'from 118 to 1500'],
  ['vxlan', 117, testNode(), 'from 118 to 1500'],
  ['vxlan', 1349, dualStackNode(), 'from 1350 to 1500'],
  ['host-gw', 1501, testNode(), 'from 68 to 1500'],
  ['host-gw', 1279, dualStackNode(), 'from 1280 to 1500']
] as const)
  test(`${type}: MTU ${mtu} is refused with the range ${range}`, () => {
    const backend = backends.configure(type, { MTU: mtu })
    const message = `Backend.MTU is ${mtu}; it must be a whole number ${range}, which is what eth0 carries, or 0 for that`
    for (const read of ['mtu', 'underlayMtu'] as const)
      assert.throws(() => backend[read](node), { code: 'CONFIG_INVALID', message })
  })

test('an interface whose MTU is too small for a family is an error that names the family', () => {
  assert.throws(() => backends.configure('vxlan', {}).mtu(dualStackNode({ deviceMtu: 1300 })), {
    code: 'CONFIG_INVALID',
    message: 'eth0 carries 1300 bytes, and pods with IPv6 need 1350 between nodes'
  })
  assert.equal(backends.configure('host-gw', {}).mtu(dualStackNode({ deviceMtu: 1300 })), 1300)
})

test('host-gw: a peer is one direct route; MTU is the interface’s; one device has the gateway’s address for probes', () => {
  const backend = backends.configure('host-gw', {})
  assert.deepEqual(lines(backend.peer({ ...near, backendData: {} }, testNode(), { 4: { device: 'eth0' } })), [
    'route 10.244.2.0/24 via 192.0.2.2 dev eth0 proto 87'
  ])
  assert.deepEqual(
    backend.own(dualStackNode()).map((object) => keyOf(object)),
    [
      'link weft-gw',
      'address 10.244.1.1/32 dev weft-gw',
      'address fd00:0:0:1::1/128 dev weft-gw',
      'sysctl net/ipv6/conf/weft-gw/accept_ra',
      'sysctl net/ipv6/conf/weft-gw/disable_ipv6'
    ]
  )
  assert.equal(backends.recognises({ name: 'weft-gw', form: { type: 'bridge' } }), 'own')
  assert.equal(backends.recognises({ name: 'weft-gw', form: { type: 'veth' } }), undefined)
  assert.deepEqual(backend.publish(testNode()), {})
  assert.equal(backend.mtu(testNode()), 1500)
})

test('host-gw: a peer behind a router is refused with a cure', () => {
  assert.throws(
    () =>
      backends.configure('host-gw', {}).peer(far, testNode(), { 4: { device: 'eth0', gateway: ip('192.0.2.254') } }),
    {
      code: 'PEER_OFF_LINK',
      message:
        "the node of lease 10.244.2.0-24 (198.51.100.2, subnet 10.244.2.0-24) is not on the link of eth0: the kernel's route to it is via 192.0.2.254 dev eth0",
      cure: /vxlan/
    }
  )
})

test('an unknown backend and bad keys are errors that name the value', () => {
  assert.throws(() => backends.configure('quantum', {}), /Backend\.Type is "quantum".*vxlan, host-gw/)
  for (const keys of [
    { VNI: 0 },
    { VNI: 16777216 },
    { vni: '1' },
    { Port: 70000 },
    { DirectRouting: 'yes' },
    { MTU: -1 }
  ]) {
    assert.throws(() => backends.configure('vxlan', keys), new RegExp(`Backend\\.${Object.keys(keys)[0]} is`))
  }
})

test('a missing Backend and every spelling of its keys mean the udp backend, an unknown type is named', () => {
  const conf = (text: string) => {
    const { backendType, backend } = parseNetConf(text)
    return backends.configure(backendType, backend)
  }
  for (const text of [
    '{"Network":"172.20.0.0/16"}',
    '{"network":"172.20.0.0/16"}',
    '{"Network":"172.20.0.0/16","backend":null}',
    '{"Network":"10.0.0.0/8","SubnetLen":20,"SubnetMin":"10.10.0.0","SubnetMax":"10.99.0.0","Backend":{"Type":"UDP"}}',
    '{"NETWORK":"172.20.0.0/16","BACKEND":{"type":"udp","PORT":8285}}'
  ]) {
    const backend = conf(text)
    assert.deepEqual([backend.type, backend.ports[0]?.port], ['udp', 8285], text)
  }
  assert.throws(() => conf('{"Network":"10.244.0.0/16","Backend":{"Type":"geneve"}}'), {
    message: 'Backend.Type is "geneve"; this version knows vxlan, host-gw, udp, ipip, wireguard, alloc, extension'
  })
})

test('vxlan: the device of the largest VNI has a name that Linux accepts, in both families, and is recognised as ours', () => {
  const links = backends
    .configure('vxlan', { VNI: 0xff_ffff })
    .own(dualStackNode())
    .filter((object): object is Link => object.kind === 'link')
  assert.deepEqual(
    links.map(({ name }) => name),
    ['weft.16777215', 'weft6.16777215']
  )
  for (const link of links) {
    assert.ok(link.name.length <= 15, link.name)
    assert.equal(backends.recognises(link), 'own')
    assert.ok(mayRemove(link, backends.recognises))
  }
})

for (const [what, device, expected] of [
  ['our device', { name: 'weft.1', form: { type: 'vxlan' } }, 'own'],
  ['our device, by its name alone', { name: 'weft6.7' }, 'own'],
  ['a device of flanneld', { name: 'flannel-v6.1', form: { type: 'vxlan' } }, 'adoptable'],
  ['a VXLAN device of another program', { name: 'vxlan.calico', form: { type: 'vxlan' } }, 'foreign'],
  ['an interface with our name and another type', { name: 'weft.1', form: { type: 'other', of: 'dummy' } }, undefined],
  ['an interface of the host', { name: 'eth0' }, undefined]
] as const)
  test(`${what} is recognised as ${expected ?? 'nothing'}, whatever is configured`, () =>
    assert.equal(backends.recognises(device as Parameters<typeof backends.recognises>[0]), expected))

test('a lease names our device when it publishes the MAC of one', () => {
  const [device] = backends
    .configure('vxlan', {})
    .own(testNode({ remembered: { 4: { VtepMAC: mac } } })) as readonly Link[]
  assert.ok(device)
  const names = (over: Partial<Lease>) => backends.namesOurDevice({ ...near, ...over }, [device])
  assert.ok(names({}))
  assert.equal(names({ backendData: { 4: { VtepMAC: '02:00:00:00:00:09' } } }), false)
  assert.equal(names({ backendData: {} }), false)
  assert.equal(names({ backendType: 'host-gw' }), false)
  assert.equal(names({ backendType: 'udp' }), false)
})
