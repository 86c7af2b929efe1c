// The backends on ipip devices, udp and ipip, and alloc, which has no device: kernel objects as text of `ip`.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BACKENDS, registry } from '../../../daemon/backend/registry.ts'
import { formatLeaseValue, type Lease, parseLease, typeOf } from '../../../daemon/lease/lease.ts'
import { peerObjects } from '../../../daemon/peers/peer-objects.ts'
import { type KernelObject, type Link, stateOf } from '../../../daemon/state/object.ts'
import { mayRemove } from '../../../daemon/state/ownership.ts'
import { textOf } from '../../../daemon/state/text.ts'
import { parseIp, parsePrefix } from '../../../ipam/address.ts'
import { stateText } from '../state-text.ts'
import { dualStackNode, testNode } from '../test-node.ts'

const backends = registry(BACKENDS)
const ip = (text: string) => parseIp(text) ?? assert.fail(text)
const prefix = (text: string) => parsePrefix(text) ?? assert.fail(text)
const lines = (objects: readonly KernelObject[]) => objects.map(textOf)
const lease: Lease = {
  subnet: { 4: prefix('10.244.2.0/24') },
  publicIp: { 4: ip('198.51.100.2') },
  backendType: '',
  backendData: {}
}
const fouNode = testNode({ dataPath: 'fou' })

test('udp: on FOU our end is a port, and a device that sends from it, 28 bytes smaller than the interface', () => {
  const backend = backends.configure('udp', {})
  assert.equal(
    stateText(stateOf(backend.own(fouNode))),
    [
      'address 10.244.1.0/32 dev weft.udp',
      'fou port 8285 local 192.0.2.1 ipproto 4',
      'link weft.udp type ipip local 192.0.2.1 remote any encap fou encap-sport 8285 encap-dport 8285 encap-csum mtu 1472 up',
      'sysctl net/ipv4/conf/weft.udp/forwarding=1',
      'sysctl net/ipv4/conf/weft.udp/rp_filter=2',
      'transmit checksum offload of weft.udp off'
    ].join('\n')
  )
  assert.deepEqual([backend.mtu(fouNode), backend.underlayMtu(fouNode)], [1472, 1500])
})

test('udp: a peer is a route to its public address by the device, whatever the kernel’s own route to it', () => {
  assert.deepEqual(lines(backends.configure('UDP', {}).peer(lease, fouNode)), [
    'route 10.244.2.0/24 via 198.51.100.2 dev weft.udp proto 87 onlink'
  ])
})

test('udp: Port is that of both ends, and 0 is the default', () => {
  const at = (Port: number) => lines(backends.configure('udp', { Port }).own(fouNode)).slice(0, 2).join()
  assert.match(at(9000), /fou port 9000 .*encap-sport 9000 encap-dport 9000/)
  assert.match(at(0), /fou port 8285 /)
  assert.throws(() => at(65_536), /Backend\.Port is 65536; it must be a whole number from 0 to 65535/)
})

test('udp: what the kernel must have for FOU is tried with the configured port', () => {
  const [path, ...others] = backends.configure('udp', { Port: 9000 }).dataPaths
  assert.equal(path?.name, 'fou')
  assert.deepEqual(lines(path?.features ?? []), [
    'fou port 9000 ipproto 4',
    'link try-udp type ipip local 127.0.0.1 remote any encap fou encap-sport 9000 encap-dport 9000 encap-csum'
  ])
  assert.ok(others.every(({ name }) => name !== 'fou'))
})

for (const type of ['udp', 'ipip'])
  test(`${type}: a network with IPv6 is refused, and a peer without a public IPv4 address`, () => {
    assert.throws(() => backends.configure(type, {}).mtu(dualStackNode()), {
      code: 'CONFIG_INVALID',
      message: `EnableIPv6 is true; it must be false with Backend.Type "${type}", which carries IPv4 only`
    })
    const backend = backends.configure(type, {})
    assert.throws(() => backend.peer({ ...lease, publicIp: { 6: ip('2001:db8::2') } }, fouNode), {
      code: 'LEASE_MALFORMED'
    })
    assert.deepEqual(backend.peer({ ...lease, subnet: { 6: prefix('fd00:2::/64') } }, fouNode), [])
  })

test('a lease without BackendType is of udp, and ours is written without, as flanneld’s', () => {
  const value = '{"PublicIP":"198.51.100.2","PublicIPv6":null}'
  const read = parseLease('10.244.2.0-24', value)
  assert.deepEqual([read.backendType, typeOf(read)], ['', 'udp'])
  assert.equal(formatLeaseValue(read), value)
  const backend = backends.configure('udp', {})
  const ours = { ...read, backendType: backend.type, backendData: backend.publish(fouNode) }
  assert.equal(formatLeaseValue(ours), value)
  assert.match(formatLeaseValue({ ...ours, backendType: 'alloc' }), /"BackendType":"alloc"/)
})

test('udp: a peer’s address and subnet are let in; leases of other backends are not', () => {
  const backend = backends.configure('udp', {})
  const view = { node: fouNode, backend, networks: { 4: prefix('10.244.0.0/16') } }
  const result = peerObjects(lease, view)
  assert.ok(result.kind === 'objects')
  assert.deepEqual(lines(result.objects).slice(1), [
    'element inet weft tunnel_nodes_4 { 198.51.100.2 }',
    'element inet weft tunnel_subnets_4 { 10.244.2.0/24 }'
  ])
  assert.equal(peerObjects({ ...lease, backendType: 'vxlan' }, view).kind, 'foreign')
  assert.equal(peerObjects({ ...lease, backendType: 'udp' }, view).kind, 'objects')
})

test('ipip: our end is a device 20 bytes smaller than the interface, and a peer a route to its public address', () => {
  const backend = backends.configure('ipip', {})
  const node = testNode({ dataPath: 'ipip' })
  assert.equal(
    stateText(stateOf(backend.own(node))),
    [
      'address 10.244.1.0/32 dev weft.ipip',
      'link weft.ipip type ipip local 192.0.2.1 remote any mtu 1480 up',
      'sysctl net/ipv4/conf/weft.ipip/forwarding=1',
      'sysctl net/ipv4/conf/weft.ipip/rp_filter=2'
    ].join('\n')
  )
  assert.deepEqual([backend.mtu(node), backend.underlayMtu(node)], [1480, 1500])
  assert.deepEqual(lines(backend.peer(lease, node)), [
    'route 10.244.2.0/24 via 198.51.100.2 dev weft.ipip proto 87 onlink'
  ])
})

test('ipip: with DirectRouting a peer on our link gets a direct route, without it once it is proven, with false never', () => {
  for (const [keys, passes, isDirect] of [
    [{}, undefined, false],
    [{}, true, true],
    [{ DirectRouting: true }, undefined, true],
    [{ DirectRouting: true }, false, false],
    [{ directrouting: false }, true, false]
  ] as const) {
    const backend = backends.configure('ipip', keys)
    const routes = { 4: { device: 'eth0', ...(passes !== undefined && { passes }) } }
    const [route = ''] = lines(backend.peer(lease, testNode(), routes))
    assert.equal(route.includes('dev eth0'), isDirect, `${JSON.stringify(keys)} ${passes}`)
    assert.equal(backend.plain === undefined, 'directrouting' in keys)
  }
  const plain = backends.configure('ipip', {}).plain ?? assert.fail('no choice')
  assert.deepEqual(lines(plain(lease, testNode(), { 4: { device: 'eth0' } })), [
    'route 10.244.2.0/32 via 198.51.100.2 dev eth0 tos 0xc proto 87'
  ])
})

test('ipip: flanneld’s device with our address is adopted under its name, another is not', () => {
  const existing = (local: string, name = 'flannel.ipip'): Link => ({
    ...{ kind: 'link', name, form: { type: 'ipip', local: ip(local) } }
  })
  const backend = backends.configure('ipip', {})
  const names = (link: Link) => {
    const node = testNode({ links: [link] })
    const [route] = backend.peer(lease, node)
    return [(backend.own(node)[0] as Link).name, route?.kind === 'route' && route.device, backend.entry?.(node).device]
  }
  assert.deepEqual(names(existing('192.0.2.1')), new Array(3).fill('flannel.ipip'))
  assert.deepEqual(names(existing('192.0.2.9')), new Array(3).fill('weft.ipip'))
  assert.deepEqual(names(existing('192.0.2.1', 'tun-of-somebody')), new Array(3).fill('weft.ipip'))
})

for (const [what, device, expected] of [
  ['the device of udp', { name: 'weft.udp', form: { type: 'ipip', local: ip('192.0.2.1') } }, 'own'],
  ['the device of udp, by its name alone', { name: 'weft.udp' }, 'own'],
  ['the device of ipip', { name: 'weft.ipip', form: { type: 'ipip', local: ip('192.0.2.1') } }, 'own'],
  ['flanneld’s ipip device', { name: 'flannel.ipip' }, 'adoptable'],
  ['an ipip device of another program', { name: 'ipip1', form: { type: 'ipip', local: ip('192.0.2.1') } }, 'foreign'],
  ['the kernel’s own', { name: 'tunl0', form: { type: 'other', of: 'ipip' } }, undefined]
] as const)
  test(`${what} is recognised as ${expected ?? 'nothing'}`, () => {
    assert.equal(backends.recognises(device), expected)
    assert.equal(mayRemove({ kind: 'link', ...device }, backends.recognises), expected === 'own' && 'form' in device)
  })

test('alloc: a lease and an MTU, and nothing in the kernel, in either family', () => {
  const backend = backends.configure('alloc', {})
  assert.deepEqual(backend.own(dualStackNode()), [])
  assert.deepEqual(backend.peer(lease, dualStackNode()), [])
  assert.deepEqual(backend.publish(dualStackNode()), {})
  assert.equal(backend.mtu(dualStackNode()), 1500)
  assert.equal(backend.entry, undefined)
})

test('what each type needs of a kernel is known for all of them', () => {
  const needs = new Map(backends.needs.map(({ type, oneOf }) => [type, oneOf.map(lines)]))
  assert.deepEqual(needs.get('alloc'), [[]])
  assert.deepEqual(needs.get('ipip'), [['link try-ipip type ipip local 127.0.0.1 remote any']])
  assert.equal(needs.get('vxlan')?.[0]?.length, 1)
})
