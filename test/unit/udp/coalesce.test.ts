// Packets of one TCP stream are handed over as one; cut again, they are what came in, and nothing changes its order
// within a stream.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Coalescer, HEAD } from '../../../daemon/udp/coalesce.ts'
import { noCounters } from '../../../daemon/udp/counters.ts'
import { memoryOf } from '../../../daemon/udp/memory.ts'
import { sendFrame } from '../../../daemon/udp/segment.ts'
import { PeerTable } from '../../../daemon/udp/table.ts'
import { tcpPacket } from './packets.ts'

const [HERE, POD, NODE] = [0x0af4_0102, 0x0af4_0203, 0xc0a8_0a02]

function peers(): PeerTable {
  const table = new PeerTable()
  table.set({ network: 0x0af4_0200, length: 24, to: NODE })
  return table
}

/** The frames that the device gets for these packets. */
function handedOver(packets: readonly Uint8Array[], sender = NODE) {
  const received = memoryOf(new Uint8Array(Buffer.concat(packets)))
  const head = memoryOf(new Uint8Array(HEAD))
  const [counters, frames] = [noCounters(), [] as Uint8Array[]]
  let pieces: Uint8Array[] = []
  const coalescer = new Coalescer(
    received,
    peers(),
    {
      head,
      most: 512,
      piece: (at, length) => void pieces.push(received.bytes.slice(at, at + length)),
      write: (length) => {
        frames.push(new Uint8Array(Buffer.concat([head.bytes.slice(0, length), ...pieces])))
        pieces = []
      }
    },
    counters
  )
  let from = 0
  for (const { length } of packets) {
    coalescer.packet(from, length, sender)
    from += length
  }
  coalescer.flush()
  return { frames, counters }
}

/** The kernel's part: cutting frames into packets again. */
function cut(frames: readonly Uint8Array[]): readonly Uint8Array[] {
  const table = new PeerTable()
  table.set({ network: 0x0af4_0100, length: 24, to: NODE })
  const packets: Uint8Array[] = []
  for (const frame of frames) {
    const memory = memoryOf(new Uint8Array(1 << 18))
    let used = 0
    const rooms: (readonly [number, number])[] = []
    const room = (length: number) => {
      rooms.push([used, length])
      used += length
      return used - length
    }
    sendFrame(memoryOf(frame), frame.length, table, { memory, room }, noCounters())
    for (const [at, length] of rooms) packets.push(memory.bytes.slice(at, at + length))
  }
  return packets
}

const stream = fc.record({
  source: fc.integer({ min: POD, max: POD + 2 }),
  first: fc.nat({ max: 0xffff_ffff }),
  ids: fc.nat({ max: 0xf000 }),
  sizes: fc.array(fc.constantFrom(1_408, 1_408, 1_408, 700, 1), { maxLength: 30 }),
  push: fc.nat({ max: 30 })
})

const packetsOf = ({ source, first, ids, sizes, push }: typeof stream extends fc.Arbitrary<infer T> ? T : never) => {
  let sequence = first
  return sizes.map((size, at) => {
    const flags = at === push ? 0x08 : 0
    const payload = new Uint8Array(size).fill(at)
    const packet = tcpPacket({ source, destination: HERE, sequence, flags, payload, id: ids + at })
    sequence = (sequence + size) % 2 ** 32
    return packet
  })
}

test('cut again, the frames are the packets that came in, in their order', () => {
  fc.assert(
    fc.property(fc.array(stream, { maxLength: 4 }), (streams) => {
      const packets = streams.flatMap(packetsOf)
      const { frames, counters } = handedOver(packets)
      assert.equal(counters.received, packets.length)
      assert.ok(frames.length <= packets.length)
      // The kernel numbers the pieces of a large packet itself; here they were numbered so before.
      assert.deepEqual(cut(frames).map(hex), packets.map(hex))
    }),
    { numRuns: 200 }
  )
})

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')
const run = (count: number, more: object = {}) =>
  Array.from({ length: count }, (_, at) =>
    tcpPacket({
      ...{ source: POD, destination: HERE, sequence: 1_000 + at * 1_000, flags: 0, id: 5 + at },
      payload: new Uint8Array(1_000).fill(at),
      ...more
    })
  )

test('a run of packets is one frame, with the fields by which the kernel cuts it', () => {
  const { frames } = handedOver(run(40))
  assert.equal(frames.length, 1)
  const view = new DataView((frames[0] as Uint8Array).buffer)
  const [flags, kind] = [view.getUint8(0), view.getUint8(1)]
  assert.deepEqual([flags, kind], [1, 1])
  const fields = [2, 4, 6, 8].map((at) => view.getUint16(at, true))
  assert.deepEqual(fields, [40, 1_000, 20, 16], 'headers, piece, checksum from and at')
  assert.equal(view.getUint16(12), 40 + 40_000)
})

test('what does not continue the one before begins a frame of its own', () => {
  const [a, b, c] = run(3) as [Uint8Array, Uint8Array, Uint8Array]
  const corrupted = Uint8Array.from(b)
  corrupted[60] = 99
  const cases: readonly (readonly [string, readonly Uint8Array[], number])[] = [
    ['a gap', [a, c], 2],
    ['another TTL', [a, run(2, { ttl: 60 })[1] as Uint8Array], 2],
    ['options', [a, run(2, { options: new Uint8Array(12).fill(1) })[1] as Uint8Array], 2],
    ['a wrong checksum, which the receiver must see', [a, corrupted, c], 3],
    ['FIN', [a, run(2, { flags: 1 })[1] as Uint8Array], 2],
    ['what follows the end of data', [run(1, { flags: 8 })[0] as Uint8Array, b], 2]
  ]
  for (const [what, packets, frames] of cases) assert.equal(handedOver(packets).frames.length, frames, what)
})

test('a packet of a pod that another node sent, and what is no packet, is counted and dropped', () => {
  assert.deepEqual(handedOver(run(2), NODE + 1).frames, [])
  assert.equal(handedOver(run(2), NODE + 1).counters.foreignSender, 2)
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ minLength: 1, maxLength: 100 })), (noise) => {
      const { counters, frames } = handedOver(noise)
      assert.equal(counters.malformed + counters.foreignSender + counters.received, noise.length)
      assert.ok(frames.length <= counters.received)
    })
  )
})
