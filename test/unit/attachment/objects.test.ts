// What an attachment asks of the kernel, as `ip` would print it: bridge and routed mode, each family, and what a
// configuration can change.
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { forwarding } from '../../../daemon/attachment/forwarding.ts'
import {
  aliasOf,
  bridgeMac,
  hostMac,
  hostName,
  mayBeOf,
  parseAlias,
  peerName,
  podMac
} from '../../../daemon/attachment/identity.ts'
import { podObjects, type Wiring } from '../../../daemon/attachment/objects.ts'
import { resultOf } from '../../../daemon/attachment/result.ts'
import { toCni } from '../../../daemon/cni/result.ts'
import { type KernelObject, type Link, parseMac, type Route, stateOf } from '../../../daemon/state/object.ts'
import { textOf } from '../../../daemon/state/text.ts'
import { everything, parseIp, parsePrefix } from '../../../ipam/address.ts'
import { routeFrom } from '../../../plugins/keys/routes.ts'
import { dualStackNode, testNode } from '../test-node.ts'
import { attachmentOf, poolAddresses } from './attachment.ts'

const cluster = [parsePrefix('10.244.0.0/16') ?? assert.fail()]
const wiring = (over: Partial<Wiring> = {}): Wiring => ({
  mode: 'bridge',
  mtu: 1450,
  clusterNetworks: cluster,
  ...over
})
const texts = (objects: readonly KernelObject[]) => objects.map(textOf)
const prefix = (text: string) => parsePrefix(text) ?? assert.fail(text)
const v4 = poolAddresses('10.244.1.2/24')
const both = poolAddresses('10.244.1.2/24', 'fd00:0:0:1::2/64')
const node = testNode({ ipv6: false })
const pod = attachmentOf()

describe('bridge mode', () => {
  it('makes bridge and gateway, a port with alias, and address and default route in the container', () => {
    const { bridge, host, inside } = podObjects(pod, v4, node, wiring())
    assert.deepEqual(texts(bridge), [
      `link cni0 type bridge address ${bridgeMac(node.identity, 'cni0')} up`,
      'sysctl net/ipv4/conf/cni0/proxy_arp=1',
      'sysctl net/ipv4/neigh/cni0/proxy_delay=0',
      'sysctl net/ipv4/conf/cni0/forwarding=1',
      'address 10.244.1.1/24 dev cni0',
      'route 10.244.1.0/24 dev cni0 proto 2 scope link src 10.244.1.1'
    ])
    assert.deepEqual(texts(host), [
      `link ${hostName(pod)} type veth peer eth0 netns /run/netns/p1 master cni0 mtu 1450 address ${hostMac(pod)} hairpin off up`
    ])
    assert.equal((host[0] as Link).alias, 'weft net1 c0ffee eth0 @cni0;10.244.1.1/24 default/web-1')
    assert.deepEqual(texts(inside), [
      'address 10.244.1.2/24 dev eth0',
      'link eth0 up',
      'route default via 10.244.1.1 dev eth0 proto 3'
    ])
    for (const object of [...bridge, ...host, ...inside]) assert.equal(object.because, 'pod default/web-1')
  })

  it('asks nothing of IPv6 where the MTU is too small for it', () => {
    const small = podObjects(pod, v4, testNode(), wiring({ mtu: 1279 }))
    assert.deepEqual(
      small.bridge.filter((object) => textOf(object).includes('ipv6')),
      []
    )
    assert.equal((small.host[0] as Link).linkLocal, undefined)
    assert.equal((podObjects(pod, v4, testNode(), wiring({ mtu: 1280 })).host[0] as Link).linkLocal, false)
  })

  it('is the same for both families, with IPv6 switched on and no address ever tentative', () => {
    const { bridge, inside } = podObjects(pod, both, dualStackNode(), wiring())
    assert.deepEqual(texts(bridge).slice(1), [
      'sysctl net/ipv6/conf/cni0/accept_ra=0',
      'sysctl net/ipv6/conf/cni0/accept_dad=0',
      'sysctl net/ipv4/conf/cni0/proxy_arp=1',
      'sysctl net/ipv4/neigh/cni0/proxy_delay=0',
      'sysctl net/ipv6/conf/cni0/proxy_ndp=1',
      'sysctl net/ipv6/neigh/cni0/proxy_delay=0',
      'sysctl net/ipv6/conf/cni0/forwarding=1',
      'sysctl net/ipv4/conf/cni0/forwarding=1',
      'sysctl net/ipv6/conf/cni0/addr_gen_mode=0',
      'sysctl net/ipv6/conf/cni0/disable_ipv6=0',
      'address 10.244.1.1/24 dev cni0',
      'route 10.244.1.0/24 dev cni0 proto 2 scope link src 10.244.1.1',
      'address fd00:0:0:1::1/64 dev cni0',
      'route fd00:0:0:1::/64 dev cni0 proto 2 metric 256',
      'route fe80::/64 dev cni0 proto 2 metric 256'
    ])
    assert.deepEqual(texts(inside), [
      'sysctl net/ipv6/conf/eth0/accept_dad=0',
      'sysctl net/ipv6/conf/eth0/disable_ipv6=0',
      'address 10.244.1.2/24 dev eth0',
      'address fd00:0:0:1::2/64 dev eth0',
      'link eth0 up',
      'route default via 10.244.1.1 dev eth0 proto 3',
      'route default via fd00:0:0:1::1 dev eth0 proto 3'
    ])
    for (const object of [...bridge, ...inside]) {
      if (object.kind === 'address') assert.equal(object.nodad, object.prefix.ip.family === 6 ? true : undefined)
    }
  })

  it('switches IPv6 on only where pods have it, and nothing on a bridge that is no gateway', () => {
    const alone = podObjects(pod, v4, testNode(), wiring()).bridge
    assert.doesNotMatch(texts(alone).join('\n'), /disable_ipv6|ipv6\/conf\/cni0\/forwarding/)
    const layer2 = attachmentOf({ interface: { like: { kind: 'bridge', isGateway: false, forcesAddress: false } } })
    assert.doesNotMatch(
      texts(podObjects(layer2, both, dualStackNode(), wiring()).bridge).join('\n'),
      /forwarding|disable_ipv6/
    )
  })

  it('leaves the MAC of a bridge that exists as it is', () => {
    const mac = parseMac('0a:58:0a:f4:01:01') ?? assert.fail()
    const bridge: Link = { kind: 'link', name: 'cni0', form: { type: 'bridge' }, up: true, mtu: 1400, mac }
    assert.equal(
      texts(podObjects(pod, v4, node, wiring({ bridge })).bridge)[0],
      `link cni0 type bridge address ${mac} up`
    )
    assert.deepEqual(resultOf(pod, v4, node, wiring({ bridge })).interfaces[0], { name: 'cni0', mac })
  })

  it('takes name, hairpin, MAC and MTU from the configuration', () => {
    const asked = attachmentOf({ interface: { bridge: 'br7', isHairpin: true, mac: '02:00:00:00:00:07' } })
    const { host, inside } = podObjects(asked, v4, node, wiring({ mtu: 1400 }))
    assert.match(texts(host)[0] ?? '', /master br7 mtu 1400 .* hairpin on/)
    const form = (host[0] as Link).form
    assert.deepEqual(form?.type === 'veth' && form.peer, {
      name: 'eth0',
      mac: '02:00:00:00:00:07',
      mtu: 1400,
      sandbox: '/run/netns/p1'
    })
    assert.equal(texts(inside)[0], 'sysctl net/ipv4/conf/eth0/arp_notify=1')
  })
})

describe('routed mode', () => {
  it('needs no bridge: a host route out, a static neighbour and an on-link gateway in', () => {
    const { bridge, host, inside } = podObjects(pod, both, dualStackNode(), wiring({ mode: 'routed' }))
    const link = hostName(pod)
    assert.deepEqual(bridge, [])
    assert.deepEqual(texts(host).slice(1), [
      `sysctl net/ipv6/conf/${link}/accept_ra=0`,
      `sysctl net/ipv6/conf/${link}/accept_dad=0`,
      `sysctl net/ipv4/conf/${link}/forwarding=1`,
      `sysctl net/ipv6/conf/${link}/addr_gen_mode=0`,
      `sysctl net/ipv6/conf/${link}/disable_ipv6=0`,
      `address 10.244.1.1/32 dev ${link}`,
      `route 10.244.1.2/32 dev ${link} proto 87 scope link src 10.244.1.1`,
      `address fd00:0:0:1::1/128 dev ${link}`,
      `route fd00:0:0:1::2/128 dev ${link} proto 87 src fd00:0:0:1::1`,
      'neigh proxy fd00:0:0:1::2 dev cni0 proto 87'
    ])
    assert.equal((host[0] as Link).master, undefined)
    assert.deepEqual(texts(inside).slice(2), [
      'address 10.244.1.2/32 dev eth0',
      'address fd00:0:0:1::2/128 dev eth0',
      'link eth0 up',
      `neigh 10.244.1.1 lladdr ${hostMac(pod)} dev eth0 nud permanent`,
      `neigh fd00:0:0:1::1 lladdr ${hostMac(pod)} dev eth0 nud permanent`,
      'route default via 10.244.1.1 dev eth0 proto 3 onlink',
      'route default via fd00:0:0:1::1 dev eth0 proto 3 onlink'
    ])
  })
})

describe('routes of the pod', () => {
  const routesOf = (over: Parameters<typeof attachmentOf>[0]) =>
    texts(podObjects(attachmentOf(over), v4, node, wiring()).inside).filter((text) => text.startsWith('route'))
  const ipam = (
    ...routes: readonly {
      readonly dst: string
      readonly gw?: string
      readonly priority?: number
      readonly table?: number
      readonly mtu?: number
    }[]
  ) => ({
    ipam: { dataDir: '/x', requested: [], ranges: [], routes: routes.flatMap((route) => routeFrom(route) ?? []) }
  })

  it("are those configured, by the pool's gateway unless they name one", () => {
    assert.deepEqual(
      routesOf(
        ipam({ dst: '192.168.0.0/16' }, { dst: '172.16.0.0/12', gw: '10.244.1.9', priority: 50, table: 100, mtu: 1300 })
      ),
      [
        'route 192.168.0.0/16 via 10.244.1.1 dev eth0 proto 3',
        'route 172.16.0.0/12 via 10.244.1.9 dev eth0 table 100 proto 3 metric 50 mtu 1300',
        'route default via 10.244.1.1 dev eth0 proto 3'
      ]
    )
  })

  it('have one default route although the configuration has it too, with or without gateway', () => {
    assert.deepEqual(routesOf(ipam({ dst: '0.0.0.0/0' })), ['route default via 10.244.1.1 dev eth0 proto 3'])
    assert.deepEqual(routesOf(ipam({ dst: '0.0.0.0/0', gw: '10.244.1.9' })), [
      'route default via 10.244.1.9 dev eth0 proto 3'
    ])
  })

  it('lead to the cluster when the node is not the default gateway', () => {
    assert.deepEqual(routesOf({ interface: { isDefaultGateway: false } }), [
      'route 10.244.0.0/16 via 10.244.1.1 dev eth0 proto 3'
    ])
  })
})

describe('the result', () => {
  it('lists bridge, host end and container end, and addresses point at the last', () => {
    assert.deepEqual(toCni(resultOf(attachmentOf({ dns: { nameservers: ['10.96.0.10'] } }), both, node, wiring())), {
      interfaces: [
        { name: 'cni0', mac: bridgeMac(node.identity, 'cni0') },
        { name: hostName(pod), mac: hostMac(pod), mtu: 1450 },
        { name: 'eth0', mac: '0a:58:0a:f4:01:02', mtu: 1450, sandbox: '/run/netns/p1' }
      ],
      ips: [
        { interface: 2, address: '10.244.1.2/24', gateway: '10.244.1.1' },
        { interface: 2, address: 'fd00:0:0:1::2/64', gateway: 'fd00:0:0:1::1' }
      ],
      routes: [
        { dst: '0.0.0.0/0', gw: '10.244.1.1' },
        { dst: '::/0', gw: 'fd00:0:0:1::1' }
      ],
      dns: { nameservers: ['10.96.0.10'] }
    })
  })

  it('has no bridge and single addresses in routed mode', () => {
    const { interfaces, ips } = toCni(resultOf(pod, v4, node, wiring({ mode: 'routed' })))
    assert.deepEqual(
      interfaces.map(({ name }) => name),
      [hostName(pod), 'eth0']
    )
    assert.deepEqual(ips, [{ interface: 1, address: '10.244.1.2/32', gateway: '10.244.1.1' }])
  })

  it('says all that a caller needs who moves the end and configures it: nothing is made inside', () => {
    const { sandbox: _, ...rest } = attachmentOf({ interface: { isHandedOver: true } })
    for (const mode of ['bridge', 'routed'] as const) {
      const { host, inside } = podObjects(rest, v4, node, wiring({ mode }))
      const form = (host[0] as Link).form
      assert.deepEqual(form?.type === 'veth' && [form.peer?.name, form.peer?.sandbox], [peerName(rest), undefined])
      assert.deepEqual(inside, [])
    }
    const { interfaces, ips, routes } = toCni(resultOf(rest, v4, node, wiring({ mode: 'routed' })))
    assert.deepEqual(interfaces[1], { name: peerName(rest), mac: '0a:58:0a:f4:01:02', mtu: 1450 })
    assert.deepEqual(ips, [{ interface: 1, address: '10.244.1.2/32', gateway: '10.244.1.1' }])
    assert.deepEqual(routes, [
      { dst: '10.244.1.1/32', scope: 253 },
      { dst: '0.0.0.0/0', gw: '10.244.1.1' }
    ])
    assert.deepEqual(toCni(resultOf(rest, v4, node, wiring())).routes, [{ dst: '0.0.0.0/0', gw: '10.244.1.1' }])
  })
})

describe('names', () => {
  const who = { network: 'net1', containerId: 'c0ffee', ifname: 'eth0' }

  it('of the host end are the same each time, differ by each part of the identity, and fit the kernel', () => {
    const others = [
      { ...who, network: 'net2' },
      { ...who, containerId: 'c0ffef' },
      { ...who, ifname: 'eth1' }
    ]
    const names = [who, ...others].map(hostName)
    assert.equal(new Set(names).size, 4)
    for (const name of names) assert.match(name, /^veth[0-9a-f]{8}$/)
    assert.equal(hostName({ ...who }), names[0])
  })

  it("MACs are unicast and administered locally, and the pod's follows from its address", () => {
    for (const mac of [
      hostMac(who),
      podMac(who, []),
      podMac(who, [parseIp('fd00::7') ?? assert.fail()]),
      bridgeMac('machine', 'cni0')
    ]) {
      assert.match(mac, /^[0-9a-f][26ae](:[0-9a-f]{2}){5}$/)
    }
    assert.equal(
      podMac(who, [parseIp('fd00::7') ?? assert.fail(), parseIp('10.1.2.255') ?? assert.fail()]),
      '0a:58:0a:01:02:ff'
    )
    assert.notEqual(
      podMac(who, [parseIp('fd00::7') ?? assert.fail()]),
      podMac(who, [parseIp('fd00::8') ?? assert.fail()])
    )
  })

  it('say in the alias whose link it is, in at most 255 bytes, and are read back', () => {
    const alias = aliasOf(who, { namespace: 'default', name: 'web-1' })
    assert.deepEqual(parseAlias(alias), { ...who, pod: 'default/web-1' })
    assert.deepEqual(parseAlias(aliasOf(who, undefined)), who)
    const bridge = { name: 'br@1', addresses: [prefix('10.1.0.1/24'), prefix('fd00::1/64')] }
    const ported = aliasOf(who, { namespace: '', name: 'a pod' }, bridge)
    assert.deepEqual(parseAlias(ported), { ...who, bridge, pod: 'a pod' })
    // Cut, an address would be another one: then it is left out.
    const full = { ...who, containerId: 'a'.repeat(220) }
    const cut = aliasOf(
      full,
      { namespace: 'n'.repeat(60), name: 'p' },
      { name: 'br', addresses: [prefix('10.100.100.1/24'), prefix('fd00:1:2:3::1/64')] }
    )
    assert.equal(parseAlias(cut)?.bridge, undefined)
    assert.equal(parseAlias(cut)?.containerId, full.containerId)
    for (const other of [undefined, '', 'docker', 'weft']) assert.equal(parseAlias(other), undefined)
    const long = aliasOf({ ...who, ifname: 'ä'.repeat(7) }, { namespace: 'n'.repeat(120), name: 'ü'.repeat(200) })
    assert.ok(Buffer.byteLength(long) <= 255 && Buffer.byteLength(long) >= 253)
    assert.ok(!long.includes('\ufffd'))
  })

  it('have no escape sequences in the alias, whatever CNI_ARGS name, and a link with the alias of before is theirs', () => {
    const bridge = { name: 'br', addresses: [] }
    const alias = aliasOf(who, { namespace: 'n\u001b]0;x\u0007', name: 'p\n\u202e\u009b2J' }, bridge)
    assert.match(alias, /^[ -~]+$/)
    assert.equal(parseAlias(alias)?.pod, 'n\\u001b]0;x\\u0007/p\\n\\u202e\\u009b2J')
    assert.equal(aliasOf(who, undefined, { ...bridge, name: 'b\u001bc' }), aliasOf(who, undefined), 'no wrong bridge')
    const posing = parseAlias(aliasOf(who, { namespace: '', name: '@cni9;10.0.0.1/8' }))
    assert.deepEqual([posing?.bridge, posing?.pod], [undefined, '\\u0040cni9;10.0.0.1/8'])
    const red = { ...who, ifname: 'e\u001b[31m' }
    assert.match(aliasOf(red, undefined), /^[ -~]+$/)
    for (const own of [aliasOf(red, undefined), `weft ${red.network} ${red.containerId} ${red.ifname} n/p\u001b`])
      assert.ok(mayBeOf(red, own))
  })

  it("protect a link of the same name that says it is somebody else's", () => {
    assert.ok(mayBeOf(who, aliasOf(who, { namespace: 'default', name: 'web-1' })))
    assert.ok(mayBeOf(who, undefined))
    assert.ok(!mayBeOf(who, 'weft net1 other eth0'))
    assert.ok(!mayBeOf(who, 'docker'))
    const long = { ...who, containerId: 'a'.repeat(300) }
    assert.ok(mayBeOf(long, aliasOf(long, undefined)))
  })
})

describe('forwarding', () => {
  it('keeps a default route learned from a router, by accept_ra before forwarding', () => {
    const learned: Route = {
      kind: 'route',
      table: 254,
      destination: everything(6),
      metric: 1024,
      type: 'unicast',
      device: 'eth0',
      protocol: 9
    }
    assert.deepEqual(texts(forwarding([4, 6], stateOf([learned]))), [
      'sysctl net/ipv4/ip_forward=1',
      'sysctl net/ipv6/conf/eth0/accept_ra=2',
      'sysctl net/ipv6/conf/all/forwarding=1'
    ])
    assert.deepEqual(texts(forwarding([4], stateOf([learned]))), ['sysctl net/ipv4/ip_forward=1'])
    assert.deepEqual(texts(forwarding([6], stateOf([{ ...learned, protocol: 4 }]))), [
      'sysctl net/ipv6/conf/all/forwarding=1'
    ])
  })
})
