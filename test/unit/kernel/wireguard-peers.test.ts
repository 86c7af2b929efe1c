// A peer that roams: when its endpoint is a difference, and when it is written.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { observedPeer, peerChange } from '../../../daemon/kernel/wireguard-peers.ts'
import { sameObject } from '../../../daemon/state/object.ts'
import { Secret, type WgPeer } from '../../../daemon/state/wireguard.ts'
import type { PeerState } from '../../../daemon/state/wireguard-port.ts'
import { parseIp, parsePrefix } from '../../../ipam/address.ts'

const ip = (text: string) => parseIp(text) ?? assert.fail(text)
const prefix = (text: string) => parsePrefix(text) ?? assert.fail(text)
const key = Buffer.alloc(32, 2).toString('base64')
const at = (address: string) => ({ ip: ip(address), port: 51820 })
const NOW = 1_700_000_000_000

const wanted: WgPeer = {
  ...{ kind: 'wg-peer', device: 'weft-wg', publicKey: key, endpoint: at('192.0.2.2'), keepalive: 0 },
  ...{ allowedIps: [prefix('10.244.2.0/24')], presharedKey: null }
}
const state = (address: string, secondsAgo: number): PeerState => ({
  ...{ publicKey: key, endpoint: at(address), presharedKey: undefined, keepalive: 0 },
  ...{ allowedIps: [prefix('10.244.2.0/24')] },
  traffic: { handshakeAt: NOW - secondsAgo * 1_000, sent: 1, received: 1 }
})
const observed = (peer: PeerState, desired: WgPeer | undefined = wanted) =>
  observedPeer('weft-wg', peer, () => desired, NOW)

test('a peer that is heard elsewhere is no difference while its session lasts, and one afterwards', () => {
  assert.equal(sameObject(wanted, observed(state('198.51.100.7', 179))), true)
  assert.equal(sameObject(wanted, observed(state('198.51.100.7', 180))), false)
})

test('a lease with another address is a difference at once, and is written', () => {
  const have = observed(state('198.51.100.7', 10))
  const moved: WgPeer = { ...wanted, endpoint: at('192.0.2.9') }
  assert.equal(sameObject(moved, have), false)
  assert.deepEqual(peerChange({ do: 'put', object: moved, instead: have }), {
    ...{ publicKey: key, endpoint: at('192.0.2.9') }
  })
})

test('after a start a peer that was just heard stays where it is, and what else differs is written', () => {
  const have = observedPeer('weft-wg', state('198.51.100.7', 10), () => undefined, NOW)
  const object: WgPeer = { ...wanted, keepalive: 25 }
  assert.deepEqual(peerChange({ do: 'put', object, instead: have }), { publicKey: key, keepalive: 25 })
  const old = observedPeer('weft-wg', state('198.51.100.7', 200), () => undefined, NOW)
  assert.deepEqual(peerChange({ do: 'put', object: wanted, instead: old }), {
    publicKey: key,
    endpoint: wanted.endpoint
  })
})

test('a new peer is written with all that it has, and one that goes by its key', () => {
  const presharedKey = new Secret(key)
  const { endpoint, allowedIps, keepalive } = wanted
  assert.deepEqual(peerChange({ do: 'put', object: { ...wanted, presharedKey } }), {
    ...{ publicKey: key, endpoint, allowedIps, keepalive, presharedKey }
  })
  assert.deepEqual(peerChange({ do: 'remove', object: wanted }), { publicKey: key, remove: true })
})

test('addresses count whatever order they are listed in', () => {
  const both = [prefix('10.244.2.0/24'), prefix('fd00:2::/64')]
  const peer: PeerState = { ...state('192.0.2.2', 10), allowedIps: [...both].reverse() }
  assert.equal(sameObject({ ...wanted, allowedIps: both }, observed(peer)), true)
})
