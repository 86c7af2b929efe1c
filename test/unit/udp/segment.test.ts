// What the device leaves to us becomes whole packets: large TCP packets are cut as the kernel would cut them.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { noCounters } from '../../../daemon/udp/counters.ts'
import { memoryOf } from '../../../daemon/udp/memory.ts'
import { sendFrame } from '../../../daemon/udp/segment.ts'
import { PeerTable } from '../../../daemon/udp/table.ts'
import { faultsOf, flagsOf, frameOf, idOf, payloadOf, sequenceOf, tcpPacket, withPseudoHeader } from './packets.ts'

const [HERE, POD, NODE] = [0x0af4_0102, 0x0af4_0203, 0xc0a8_0a02]

function sent(frame: ReturnType<typeof frameOf>, length = frame.bytes.length) {
  const memory = memoryOf(new Uint8Array(1 << 18))
  const [rooms, counters, table] = [[] as { from: number; length: number; to: number }[], noCounters(), new PeerTable()]
  table.set({ network: 0x0af4_0200, length: 24, to: NODE })
  let used = 0
  const room = (octets: number, to: number): number => {
    rooms.push({ from: used, length: octets, to })
    used += octets
    return used - octets
  }
  sendFrame(frame, length, table, { memory, room }, counters)
  const packets = rooms.map(({ from, length: octets }) => memory.bytes.slice(from, from + octets))
  return { packets, counters, to: rooms.map(({ to }) => to) }
}

const packet = fc.record({
  source: fc.constant(HERE),
  destination: fc.constant(POD),
  sequence: fc.nat({ max: 0xffff_ffff }),
  flags: fc.nat({ max: 0xff }),
  id: fc.nat({ max: 0xffff }),
  payload: fc.uint8Array({ minLength: 1, maxLength: 20_000, size: 'max' }),
  options: fc.constantFrom(0, 12, 40).map((length) => new Uint8Array(length).fill(1))
})

test('the pieces of a large TCP packet are whole packets that continue each other', () => {
  fc.assert(
    fc.property(packet, fc.integer({ min: 400, max: 9_000 }), (whole, piece) => {
      const { packets, to, counters } = sent(frameOf(tcpPacket(whole), piece))
      assert.deepEqual(packets.flatMap(faultsOf), [])
      assert.ok(to.every((node) => node === NODE))
      assert.deepEqual(Buffer.concat(packets.map(payloadOf)), Buffer.from(whole.payload))
      for (const [at, each] of packets.entries()) {
        const isLast = at === packets.length - 1
        assert.equal(sequenceOf(each), (whole.sequence + at * piece) % 2 ** 32)
        assert.equal(idOf(each), (whole.id + at) % 2 ** 16)
        if (!isLast) assert.equal(payloadOf(each).length, piece)
        // FIN and PSH belong to the end of the data, CWR to its beginning.
        const cleared = (isLast ? 0 : 0x09) | (at === 0 ? 0 : 0x80)
        assert.equal(flagsOf(each), (whole.flags | 0x10) & ~cleared)
      }
      assert.equal(counters.sent, 1)
    }),
    { numRuns: 200 }
  )
})

test('a checksum that the kernel has begun is finished', () => {
  const bytes = tcpPacket({ source: HERE, destination: POD, sequence: 1, flags: 0, payload: Buffer.from('hello') })
  const frame = frameOf(bytes)
  // Of the pseudo header only.
  const begun = withPseudoHeader(bytes).subarray(0, 12)
  let sum = 0
  for (let at = 0; at < 12; at += 2) sum += ((begun[at] as number) << 8) | (begun[at + 1] as number)
  sum = (sum & 0xffff) + (sum >> 16)
  frame.bytes.set([1], 0)
  frame.bytes.set([20, 0, 16, 0], 6)
  frame.bytes.set([sum >> 8, sum & 0xff], 10 + 36)
  assert.deepEqual(
    sent(frame).packets.map((each) => Buffer.from(each)),
    [Buffer.from(bytes)]
  )
})

test('what is of nobody, and what is no IPv4 packet, is counted and goes nowhere', () => {
  const nobody = tcpPacket({ source: HERE, destination: 0x0af4_0305, sequence: 1, flags: 0, payload: Buffer.from('x') })
  assert.equal(sent(frameOf(nobody)).counters.noPeer, 1)
  const ipv6 = new Uint8Array(60)
  ipv6[0] = 0x60
  assert.equal(sent(frameOf(ipv6)).counters.malformed, 1)
})

test('no frame, however wrong, is an error or leaves its memory', () => {
  fc.assert(
    fc.property(packet, fc.uint8Array({ minLength: 10, maxLength: 64 }), fc.nat({ max: 80 }), (whole, noise, at) => {
      const frame = frameOf(tcpPacket({ ...whole, payload: whole.payload.subarray(0, 200) }), 100)
      const place = at % frame.bytes.length
      frame.bytes.set(noise.subarray(0, frame.bytes.length - place), place)
      const { packets, counters } = sent(frame)
      assert.equal(counters.sent + counters.malformed + counters.noPeer, 1)
      if (counters.sent === 0) assert.deepEqual(packets, [])
    })
  )
})
