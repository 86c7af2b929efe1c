// The node of an address is the one of the longest subnet that contains it, and only a pod's own node speaks for it.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type Peer, PeerTable } from '../../../daemon/udp/table.ts'

const address = fc.nat({ max: 0xffff_ffff })
const peer = fc.record({
  // Few networks, so that subnets overlap and repeat.
  network: fc.nat({ max: 15 }).map((at) => 0x0af4_0000 + at * 0x80),
  length: fc.integer({ min: 16, max: 30 }),
  to: fc.integer({ min: 1, max: 4 })
})

const covers = ({ network, length }: Peer, ip: number): boolean =>
  Math.floor(network / 2 ** (32 - length)) === Math.floor(ip / 2 ** (32 - length))

/** The same by looking at every peer; of equal subnets the later one counts. */
function plainFind(peers: readonly Peer[], ip: number): number {
  let best: Peer | undefined
  for (const each of peers) if (covers(each, ip) && each.length >= (best?.length ?? 0)) best = each
  return best?.to ?? 0
}

test('the longest subnet counts, whatever was put and deleted before', () => {
  const ips = fc.array(
    fc.oneof(
      address,
      fc.nat({ max: 0x7ff }).map((at) => 0x0af4_0000 + at)
    ),
    { minLength: 1 }
  )
  fc.assert(
    fc.property(fc.array(peer), fc.array(peer), ips, (first, gone, addresses) => {
      const table = new PeerTable()
      for (const each of [...first, ...gone]) table.set(each)
      for (const { network, length } of gone) table.delete(network, length)
      const rest = first.filter((each) => !gone.some((one) => one.length === each.length && covers(one, each.network)))
      for (const ip of addresses) assert.equal(table.find(ip), plainFind(rest, ip))
    })
  )
})

test('a pod is spoken for by its own node; other addresses by any node, and by nobody else', () => {
  const table = new PeerTable()
  table.set({ network: 0x0af4_0100, length: 24, to: 1 })
  table.set({ network: 0x0af4_0200, length: 24, to: 2 })
  assert.equal(table.maySend(1, 0x0af4_0105), true)
  assert.equal(table.maySend(2, 0x0af4_0105), false)
  assert.equal(table.maySend(2, 0xc0a8_0a02), true, 'a host address of a node')
  assert.equal(table.maySend(3, 0xc0a8_0a02), false, 'no node')
  assert.equal(table.maySend(3, 0x0af4_0105), false)
  table.delete(0x0af4_0200, 24)
  assert.equal(table.maySend(2, 0xc0a8_0a02), false, 'a node whose lease has gone')
  table.set({ network: 0x0af4_0100, length: 24, to: 3 })
  assert.equal(table.maySend(1, 0xc0a8_0a02), false, 'a node that moved to another address')
  assert.equal(table.maySend(3, 0x0af4_0105), true)
})
