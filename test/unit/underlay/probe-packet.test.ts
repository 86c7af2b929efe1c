// The probe as octets: what is written is read, and nothing else is taken for a probe or an answer.
import assert from 'node:assert/strict'
import { createHmac } from 'node:crypto'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  LANES,
  type Mac,
  type Probe,
  payloadBytes,
  readReceived,
  SMALL_PAYLOAD,
  writeProbe
} from '../../../daemon/underlay/probe-packet.ts'

const macOf =
  (key: string): Mac =>
  (bytes) =>
    createHmac('sha256', key).update(bytes).digest().subarray(0, 8)
const mac = macOf('key')

const probe = (over: Partial<Probe> = {}): Probe => ({
  ...{ family: 4, sent: 1234.5, slot: 70_000, lane: 1, sender: { high: 0xffff_fffe, low: 7 } },
  ...{
    heardAgo: [0, 12, undefined, 70_000, undefined],
    isTrouble: true,
    isPlain: false,
    isPlainRefused: false,
    mtu: 1450
  },
  ...over
})

/** What a raw socket of a peer receives, or, with the type of an answer, ours. */
function onTheWire(sent: Probe, type?: number): Buffer {
  const message = Buffer.alloc(9_000)
  const length = writeProbe(message, sent, mac)
  const icmp = Buffer.from(message.subarray(0, length))
  if (type !== undefined) icmp[0] = type
  const header = Buffer.alloc(sent.family === 4 ? 24 : 0)
  // An IP header with options is longer than twenty octets.
  if (sent.family === 4) {
    header[0] = 0x46
    header.set([10, 244, 2, 0], 12)
  }
  return Buffer.concat([header, icmp])
}

test('a peer reads who sent it, by which way, and what that one heard; we read our own from the answer', () => {
  for (const family of [4, 6] as const)
    for (const [lane] of LANES.entries()) {
      const sent = probe({ family, lane })
      assert.deepEqual(readReceived(onTheWire(sent), family, macOf('the peer has another key')), {
        ...(family === 4 && { source: { family: 4, value: 0x0af4_0200n } }),
        ...{ kind: 'heard', sender: sent.sender, lane, isTrouble: true, isPlain: false, isPlainRefused: false },
        heardAgo: [0, 12, undefined, undefined, undefined]
      })
      // By IPv6 the socket says where it came from; of a long packet the beginning is enough.
      const [whole, from] = [onTheWire(sent), Uint8Array.from({ length: 16 }, (_, at) => at)]
      const heard = readReceived(whole.subarray(0, 128), family, mac, whole.length, from)
      const source = family === 4 ? 0x0af4_0200n : 0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0fn
      assert.deepEqual(heard?.kind === 'heard' && heard.source, { family, value: source })
      const other = readReceived(
        onTheWire({ ...sent, isTrouble: false, isPlain: true, isPlainRefused: true }),
        family,
        mac
      )
      assert.ok(other?.kind === 'heard' && other.isPlain && other.isPlainRefused && !other.isTrouble)
      const answer = readReceived(onTheWire(sent, family === 4 ? 0 : 129), family, mac)
      const size = payloadBytes(family, lane, 1450) + (family === 4 ? 28 : 48)
      assert.deepEqual(answer, { kind: 'answer', sent: 1234.5, slot: 70_000, lane, size })
    }
})

test('the large packet is as long as the largest of a pod, the small one as a ping; the ICMP checksum is right', () => {
  assert.equal(payloadBytes(4, 1, 1450), 1450 - 28)
  assert.equal(payloadBytes(6, 1, 1430), 1430 - 48)
  assert.equal(payloadBytes(4, 0, 1450), SMALL_PAYLOAD)
  // A network with the smallest MTU of IPv4.
  assert.equal(payloadBytes(4, 1, 68), SMALL_PAYLOAD)
  const icmp = onTheWire(probe()).subarray(24)
  let sum = 0
  for (let at = 0; at < icmp.length; at += 2) sum += icmp.readUInt16BE(at)
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  assert.equal(sum, 0xffff)
})

test('an answer to what we did not send, a changed one, another length and another version are none', () => {
  const answer = onTheWire(probe(), 0)
  assert.equal(readReceived(answer, 4, macOf('other')), undefined)
  // Time, slot, length, lane and version; the MAC itself.
  for (const at of [8, 15, 16, 23, 24, 27, 28, 29, 30, 31]) {
    const changed = Buffer.from(answer)
    changed[24 + 8 + at] = (changed[24 + 8 + at] ?? 0) ^ 1
    assert.equal(readReceived(changed, 4, mac), undefined, `octet ${at}`)
  }
  assert.equal(readReceived(answer.subarray(0, -1), 4, mac), undefined)
  assert.equal(readReceived(Buffer.concat([answer, Buffer.alloc(1)]), 4, mac), undefined)
  const request = onTheWire(probe())
  request[24 + 8 + 31] = 2
  assert.equal(readReceived(request, 4, mac), undefined)
  assert.equal(readReceived(onTheWire(probe(), 3), 4, mac), undefined)
})

test('any octets are read without an error', () => {
  const magic = Buffer.from('weftprob')
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.constantFrom(4 as const, 6 as const), (bytes, family) => {
      readReceived(bytes, family, mac)
      const at = family === 4 ? ((bytes[0] ?? 0) & 15) * 4 + 8 : 8
      if (bytes.length >= at + 8) bytes.set(magic, at)
      readReceived(bytes, family, mac)
    })
  )
})
