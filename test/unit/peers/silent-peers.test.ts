// A node that does not answer by WireGuard, by the traffic that dumps show and a clock that the test sets.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SilentPeers } from '../../../daemon/peers/silent-peers.ts'
import { type KernelObject, stateOf } from '../../../daemon/state/object.ts'
import type { WgPeer } from '../../../daemon/state/wireguard.ts'
import { parseIp } from '../../../ipam/address.ts'

const ip = (text: string) => parseIp(text) ?? assert.fail(text)
const START = 1_700_000_000_000

function scene() {
  const wanted: WgPeer = {
    ...{ kind: 'wg-peer', device: 'weft-wg', publicKey: 'key', allowedIps: [] },
    ...{ endpoint: { ip: ip('192.0.2.2'), port: 51820 }, because: 'lease 10.244.2.0-24 of 192.0.2.2' }
  }
  let [observed, desired, now] = [[] as KernelObject[], [wanted] as KernelObject[], START]
  let detail: string | undefined
  const peers = new SilentPeers({
    reconciler: {
      get observed() {
        return stateOf(observed)
      },
      get desired() {
        return stateOf(desired)
      },
      onObserved: () => undefined
    },
    health: {
      raise: (_, text) => {
        detail = text
      },
      clear: () => {
        detail = undefined
      }
    },
    now: () => now
  })
  return {
    /** A dump after so many seconds. */
    dump: (seconds: number, sent: number, handshake = 0): string | undefined => {
      now = START + seconds * 1_000
      const handshakeAt = handshake === 0 ? 0 : START + handshake * 1_000
      observed = [{ ...wanted, traffic: { sent, received: 0, handshakeAt } }]
      peers.look()
      return detail
    },
    forget: () => {
      desired = []
    }
  }
}

test('packets are sent for three minutes without a handshake: the node and the port are named', () => {
  const { dump } = scene()
  assert.equal(dump(0, 0), undefined)
  assert.equal(dump(60, 148), undefined)
  assert.equal(dump(180, 400), undefined)
  const detail = dump(240, 600) ?? ''
  assert.match(detail, /no handshake for 3 minutes with lease 10\.244\.2\.0-24 of 192\.0\.2\.2 \(UDP port 51820\)/)
  assert.equal(dump(300, 800, 290), undefined, 'it answered')
})

test('an idle peer is not silent, however long its last handshake is ago', () => {
  const { dump } = scene()
  for (const seconds of [0, 60, 600, 6_000]) assert.equal(dump(seconds, 148, 1), undefined)
  assert.equal(dump(6_060, 300, 6_055), undefined, 'it answers at once')
})

test('a peer that was quiet has three minutes from its first packet', () => {
  const { dump } = scene()
  assert.equal(dump(0, 0), undefined)
  assert.equal(dump(6_000, 148), undefined)
  assert.equal(dump(6_060, 148), undefined, 'nobody sends any more')
  assert.equal(dump(6_240, 300), undefined)
  assert.ok(dump(6_420, 400))
})

test('a node whose lease is gone is not spoken of', () => {
  const { dump, forget } = scene()
  dump(0, 0)
  dump(60, 148)
  assert.ok(dump(240, 300))
  forget()
  assert.equal(dump(300, 400), undefined)
})
