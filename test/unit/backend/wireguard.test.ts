// The wireguard backend: leases and configuration in, kernel objects as text of `ip` and `wg` out.
import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { test } from 'node:test'
import { BACKENDS, registry } from '../../../daemon/backend/registry.ts'
import { wireguard } from '../../../daemon/backend/wireguard.ts'
import { publicKeyOf } from '../../../daemon/base/x25519.ts'
import type { JsonObject } from '../../../daemon/config/json.ts'
import type { Lease } from '../../../daemon/lease/lease.ts'
import { contradictions, merge } from '../../../daemon/state/merge.ts'
import type { Node } from '../../../daemon/state/node.ts'
import { type KernelObject, type Link, sameObject, stateOf } from '../../../daemon/state/object.ts'
import { mayRemove } from '../../../daemon/state/ownership.ts'
import { changeText, textOf } from '../../../daemon/state/text.ts'
import { type WgPeer, wgText } from '../../../daemon/state/wireguard.ts'
import { parseIp, parsePrefix } from '../../../ipam/address.ts'
import { stateText } from '../state-text.ts'
import { dualStackNode, testNode } from '../test-node.ts'

const backends = registry(BACKENDS)
const ip = (text: string) => parseIp(text) ?? assert.fail(text)
const prefix = (text: string) => parsePrefix(text) ?? assert.fail(text)
const lines = (objects: readonly KernelObject[]) => objects.map(textOf)
const key = (octet: number) => Buffer.alloc(32, octet).toString('base64')
const keys = { secret: key(1), publicKey: publicKeyOf(key(1)) }
const [node, dualNode] = [testNode(keys), dualStackNode(keys)]
const lease: Lease = {
  subnet: { 4: prefix('10.244.2.0/24') },
  publicIp: { 4: ip('192.0.2.2') },
  backendType: 'wireguard',
  backendData: { 4: { PublicKey: key(2), Port: 4444 } }
}
const dual: Lease = {
  subnet: { 4: prefix('10.244.2.0/24'), 6: prefix('fd00:0:0:2::/64') },
  publicIp: { 4: ip('192.0.2.2'), 6: ip('2001:db8::2') },
  backendType: 'wireguard',
  backendData: { 4: { PublicKey: key(2), Port: 51820 }, 6: { PublicKey: key(2), Port: 51821 } }
}
const configured = (config: JsonObject = {}) => backends.configure('wireguard', config)
const linkNamed = (name: string): Link => ({ kind: 'link', name, form: { type: 'wireguard' } })

test('our end is one device with our subnet’s address, a key and a port; the private key is in no text', () => {
  const own = configured().own(node)
  assert.equal(
    stateText(stateOf(own)),
    [
      'address 10.244.1.0/32 dev weft-wg',
      'link weft-wg type wireguard mtu 1420 up',
      'sysctl net/ipv4/conf/weft-wg/forwarding=1',
      'sysctl net/ipv4/conf/weft-wg/rp_filter=2',
      'sysctl net/ipv6/conf/weft-wg/accept_ra=0',
      `wg weft-wg public-key ${keys.publicKey} listen-port 51820`
    ].join('\n')
  )
  assert.equal(JSON.stringify(own, (_, each) => (typeof each === 'bigint' ? 0 : each)).includes(keys.secret), false)
})

test('a peer is its key, where it is, what it may send, and a route', () => {
  assert.deepEqual(lines(configured({ PersistentKeepaliveInterval: 25 }).peer(lease, node)), [
    `wg weft-wg peer ${key(2)} endpoint 192.0.2.2:4444 allowed-ips 10.244.2.0/24 persistent-keepalive 25`,
    'route 10.244.2.0/24 dev weft-wg proto 87'
  ])
})

for (const [mode, expected] of [
  ['separate', ['weft-wg 192.0.2.2:51820 10.244.2.0/24', 'weft-wg-v6 [2001:db8::2]:51821 fd00:0:0:2::/64']],
  ['auto', ['weft-wg [2001:db8::2]:51820 10.244.2.0/24,fd00:0:0:2::/64']],
  ['ipv4', ['weft-wg 192.0.2.2:51820 10.244.2.0/24,fd00:0:0:2::/64']],
  ['ipv6', ['weft-wg [2001:db8::2]:51820 10.244.2.0/24,fd00:0:0:2::/64']]
] as const)
  test(`both families in mode ${mode}`, () => {
    const backend = configured({ mode: mode.toUpperCase() })
    const privately: Lease = { ...dual, publicIp: { 4: ip('10.9.9.2'), 6: ip('2001:db8::2') } }
    const peers = backend.peer(mode === 'auto' ? privately : dual, dualNode).filter((each) => each.kind === 'wg-peer')
    const shown = peers.map((peer) => wgText(peer).replace(/^wg (\S+) peer \S+ endpoint (\S+) allowed-ips/, '$1 $2'))
    assert.deepEqual(shown, expected)
    const devices = backend.own(dualNode).flatMap((each) => (each.kind === 'link' ? each.name : []))
    assert.deepEqual(devices, mode === 'separate' ? ['weft-wg', 'weft-wg-v6'] : ['weft-wg'])
    assert.deepEqual(backend.onlyBy?.(dualNode), devices)
    assert.deepEqual(
      backend.ports.map(({ port }) => port),
      mode === 'separate' ? [51820, 51821] : [51820]
    )
    assert.deepEqual(backend.publish(dualNode), {
      4: { PublicKey: keys.publicKey, Port: 51820 },
      6: { PublicKey: keys.publicKey, Port: mode === 'separate' ? 51821 : 51820 }
    })
  })

for (const [four, six, ours, expected] of [
  ['198.51.100.2', '2001:db8::2', '2001:db8::1', 4],
  ['10.9.9.2', '2001:db8::2', '2001:db8::1', 6],
  ['10.9.9.2', 'fd00::2', '2001:db8::1', 4],
  ['10.9.9.2', '2001:db8::2', 'fd00::1', 4],
  ['10.9.9.2', undefined, '2001:db8::1', 4],
  [undefined, '2001:db8::2', '2001:db8::1', 6]
] as const)
  test(`auto: ${four} and ${six} of a peer, ${ours} of ours: IPv${expected}, as flannel chooses`, () => {
    const publicIp = { ...(four && { 4: ip(four) }), ...(six && { 6: ip(six) }) }
    const from: Node = { ...dualNode, publicIp: { ...dualNode.publicIp, 6: ip(ours) } }
    const [peer] = configured({ Mode: 'auto' }).peer({ ...dual, publicIp }, from)
    assert.equal(peer?.kind === 'wg-peer' && peer.endpoint?.ip.family, expected)
  })

test('pods get 80 bytes less, as with flanneld, though IPv4 takes 60', () => {
  assert.deepEqual([configured().mtu(node), configured().underlayMtu(node)], [1420, 1480])
  assert.deepEqual([configured().mtu(dualNode), configured().underlayMtu(dualNode)], [1420, 1500])
  assert.equal(configured({ MTU: 1400 }).mtu(node), 1320)
  assert.throws(() => configured({ MTU: 1600 }).mtu(node), { code: 'CONFIG_INVALID' })
})

test('flanneld’s device is adopted under its name, and another program’s is left alone', () => {
  const adopting = { ...node, links: [linkNamed('flannel-wg')] }
  assert.match(lines(configured().own(adopting)).join('\n'), /link flannel-wg type wireguard/)
  const [own, theirs, foreign] = ['weft-wg', 'flannel-wg', 'wg0'].map((name) => backends.recognises(linkNamed(name)))
  assert.deepEqual([own, theirs, foreign], ['own', 'adoptable', 'foreign'])
  const stale = (device: string): WgPeer => ({ kind: 'wg-peer', device, publicKey: key(9), allowedIps: [] })
  const removable = (device: string) => mayRemove(stale(device), backends.recognises, () => true)
  assert.deepEqual(['weft-wg', 'flannel-wg', 'wg0'].map(removable), [true, true, false])
  assert.equal(mayRemove(stale('flannel-wg'), backends.recognises), false)
})

for (const [what, data, expected] of [
  ['without data', undefined, /PublicKey null/],
  ['with a short key', { PublicKey: 'abc' }, /PublicKey "abc"/],
  ['with a number for a key', { PublicKey: 7 }, /PublicKey 7/],
  ['with a port that is none', { PublicKey: key(2), Port: 65536 }, /Port 65536/],
  ['with our own key', { PublicKey: keys.publicKey }, /this node's own PublicKey/]
] as const)
  test(`a lease ${what} is refused with its name and the value`, () => {
    const backendData = data === undefined ? {} : { 4: data }
    assert.throws(() => configured().peer({ ...lease, backendData }, node), expected)
  })

test('a lease of an older flanneld has no port: ours is taken', () => {
  const [peer] = configured({ ListenPort: 1234 }).peer({ ...lease, backendData: { 4: { PublicKey: key(2) } } }, node)
  assert.match(textOf(peer as WgPeer), /endpoint 192\.0\.2\.2:1234 /)
})

test('a pre-shared key is compared and never shown, a wrong one neither', () => {
  const [PSK, other] = [key(7), key(8)]
  const [with1] = configured({ PSK }).peer(lease, node) as readonly [WgPeer]
  const [with2] = configured({ psk: other }).peer(lease, node) as readonly [WgPeer]
  const [without] = configured().peer(lease, node) as readonly [WgPeer]
  assert.deepEqual(
    [sameObject(with1, with1), sameObject(with1, with2), sameObject(without, with1)],
    [true, false, false]
  )
  const shown = changeText({ do: 'put', object: with1, instead: with2 })
  assert.match(shown, /preshared-key \(secret\)/)
  const json = JSON.stringify(with1, (_, each) => (typeof each === 'bigint' ? 0 : each))
  for (const text of [shown, json, `${with1.presharedKey}`]) assert.equal(text.includes(PSK), false)
  assert.throws(
    () => configured({ PSK: `${PSK}x` }),
    (error: Error) => {
      assert.match(error.message, /Backend\.PSK is not valid/)
      return !error.message.includes(PSK)
    }
  )
})

for (const [name, value] of [
  ['Mode', 'both'],
  ['ListenPort', 0],
  ['ListenPortV6', 65_536],
  ['PersistentKeepaliveInterval', -1],
  ['MTU', 'big']
] as const)
  test(`${name} ${value} is refused by its name`, () => {
    assert.throws(() => configured({ [name]: value }), {
      code: 'CONFIG_INVALID',
      message: new RegExp(`^Backend.${name} `)
    })
  })

test('two nodes with one key are a conflict of that key', () => {
  const [claim] = backends.claims(lease)
  assert.deepEqual([claim?.code, claim?.key, claim?.by], ['WIREGUARD_KEY_CONFLICT', key(2), '192.0.2.2'])
})

test('a lease that has the key of another node in one family only is such a conflict, too', () => {
  const both = { ...lease, backendData: { 4: { PublicKey: key(3) }, 6: { PublicKey: key(2) } } }
  assert.deepEqual(
    backends.claims(both).map((claim) => claim.key),
    [key(3), key(2)]
  )
  const same = { ...lease, backendData: { 4: { PublicKey: key(2) }, 6: { PublicKey: key(2) } } }
  assert.equal(backends.claims(same).length, 1)
})

test('a peer with two leases gets the addresses of both, and is where the latest says', () => {
  const [old] = configured().peer({ ...lease, subnet: { 4: prefix('10.244.7.0/24') } }, node) as readonly [WgPeer]
  const [now] = configured().peer({ ...lease, publicIp: { 4: ip('192.0.2.9') } }, node) as readonly [WgPeer]
  const merged = merge(old, now)
  assert.match(textOf(merged), /endpoint 192\.0\.2\.9:4444 allowed-ips 10\.244\.2\.0\/24,10\.244\.7\.0\/24$/)
  assert.deepEqual(contradictions(old, merged), [])
})

test('a new key is one that WireGuard takes as it is, and its public half is that of OpenSSL', () => {
  const made = wireguard.secret.make(
    (octets) => Buffer.alloc(octets, 0xff),
    (octets) => Buffer.from(octets).toString('base64')
  )
  const octets = Buffer.from(made, 'base64')
  assert.deepEqual([octets.length, octets[0], octets[31]], [32, 0xf8, 0x7f])
  assert.equal(wireguard.secret.isValid(made), true)
  assert.equal(wireguard.secret.isValid(`${made}\n`), false)
  const { privateKey, publicKey } = generateKeyPairSync('x25519')
  const raw = (part: string | undefined) => Buffer.from(part ?? '', 'base64url').toString('base64')
  const [d, x] = [privateKey.export({ format: 'jwk' }).d, publicKey.export({ format: 'jwk' }).x]
  assert.equal(publicKeyOf(raw(d)), raw(x))
})
