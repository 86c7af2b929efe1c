// What the kernel port observes and changes, against the real kernel in a namespace of its own.
import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { test } from 'node:test'
import { difference } from '../../daemon/state/difference.ts'
import { type KernelObject, keyOf, type Link, stateOf } from '../../daemon/state/object.ts'
import { formatPrefix, type Ip } from '../../ipam/address.ts'
import {
  address4,
  address6,
  applied,
  bridge,
  inOwnNamespace,
  ip,
  mac,
  open,
  prefix,
  put,
  remove,
  route,
  run,
  skip,
  vxlan,
  Watch
} from './kernel-namespace.ts'

inOwnNamespace()

const eachKind: readonly (readonly [string, KernelObject, KernelObject])[] = [
  ['link', vxlan, { ...vxlan, mtu: 1300, mac: mac('02:00:00:00:00:19') }],
  [
    'neighbour',
    { kind: 'neighbour', device: 'weft.9', ip: ip('10.244.1.0'), mac: mac('02:00:00:00:00:02') },
    { kind: 'neighbour', device: 'weft.9', ip: ip('10.244.1.0'), mac: mac('02:00:00:00:00:03') }
  ],
  [
    'IPv6 neighbour',
    { kind: 'neighbour', device: 'br0', ip: ip('fd00:9::7'), mac: mac('02:00:00:00:00:02') },
    { kind: 'neighbour', device: 'br0', ip: ip('fd00:9::7'), mac: mac('02:00:00:00:00:03') }
  ],
  [
    'neighbour proxy',
    { kind: 'proxy', device: 'br0', ip: ip('fd00:9::7'), protocol: 87 },
    { kind: 'proxy', device: 'br0', ip: ip('fd00:9::7'), protocol: 88 }
  ],
  [
    'forwarding entry',
    { kind: 'fdb', device: 'weft.9', mac: mac('02:00:00:00:00:02'), destination: ip('10.9.0.7') },
    { kind: 'fdb', device: 'weft.9', mac: mac('02:00:00:00:00:02'), destination: ip('10.9.0.8') }
  ],
  [
    'address',
    { kind: 'address', device: 'weft.9', prefix: prefix('10.244.0.0/32') },
    { kind: 'address', device: 'weft.9', prefix: prefix('10.244.0.0/32'), noPrefixRoute: true }
  ],
  [
    'route',
    route('10.244.1.0/24', { device: 'weft.9', gateway: ip('10.244.1.0'), onlink: true }),
    route('10.244.1.0/24', { device: 'br0', gateway: ip('10.9.0.7'), mtu: 1280 })
  ],
  [
    'IPv6 route',
    route('fd00:244:1::/64', { device: 'br0', gateway: ip('fd00:9::7') }),
    route('fd00:244:1::/64', { device: 'br0', gateway: ip('fd00:9::8'), source: ip('fd00:9::1') })
  ],
  [
    'IPv4 route by an IPv6 gateway',
    route('10.244.2.0/24', { device: 'br0', gateway: ip('fd00:9::7') }),
    route('10.244.2.0/24', { device: 'br0', gateway: ip('fd00:9::8') })
  ],
  [
    'blackhole',
    route('10.244.0.0/16', { type: 'blackhole', table: 87 }),
    route('10.244.0.0/16', { type: 'unreachable', table: 87 })
  ],
  [
    'sysctl',
    { kind: 'sysctl', path: 'net/ipv4/conf/br0/forwarding', value: '1' },
    { kind: 'sysctl', path: 'net/ipv4/conf/br0/forwarding', value: '0' }
  ],
  [
    'offload',
    { kind: 'offload', device: 'br0', transmitChecksum: false },
    { kind: 'offload', device: 'br0', transmitChecksum: true }
  ]
]

test('every kind of object is put, observed, changed and removed', { skip, timeout: 300_000 }, async (t) => {
  await using kernel = await open({ sysctls: () => ['net/ipv4/conf/br0/forwarding'], offloads: () => ['br0'] })
  await applied(kernel, put(bridge), put(address4), put(address6))
  await using watch = new Watch(kernel)
  await watch.shows(bridge, address4, address6)
  /** The kernel announces neither sysctls nor neighbour proxies, and offloads are read where desired: a dump shows all. */
  const look = ({ kind }: KernelObject) => {
    if (kind === 'sysctl' || kind === 'proxy' || kind === 'offload') kernel.recheck('the test')
  }
  const seen = async (object: KernelObject) => {
    look(object)
    await watch.shows(object)
  }
  for (const [what, first, second] of eachKind) {
    t.diagnostic(what)
    if (first !== vxlan && !watch.state.has(keyOf(vxlan))) await applied(kernel, put(vxlan))
    await applied(kernel, put(first))
    await seen(first)
    const have = watch.state.get(keyOf(first))
    await applied(kernel, { do: 'put', object: second, ...(have !== undefined && { instead: have }) })
    await seen(second)
    // The second time it does not exist any more, which is a success.
    await applied(kernel, remove(second))
    look(second)
    if (second.kind !== 'sysctl' && second.kind !== 'offload') await watch.lacks(second)
    await applied(kernel, remove(second))
  }
})

test('an offload that another program changes is observed without a dump, one that is so already is not changed, and it is gone with its device', {
  skip
}, async () => {
  const off: KernelObject = { kind: 'offload', device: 'br0', transmitChecksum: false }
  await using kernel = await open({ offloads: () => ['br0'] })
  await applied(kernel, put(bridge))
  await using watch = new Watch(
    kernel,
    () => true,
    (key) => (key === keyOf(off) ? off : undefined)
  )
  await watch.shows({ ...off, transmitChecksum: true })
  run('ethtool', '-K', 'br0', 'tx-checksum-ip-generic', 'off')
  await watch.shows(off)
  assert.deepEqual(
    (await kernel.apply([put(off)])).map(({ unchanged }) => unchanged),
    [true]
  )
  await applied(kernel, remove(bridge))
  await watch.lacks(off)
  const [missing] = await kernel.apply([put(off)])
  assert.match(String(missing?.error?.message), /transmit checksum offload of br0 off.*ENODEV|no such device/i)
})

test('a neighbour proxy outlives the carrier of its bridge, and a bridge that is set down causes a dump', {
  skip
}, async () => {
  await using kernel = await open()
  const port: Link = { kind: 'link', name: 'port0', form: { type: 'veth', peer: { name: 'port1' } }, up: true }
  const proxy: KernelObject = { kind: 'proxy', device: 'br0', ip: ip('fd00:9::7'), protocol: 87 }
  await applied(kernel, put(bridge), put(address6), put({ ...port, master: 'br0' }), put(proxy))
  run('ip', 'link', 'set', 'port1', 'up')
  await using watch = new Watch(kernel)
  await watch.until('the carrier', () => (watch.state.get(keyOf(bridge)) as Link | undefined)?.carrier === true)
  run('ip', 'link', 'del', 'port0')
  await watch.until('no carrier', () => (watch.state.get(keyOf(bridge)) as Link | undefined)?.carrier === false)
  assert.match(run('ip', '-6', 'neigh', 'show', 'proxy'), /fd00:9::7 dev br0/)
  run('ip', 'link', 'set', 'br0', 'down')
  await watch.lacks(proxy)
  run('ip', 'link', 'set', 'br0', 'up')
  await applied(kernel, put(proxy))
  kernel.recheck('the test')
  await watch.shows(proxy)
})

test('objects may be on links of the same call, and one failure does not stop the others', { skip }, async () => {
  await using kernel = await open()
  const outcomes = await kernel.apply([
    put(bridge),
    put(address4),
    put(vxlan),
    put(route('10.1.0.0/16', { device: 'nowhere' })),
    put(route('10.2.0.0/16', { gateway: ip('99.9.9.9') })),
    put(route('10.3.0.0/16', { device: 'weft.9', gateway: ip('10.3.0.0'), onlink: true }))
  ])
  assert.deepEqual(
    outcomes.map(({ error }) => error?.message),
    [
      undefined,
      undefined,
      undefined,
      'the kernel refused to add route 10.1.0.0/16 dev nowhere proto 87: ENODEV (there is no device nowhere)',
      'the kernel refused to add route 10.2.0.0/16 via 99.9.9.9 proto 87: ENETUNREACH (Nexthop has invalid gateway)',
      undefined
    ]
  )
  assert.match(run('ip', 'route'), /10\.3\.0\.0\/16 via 10\.3\.0\.0 dev weft\.9 proto 87 onlink/)
  assert.deepEqual(await kernel.routeTo(ip('10.3.1.1')), {
    device: 'weft.9',
    gateway: ip('10.3.0.0'),
    source: ip('10.9.0.1')
  })
  assert.equal(await kernel.routeTo(ip('8.8.8.8')), undefined)
  await applied(kernel, remove(vxlan), remove(bridge))
})

test("a removal of a route leaves another program's route to the same destination alone", { skip }, async () => {
  await using kernel = await open()
  await applied(kernel, put(bridge), put(address4))
  run('ip', 'route', 'add', '10.5.0.0/16', 'via', '10.9.0.9', 'metric', '100')
  await applied(kernel, remove(route('10.5.0.0/16', { device: 'br0', gateway: ip('10.9.0.9') })))
  assert.match(run('ip', 'route'), /10\.5\.0\.0\/16 via 10\.9\.0\.9 dev br0 metric 100/)
  await applied(kernel, remove(bridge))
})

test('15,000 objects are put, observed and removed', { skip, timeout: 300_000 }, async () => {
  await using kernel = await open()
  await applied(kernel, put(bridge), put(address4), put(vxlan))
  const objects = Array.from({ length: 5_000 }, (_, n): readonly KernelObject[] => {
    const gateway: Ip = { family: 4, value: 0x0b00_0000n + BigInt(n << 8) }
    const to = mac(`02:01:00:00:${(n >> 8).toString(16).padStart(2, '0')}:${(n & 255).toString(16).padStart(2, '0')}`)
    return [
      { kind: 'neighbour', device: 'weft.9', ip: gateway, mac: to },
      { kind: 'fdb', device: 'weft.9', mac: to, destination: { family: 4, value: 0xac10_0000n + BigInt(n) } },
      { ...route('0.0.0.0/0', { device: 'weft.9', gateway, onlink: true }), destination: { ip: gateway, length: 24 } }
    ]
  }).flat()
  await using watch = new Watch(kernel, (object) => 'device' in object && object.device === 'weft.9')
  await watch.until('the first dump', () => watch.observations.length > 0)
  await applied(kernel, ...objects.map(put))
  const desired = stateOf(objects)
  await watch.until(
    '15,000 objects',
    () => watch.state.size >= desired.size && difference(desired, watch.state, desired.keys()).length === 0
  )
  assert.deepEqual(watch.dumps(), ['start'])
  await using fresh = new Watch(kernel, (object) => 'device' in object && object.device === 'weft.9')
  await fresh.until('a dump of all', () => difference(desired, fresh.state, desired.keys()).length === 0)
  await applied(kernel, ...objects.map(remove))
  await watch.until(
    'their end',
    () => watch.state.size < 100 && [...desired.keys()].every((key) => !watch.state.has(key))
  )
  await applied(kernel, remove(vxlan), remove(bridge))
})

test('the program that deletes a route is named, and weftd recognises itself', { skip }, async () => {
  await using kernel = await open()
  await applied(kernel, put(bridge), put(address4))
  const wanted = route('10.6.0.0/16', { device: 'br0', gateway: ip('10.9.0.9') })
  await using watch = new Watch(kernel, (object) => object.kind === 'route')
  await watch.until('the first dump', () => watch.observations.length > 0)
  await applied(kernel, put(wanted))
  await watch.shows(wanted)
  // In batch mode ip lives until its input ends, so that its name can be read however slow this machine is.
  const vandal = spawn('ip', ['-batch', '-'], { stdio: ['pipe', 'inherit', 'inherit'] })
  vandal.stdin.write('route del 10.6.0.0/16\n')
  await watch.lacks(wanted)
  vandal.stdin.end()
  const changes = watch.observations.flatMap((one) =>
    one.kind === 'changed' && one.key === keyOf(wanted) ? [one] : []
  )
  assert.deepEqual(
    changes.map(({ by }) => by),
    [
      { self: true, pid: process.pid, name: 'weftd' },
      { self: false, pid: vandal.pid, name: 'ip' }
    ]
  )
  await applied(kernel, remove(bridge))
})

test('after an overrun everything is reported again', { skip }, async () => {
  // The kernel's smallest buffer holds a handful of notifications.
  await using kernel = await open({ receiveBytes: 1 })
  await applied(kernel, put(bridge), put(address4))
  await using watch = new Watch(kernel, (object) => object.kind === 'route' && object.protocol === 87)
  await watch.until('the first dump', () => watch.observations.length > 0)
  const routes = Array.from({ length: 1_000 }, (_, n) =>
    route(`10.${128 + (n >> 8)}.${n & 255}.0/24`, { device: 'br0', gateway: ip('10.9.0.9') })
  )
  // By another program that we wait for: nothing is read meanwhile.
  const lines = routes.map(({ destination }) => `route add ${formatPrefix(destination)} via 10.9.0.9 dev br0 proto 87`)
  execFileSync('ip', ['-batch', '-'], { input: lines.join('\n') })
  await watch.shows(...routes)
  assert.ok(
    watch.dumps().some((why) => why.includes('more notifications arrived')),
    watch.dumps().join('; ')
  )
  // libuv stops polling a socket that overran.
  const later = route('10.199.0.0/16', { device: 'br0', gateway: ip('10.9.0.9') })
  run('ip', 'route', 'add', '10.199.0.0/16', 'via', '10.9.0.9', 'dev', 'br0', 'proto', '87')
  await watch.shows(later)
  await applied(kernel, remove(bridge))
})

test('routes that the kernel removes without a notification when their device goes down are observed as removed', {
  skip
}, async () => {
  await using kernel = await open()
  await applied(kernel, put(bridge), put(address4))
  const wanted = route('10.7.0.0/16', { device: 'br0', gateway: ip('10.9.0.9') })
  await applied(kernel, put(wanted))
  await using watch = new Watch(kernel)
  await watch.shows(wanted)
  run('ip', 'link', 'set', 'br0', 'down')
  await watch.lacks(wanted)
  assert.match(watch.dumps().at(-1) ?? '', /br0 went down/)
  run('ip', 'link', 'set', 'br0', 'up')
  await applied(kernel, put(wanted))
  await watch.shows(wanted)
  run('ip', 'address', 'del', '10.9.0.1/24', 'dev', 'br0')
  await watch.lacks(wanted)
  run('ip', 'link', 'del', 'br0')
  await watch.lacks(bridge)
})
