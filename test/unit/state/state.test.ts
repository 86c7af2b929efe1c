// The vocabulary of kernel state: keys, comparison, order, ownership and the texts that people read.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { BACKENDS, registry } from '../../../daemon/backend/registry.ts'
import { Desired } from '../../../daemon/reconcile/desired.ts'
import { difference } from '../../../daemon/state/difference.ts'
import { digest } from '../../../daemon/state/digest.ts'
import {
  differingFields,
  type KernelObject,
  keyOf,
  type Mac,
  parseMac,
  sameObject,
  stateOf
} from '../../../daemon/state/object.ts'
import { order } from '../../../daemon/state/order.ts'
import { mayRemove, ROUTE_PROTOCOL, staysWhenUnwanted } from '../../../daemon/state/ownership.ts'
import { changeText, textOf } from '../../../daemon/state/text.ts'
import { parseIp, parsePrefix } from '../../../ipam/address.ts'

const backends = registry(BACKENDS)
const { recognises } = backends
const ip = (text: string) => parseIp(text) ?? assert.fail(text)
const prefix = (text: string) => parsePrefix(text) ?? assert.fail(text)
const mac = (text: string) => parseMac(text) ?? assert.fail(text)

const vxlan = (over: object = {}): KernelObject => ({
  kind: 'link',
  name: 'weft.1',
  up: true,
  mtu: 1450,
  mac: mac('0E:00:00:00:00:01'),
  form: { type: 'vxlan', vni: 1, port: 8472, local: ip('192.0.2.1'), parent: 'eth0', learning: false, gbp: false },
  ...over
})
const route: KernelObject = {
  kind: 'route',
  table: 254,
  destination: prefix('10.244.2.0/24'),
  metric: 0,
  type: 'unicast',
  device: 'weft.1',
  gateway: ip('10.244.2.0'),
  onlink: true,
  protocol: ROUTE_PROTOCOL,
  because: 'lease'
}
const neighbour: KernelObject = {
  kind: 'neighbour',
  device: 'weft.1',
  ip: ip('10.244.2.0'),
  mac: mac('02:00:00:00:00:02')
}
const fdb: KernelObject = { kind: 'fdb', device: 'weft.1', mac: mac('02:00:00:00:00:02'), destination: ip('192.0.2.2') }
const proxy: KernelObject = { kind: 'proxy', device: 'cni0', ip: ip('fd00:0:0:1::2'), protocol: ROUTE_PROTOCOL }
const address: KernelObject = { kind: 'address', device: 'weft.1', prefix: prefix('10.244.1.0/32') }
const sysctl: KernelObject = { kind: 'sysctl', path: 'net/ipv4/ip_forward', value: '1' }

const texts: readonly (readonly [KernelObject, string])[] = [
  [
    vxlan(),
    'link weft.1 type vxlan id 1 local 192.0.2.1 dev eth0 dstport 8472 nolearning mtu 1450 address 0e:00:00:00:00:01 up'
  ],
  [route, 'route 10.244.2.0/24 via 10.244.2.0 dev weft.1 proto 87 onlink'],
  [
    { ...route, destination: prefix('fd00::/64'), gateway: ip('fd00::'), metric: 1024 },
    'route fd00::/64 via fd00:: dev weft.1 proto 87 onlink'
  ],
  [
    {
      kind: 'route',
      table: 254,
      destination: prefix('0.0.0.0/0'),
      metric: 100,
      type: 'unicast',
      device: 'eth0',
      gateway: ip('192.0.2.254'),
      protocol: 16
    },
    'route default via 192.0.2.254 dev eth0 proto 16 metric 100'
  ],
  [
    { kind: 'route', table: 7, destination: prefix('10.0.0.0/8'), metric: 0, type: 'blackhole', protocol: 87 },
    'route blackhole 10.0.0.0/8 table 7 proto 87'
  ],
  [neighbour, 'neigh 10.244.2.0 lladdr 02:00:00:00:00:02 dev weft.1 nud permanent'],
  [fdb, 'fdb 02:00:00:00:00:02 dev weft.1 dst 192.0.2.2 self permanent'],
  [proxy, 'neigh proxy fd00:0:0:1::2 dev cni0 proto 87'],
  [{ ...proxy, protocol: 0 }, 'neigh proxy fd00:0:0:1::2 dev cni0'],
  [address, 'address 10.244.1.0/32 dev weft.1'],
  [sysctl, 'sysctl net/ipv4/ip_forward=1'],
  [
    {
      kind: 'link',
      name: 'veth1',
      form: { type: 'veth', peer: { name: 'eth0', sandbox: '/run/netns/p' } },
      master: 'cni0',
      hairpin: true
    },
    'link veth1 type veth peer eth0 netns /run/netns/p master cni0 hairpin on'
  ],
  [
    {
      kind: 'nft-chain',
      family: 'inet',
      table: 'weft',
      chain: 'forward',
      hook: 'type filter hook forward priority filter',
      digests: ['a']
    },
    'chain inet weft forward { type filter hook forward priority filter; } (1 rules)'
  ],
  [
    { kind: 'nft-element', family: 'inet', table: 'weft', set: 'ports', key: 'tcp . 80', value: '10.0.0.1 . 80' },
    'element inet weft ports { tcp . 80 : 10.0.0.1 . 80 }'
  ],
  [
    {
      kind: 'accept',
      tool: 'nft',
      family: 'ip',
      table: 'filter',
      chain: 'FORWARD',
      match: 'source',
      prefix: prefix('10.244.0.0/16')
    },
    'source 10.244.0.0/16 accept in nft chain ip filter FORWARD'
  ],
  [
    { kind: 'tunnel-socket', device: 'flannel0', local: ip('192.0.2.1'), port: 8285 },
    'tunnel flannel0 local 192.0.2.1 port 8285'
  ],
  [
    { kind: 'tunnel-peer', device: 'flannel0', subnet: prefix('10.244.2.0/24'), to: ip('192.0.2.2') },
    'tunnel flannel0 10.244.2.0/24 to 192.0.2.2'
  ],
  [{ kind: 'link', name: 'flannel0', form: { type: 'tun' }, mtu: 1472 }, 'link flannel0 type tun mtu 1472']
]
for (const [object, text] of texts)
  test(`a ${object.kind} is printed as ${text.slice(0, 40)}…`, () => assert.equal(textOf(object), text))

test('the reason for an object makes no difference, and fields that are not wanted are the kernel’s choice', () => {
  assert.ok(sameObject(route, { ...route, because: 'other', scope: 0, mtu: 1400 } as KernelObject))
  assert.equal(sameObject({ ...route, mtu: 1300 } as KernelObject, { ...route, mtu: 1400 } as KernelObject), false)
})

test('a difference names the fields that differ', () => {
  const other = vxlan({
    mtu: 1400,
    form: { type: 'vxlan', vni: 1, port: 4789, local: ip('192.0.2.9'), parent: 'eth0', learning: false, gbp: false }
  })
  assert.deepEqual(differingFields(vxlan(), other), ['mtu', 'form.port', 'form.local'])
})

test('the difference of a state with itself is empty, and applying a difference once leaves none', () => {
  const objects = [vxlan(), route, neighbour, fdb, address, sysctl]
  fc.assert(
    fc.property(fc.subarray(objects), fc.subarray(objects), (wanted, present) => {
      const [desired, observed] = [stateOf(wanted), stateOf(present)]
      for (const change of difference(desired, observed)) {
        if (change.do === 'put') observed.set(keyOf(change.object), change.object)
        else observed.delete(keyOf(change.object))
      }
      assert.deepEqual(difference(desired, observed), [])
    })
  )
})

test('only the given keys are compared', () => {
  assert.deepEqual(
    difference(stateOf([route, fdb]), stateOf([]), [keyOf(fdb)]).map((change) => change.object.kind),
    ['fdb']
  )
})

test('what other objects depend on is made first and removed last', () => {
  const made = order([route, fdb, address, neighbour, vxlan()].map((object) => ({ do: 'put', object }) as const))
  assert.deepEqual(
    made.map((change) => change.object.kind),
    ['link', 'address', 'neighbour', 'fdb', 'route']
  )
  const removed = order([vxlan(), neighbour, route, fdb].map((object) => ({ do: 'remove', object }) as const))
  assert.deepEqual(
    removed.map((change) => change.object.kind),
    ['route', 'fdb', 'neighbour', 'link']
  )
})

test('a peer that is reached otherwise keeps its entries until its route leads elsewhere', () => {
  const direct = { ...route, device: 'eth0' }
  const changes = [
    { do: 'remove', object: neighbour },
    { do: 'remove', object: fdb },
    { do: 'put', object: direct, instead: route }
  ] as const
  assert.deepEqual(
    order(changes).map((change) => `${change.do} ${change.object.kind}`),
    ['put route', 'remove fdb', 'remove neighbour']
  )
})

test('a device whose creation parameters differ is removed and made again; another MTU is only set', () => {
  const reborn = vxlan({
    form: { type: 'vxlan', vni: 1, port: 4789, local: ip('192.0.2.1'), parent: 'eth0', learning: false, gbp: false }
  })
  assert.deepEqual(
    order([{ do: 'put', object: reborn, instead: vxlan() }]).map((change) => change.do),
    ['remove', 'put']
  )
  assert.deepEqual(
    order([{ do: 'put', object: vxlan({ mtu: 1400 }), instead: vxlan() }]).map((change) => change.do),
    ['put']
  )
})

const ownership: readonly (readonly [string, KernelObject, boolean])[] = [
  ['our route', route, true],
  ['a route of somebody else', { ...route, protocol: 3, device: 'eth0' }, false],
  ['a route that the kernel made for our device', { ...route, protocol: 2 }, false],
  ['a route on a tunnel of flanneld that is another network’s', { ...route, protocol: 3, device: 'flannel.1' }, false],
  ['our tunnel', vxlan(), true],
  ['a tunnel of flanneld, which may run again', vxlan({ name: 'flannel.1' }), false],
  ['a tunnel of somebody else', vxlan({ name: 'vxlan7' }), false],
  [
    'an interface called like ours that is no tunnel',
    { kind: 'link', name: 'weft.1', form: { type: 'other', of: 'dummy' } },
    false
  ],
  ['a neighbour on our tunnel', neighbour, true],
  ['a neighbour elsewhere', { ...neighbour, device: 'eth0' } as KernelObject, false],
  ['a neighbour proxy of ours', proxy, true],
  ['a neighbour proxy that nobody signed', { ...proxy, protocol: 0 } as KernelObject, false],
  ['an address of the host', { ...address, device: 'eth0' } as KernelObject, false],
  [
    'the link-local address that the kernel gave our tunnel',
    { ...address, prefix: prefix('fe80::1/64') } as KernelObject,
    false
  ],
  ['an address of an earlier subnet on our tunnel', address, true],
  [
    'a peer of a tunnel',
    { kind: 'tunnel-peer', device: 'flannel0', subnet: prefix('10.244.2.0/24'), to: ip('192.0.2.2') },
    true
  ],
  ['a TUN device of ours, which lasts', { kind: 'link', name: 'flannel0', form: { type: 'tun' } }, true],
  ['a TUN device of flanneld', { kind: 'link', name: 'flannel0', form: { type: 'other', of: 'tun' } }, false],
  ['a kernel setting', sysctl, false],
  ['a chain of ours', { kind: 'nft-chain', family: 'inet', table: 'weft', chain: 'x', digests: [] }, true],
  ['a chain of Docker', { kind: 'nft-chain', family: 'ip', table: 'filter', chain: 'DOCKER', digests: [] }, false]
]
for (const [what, object, removable] of ownership)
  test(`${what} ${removable ? 'may' : 'must not'} be removed by a comparison`, () =>
    assert.equal(mayRemove(object, recognises), removable))

test('a neighbour proxy is missing only where its device is', () => {
  const desired = stateOf([proxy])
  assert.deepEqual(difference(desired, stateOf([])), [])
  const missing = difference(desired, stateOf([{ kind: 'link', name: 'cni0' }]), desired.keys())
  assert.deepEqual(missing, [{ do: 'put', object: proxy }])
  const unsigned = { ...proxy, protocol: 0 } as KernelObject
  assert.deepEqual(difference(desired, stateOf([unsigned])), [{ do: 'put', object: proxy, instead: unsigned }])
})

test('a setting of a device is missing where its device is or will be, one of the host always', () => {
  const of = (path: string): KernelObject => ({ kind: 'sysctl', path, value: '1' })
  const setting = of('net/ipv4/conf/br-1/route_localnet')
  const bridge: KernelObject = { kind: 'link', name: 'br-1', form: { type: 'bridge' } }
  assert.deepEqual(difference(stateOf([setting]), stateOf([])), [])
  assert.deepEqual(difference(stateOf([setting]), stateOf([bridge]), [keyOf(setting)]), [
    { do: 'put', object: setting }
  ])
  assert.equal(difference(stateOf([setting, bridge]), stateOf([])).length, 2)
  for (const path of ['net/ipv4/ip_forward', 'net/ipv4/conf/all/rp_filter', 'net/ipv6/conf/default/accept_ra'])
    assert.equal(difference(stateOf([of(path)]), stateOf([])).length, 1)
})

test('IPv6 is switched on before a device gets its address', () => {
  const off: KernelObject = { kind: 'sysctl', path: 'net/ipv6/conf/weft.1/disable_ipv6', value: '0' }
  const made = order([address, off, vxlan()].map((object) => ({ do: 'put', object }) as const))
  assert.deepEqual(
    made.map(({ object }) => object.kind),
    ['link', 'sysctl', 'address']
  )
})

test('objects on a device of flanneld may be removed once we use that device', () => {
  const stale = { ...neighbour, device: 'flannel.1' } as KernelObject
  assert.ok(mayRemove(stale, recognises, (device) => device === 'flannel.1'))
  assert.equal(
    mayRemove(stale, recognises, (device) => device === 'flannel.7'),
    false
  )
})

test('a bridge, its addresses and kernel settings stay when their last pod has gone', () => {
  assert.ok(staysWhenUnwanted({ kind: 'link', name: 'cni0', form: { type: 'bridge' } }, recognises))
  assert.ok(staysWhenUnwanted({ kind: 'address', device: 'cni0', prefix: prefix('10.244.1.1/24') }, recognises))
  assert.ok(staysWhenUnwanted(sysctl, recognises))
  assert.equal(staysWhenUnwanted({ kind: 'link', name: 'veth01', form: { type: 'veth' } }, recognises), false)
})

test('a change is printed as a line of a diff, with its reason', () => {
  assert.equal(changeText({ do: 'put', object: route }), `+ ${textOf(route)}   # lease`)
  assert.equal(changeText({ do: 'remove', object: fdb }), `- ${textOf(fdb)}`)
  assert.match(
    changeText({ do: 'put', object: vxlan(), instead: vxlan({ mtu: 1400 }) }),
    /^~ link weft\.1 .*\(mtu; now: link weft\.1 .*mtu 1400/
  )
})

test('MAC addresses are read in any case and refused when they are not six octets', () => {
  assert.equal(parseMac('AA-BB-CC-DD-EE-FF'), 'aa:bb:cc:dd:ee:ff' as Mac)
  for (const bad of ['', 'aa:bb', 'aa:bb:cc:dd:ee:fg', 'aa:bb:cc:dd:ee:ff:00']) assert.equal(parseMac(bad), undefined)
})

test('digests are sixteen hex digits, stable and different', () => {
  assert.equal(digest(''), 'cbf29ce484222325')
  assert.match(digest('vtep'), /^[0-9a-f]{16}$/)
  assert.notEqual(digest('a'), digest('b'))
})

test('desired state keeps a shared object until the last owner has gone, in any order of events', () => {
  fc.assert(
    fc.property(
      fc.array(fc.record({ owner: fc.constantFrom('a', 'b', 'c'), wants: fc.subarray([vxlan(), route, fdb]) })),
      (steps) => {
        const desired = new Desired()
        const model = new Map<string, readonly KernelObject[]>()
        for (const { owner, wants } of steps) {
          const touched = desired.replace(owner, wants)
          for (const object of [...wants, ...(model.get(owner) ?? [])]) assert.ok(touched.has(keyOf(object)))
          model.set(owner, wants)
        }
        const expected = new Set([...model.values()].flat().map(keyOf))
        assert.deepEqual(new Set(desired.state.keys()), expected)
      }
    )
  )
})
