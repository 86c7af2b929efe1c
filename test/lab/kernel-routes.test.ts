// Routes as the real kernel has them: several with one destination, several next hops, policy rules, and look-ups.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { connected, connectedLinkLocal } from '../../daemon/attachment/device.ts'
import { dumpLinks } from '../../daemon/kernel/dump.ts'
import { Lanes } from '../../daemon/kernel/netlink/lane.ts'
import { RequestSocket } from '../../daemon/kernel/netlink/request-socket.ts'
import type { RoutingChange } from '../../daemon/state/kernel.ts'
import { addressKeyOf, type KernelObject, keyOf, type Route } from '../../daemon/state/object.ts'
import { formatIp, formatPrefix, type Prefix } from '../../ipam/address.ts'
import {
  address4,
  address6,
  applied,
  bridge,
  inOwnNamespace,
  ip,
  mac,
  open,
  put,
  remove,
  route,
  run,
  skip,
  vxlan,
  Watch
} from './kernel-namespace.ts'
import { until } from './run.ts'

inOwnNamespace()

test('of several IPv4 routes with one destination the first is observed, and a put makes ours the first', {
  skip
}, async () => {
  await using kernel = await open()
  const ours = route('10.5.0.0/16', { device: 'br0', gateway: ip('10.9.0.9') })
  await applied(kernel, put(bridge), put(address4), put(ours))
  await using watch = new Watch(kernel)
  await watch.shows(ours)
  const protocol = () => (watch.state.get(keyOf(ours)) as Route | undefined)?.protocol
  run('ip', 'route', 'append', '10.5.0.0/16', 'via', '10.9.0.8', 'proto', 'static')
  run('ip', 'route', 'prepend', '10.5.0.0/16', 'via', '10.9.0.7', 'proto', 'bird')
  await watch.until('the first', () => protocol() === 12)
  kernel.recheck('the test')
  await watch.until('the first in a dump', () => protocol() === 12)
  const instead = watch.state.get(keyOf(ours)) as KernelObject
  await applied(kernel, { do: 'put', object: ours, instead })
  await watch.until('ours', () => protocol() === 87)
  assert.match(run('ip', 'route', 'show', '10.5.0.0/16').split('\n')[0] ?? '', /via 10\.9\.0\.9 dev br0 proto 87/)
  await applied(kernel, remove(ours))
  await watch.until('the one behind it', () => protocol() === 4)
  run('ip', 'route', 'add', '10.5.0.0/16', 'tos', '0x10', 'via', '10.9.0.6')
  run('ip', 'route', 'del', '10.5.0.0/16', 'via', '10.9.0.8')
  await watch.lacks(ours)
  await applied(kernel, remove(bridge))
})

test('IPv6: a route that another program adds beside ours makes it one with two next hops, and a put makes it ours again', {
  skip
}, async () => {
  await using kernel = await open()
  const ours = route('fd00:5::/64', { device: 'br0', gateway: ip('fd00:9::9'), metric: 1024 })
  await applied(kernel, put(bridge), put(address6), put(ours))
  await using watch = new Watch(kernel)
  await watch.shows(ours)
  run('ip', '-6', 'route', 'append', 'fd00:5::/64', 'via', 'fd00:9::8')
  await watch.until('two next hops', () => (watch.state.get(keyOf(ours)) as Route | undefined)?.nextHops?.length === 2)
  const instead = watch.state.get(keyOf(ours)) as KernelObject
  await applied(kernel, { do: 'put', object: ours, instead })
  await watch.shows(ours)
  assert.match(run('ip', '-6', 'route', 'show', 'fd00:5::/64'), /^fd00:5::\/64 via fd00:9::9 dev br0 proto 87/)
  await applied(kernel, remove(bridge))
})

test("next hops are observed, of multipath routes and of nexthop groups; a tunnel's link resolves none", {
  skip
}, async () => {
  await using kernel = await open()
  await applied(kernel, put(bridge), put(address4), put(address6))
  // A nexthop object needs a carrier.
  run('ip', 'link', 'add', 'port0', 'master', 'br0', 'up', 'type', 'veth', 'peer', 'name', 'port1')
  run('ip', 'link', 'set', 'port1', 'up')
  assert.ok(await kernel.runs('br0', 60_000))
  run('ip', 'route', 'add', 'default', 'nexthop', 'via', '10.9.0.7', 'nexthop', 'via', '10.9.0.8', 'dev', 'br0')
  run('ip', 'nexthop', 'add', 'id', '7', 'via', '10.9.0.7', 'dev', 'br0')
  run('ip', 'nexthop', 'add', 'id', '8', 'via', '10.9.0.8', 'dev', 'br0')
  run('ip', 'nexthop', 'add', 'id', '9', 'group', '7/8')
  run('ip', 'route', 'add', '10.6.0.0/16', 'nhid', '9')
  run('ip', '-6', 'route', 'add', 'fd00:6::/64', 'nexthop', 'via', 'fd00:9::7', 'nexthop', 'via', 'fd00:9::8')
  await using watch = new Watch(kernel)
  for (const text of ['0.0.0.0/0', '10.6.0.0/16', 'fd00:6::/64']) {
    const inNetwork = () =>
      [...watch.state.values()].find(
        (object): object is Route => object.kind === 'route' && formatPrefix(object.destination) === text
      )
    await watch.until(text, () => inNetwork() !== undefined)
    const found = inNetwork()
    assert.deepEqual(
      found?.nextHops?.map(({ device }) => device),
      ['br0', 'br0'],
      text
    )
    assert.equal(found?.device, undefined)
  }
  run('sysctl', '-qw', 'net.ipv4.nexthop_compat_mode=0')
  run('ip', 'route', 'add', '10.7.0.0/16', 'nhid', '9')
  run('ip', 'route', 'add', '10.8.0.0/16', 'nhid', '7')
  const of = (text: string) => watch.state.get(keyOf(route(text, {}))) as Route | undefined
  await watch.until(
    'what they name by number',
    () => of('10.8.0.0/16')?.device === 'br0' && of('10.7.0.0/16') !== undefined
  )
  assert.deepEqual(of('10.7.0.0/16')?.nextHops, [
    { device: 'br0', gateway: ip('10.9.0.7') },
    { device: 'br0', gateway: ip('10.9.0.8') }
  ])
  const changes: RoutingChange[] = []
  kernel.onRouting((change) => changes.push(change))
  run('ip', 'nexthop', 'replace', 'id', '8', 'via', '10.9.0.6', 'dev', 'br0')
  await watch.until(
    'the replaced member',
    () => formatIp(of('10.7.0.0/16')?.nextHops?.[1]?.gateway ?? ip('::')) === '10.9.0.6'
  )
  run('ip', 'nexthop', 'replace', 'id', '7', 'via', '10.9.0.5', 'dev', 'br0')
  await watch.until('the replaced next hop', () => formatIp(of('10.8.0.0/16')?.gateway ?? ip('::')) === '10.9.0.5')
  assert.deepEqual(changes, [{}, {}], 'the ways to other nodes may have changed')
  run('ip', 'nexthop', 'del', 'id', '7')
  await watch.until('the route to go with its next hop', () => of('10.8.0.0/16') === undefined)
  run('sysctl', '-qw', 'net.ipv4.nexthop_compat_mode=1')
  run('ip', 'tuntap', 'add', 'tun7', 'mode', 'tun')
  using socket = new RequestSocket(new Lanes().ordinary)
  const links = [...(await dumpLinks(socket)).values()]
  assert.equal(links.find(({ name }) => name === 'tun7')?.pointToPoint, true)
  assert.equal(links.find(({ name }) => name === 'br0')?.pointToPoint, undefined)
  run('ip', 'tuntap', 'del', 'tun7', 'mode', 'tun')
  run('ip', 'link', 'del', 'port0')
  await applied(kernel, remove(bridge))
})

test('many addresses are looked up in one call, with the rules and tables that apply, and other programs’ changes are told', {
  skip
}, async () => {
  await using kernel = await open()
  const ours = route('10.5.0.0/16', { device: 'weft.9', gateway: ip('10.5.0.0'), onlink: true })
  await applied(kernel, put(bridge), put(address4), put(address6), put(vxlan), put(ours))
  await using watch = new Watch(kernel)
  await watch.shows(ours)
  run('ip', 'route', 'add', 'blackhole', '10.7.0.0/16')
  const looked = await kernel.routesTo([
    ip('10.9.0.7'),
    ip('10.5.0.2'),
    ip('10.7.0.1'),
    ip('99.9.9.9'),
    ip('fd00:9::7')
  ])
  assert.deepEqual(
    looked.map((found) => found && 'device' in found && [found.device, found.gateway !== undefined]),
    [['br0', false], ['weft.9', true], undefined, undefined, ['br0', false]]
  )
  const thousands = await kernel.routesTo(Array.from({ length: 400 }, (_, n) => ip(`10.9.0.${(n % 200) + 2}`)))
  const isByBridge = (found: (typeof thousands)[number]) => found !== undefined && 'device' in found
  assert.equal(thousands.filter(isByBridge).length, 400)
  const tooMany = await kernel.routesTo(Array.from({ length: 40_000 }, (_, n) => ip(`10.9.0.${(n % 200) + 2}`)))
  const lost = tooMany.filter((found) => found instanceof Error)
  assert.match(String(lost[0]), /the route/, 'more answers than the socket takes')
  assert.equal(tooMany.filter(isByBridge).length, 40_000 - lost.length, 'an error is for one address')
  assert.ok(isByBridge(tooMany[0]))

  const changes: (Prefix | undefined)[] = []
  kernel.onRouting(({ destination }: RoutingChange) => changes.push(destination))
  const used = async (from?: { device: string; source: ReturnType<typeof ip> }) =>
    (await kernel.usedRoutes([ip('10.5.0.2')], from)).map(
      (found) => found && 'table' in found && [found.table, found.protocol, found.device]
    )
  assert.deepEqual(await used(), [[254, 87, 'weft.9']])
  run('ip', 'route', 'add', '10.5.0.0/16', 'via', '10.9.0.7', 'table', '52')
  run('ip', 'rule', 'add', 'pref', '5270', 'iif', 'br0', 'lookup', '52')
  await until(async () => changes.includes(undefined), { what: 'the notifications' })
  assert.deepEqual(
    changes.slice(-2).map((destination) => destination && formatPrefix(destination)),
    ['10.5.0.0/16', undefined]
  )
  assert.deepEqual(await used(), [[254, 87, 'weft.9']], 'the rule is for packets that come from the bridge')
  run('sysctl', '-qw', 'net.ipv4.ip_forward=1')
  assert.deepEqual(await used({ device: 'br0', source: ip('10.9.0.5') }), [[52, 3, 'br0']])
  run('ip', 'route', 'flush', 'table', '52')
  run('ip', 'route', 'add', 'unreachable', '10.5.0.0/16', 'table', '52')
  assert.deepEqual(await used({ device: 'br0', source: ip('10.9.0.5') }), [undefined], 'unreachable for pods alone')
  run('ip', 'route', 'flush', 'table', '52')
  run('ip', 'route', 'add', '10.5.0.0/16', 'via', '10.9.0.7', 'table', '52')
  run('sysctl', '-qw', 'net.ipv4.ip_forward=0')
  assert.deepEqual(await used({ device: 'br0', source: ip('10.9.0.5') }), [[254, 87, 'weft.9']], 'not forwarded at all')
  assert.deepEqual(
    (await kernel.rules(4)).map(({ text }) => text),
    [
      '0: from all lookup local',
      '5270: from all iif br0 lookup 52',
      '32766: from all lookup main',
      '32767: from all lookup default'
    ]
  )
  run('ip', 'rule', 'del', 'pref', '5270')
  run('ip', 'route', 'flush', 'table', '52')
  run('ip', 'route', 'del', 'blackhole', '10.7.0.0/16')
  await applied(kernel, remove(vxlan), remove(bridge))
})

for (const [family, address] of [
  [4, address4],
  [6, address6]
] as const)
  test(`IPv${family}: the route that the kernel adds with an address is put back, and goes with the address`, {
    skip
  }, async () => {
    await using kernel = await open()
    const [ours] = address.kind === 'address' ? connected('br0', address.prefix) : []
    assert.ok(ours && address.kind === 'address')
    await applied(kernel, put(bridge), put(address))
    await using watch = new Watch(kernel)
    await watch.shows(ours)
    await applied(kernel, put(ours))
    // Without a port the bridge has no carrier, and no link-local address.
    run('ip', 'link', 'add', 'port0', 'master', 'br0', 'up', 'type', 'veth', 'peer', 'name', 'port1')
    run('ip', 'link', 'set', 'port1', 'up')
    const linkLocal = family === 4 ? [] : connectedLinkLocal('br0', mac('02:00:00:00:00:01'))
    for (const each of linkLocal) {
      const address = addressKeyOf(each)
      await watch.until('the link-local address', () => address !== undefined && watch.state.has(address))
    }
    run('ip', `-${family}`, 'route', 'flush', 'dev', 'br0')
    for (const each of [ours, ...linkLocal]) {
      await watch.lacks(each)
      await applied(kernel, put(each))
      await watch.shows(each)
    }
    if (family === 6) assert.match(run('ip', '-6', 'route', 'show', 'dev', 'br0'), /fe80::\/64 proto kernel metric 256/)
    run('ip', 'link', 'del', 'port0')
    assert.equal((await kernel.routeTo(ip(family === 4 ? '10.9.0.77' : 'fd00:9::77')))?.device, 'br0')
    await applied(kernel, remove(address))
    kernel.recheck('the test')
    await watch.lacks(ours)
    await applied(kernel, remove(bridge))
  })
