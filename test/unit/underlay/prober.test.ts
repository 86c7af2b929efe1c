// Nodes that probe each other over a network with faults: what each of them says, how soon, and what it sends.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import type { Place } from '../../../daemon/node/place.ts'
import { digestOf, isSentBy } from '../../../daemon/underlay/probe-ends.ts'
import { type Way, writeProbe } from '../../../daemon/underlay/probe-packet.ts'
import { Turns } from '../../../daemon/underlay/turns.ts'
import { type Ip, parseIp } from '../../../ipam/address.ts'
import { keyOf, type Packet, ProbeNetwork } from './probe-network.ts'

const ipOf = (text: string): Ip => parseIp(text) ?? assert.fail(text)
const isInner = ({ from }: Packet) => from.startsWith('10.')
/** Drops what goes by the tunnel from `from` to `to`. */
const tunnel = (from: number, to: number) => (packet: Packet) =>
  isInner(packet) && packet.nodes[0] === from && packet.nodes[1] === to

/** What nodes 1 and 2 say of each other. */
const said = (network: ProbeNetwork, way = 'pods') => [network.node(1).verdict(2, way), network.node(2).verdict(1, way)]

const healthy = (count = 3): ProbeNetwork => {
  const network = new ProbeNetwork(count)
  network.step(10_000)
  for (let n = 2; n <= count; n++) assert.equal(network.node(1).verdict(n), 'whole')
  return network
}

const faults: Readonly<Record<string, { drops: (packet: Packet) => boolean; says: readonly [string, string] }>> = {
  'one way': { drops: tunnel(1, 2), says: ['out-lost', 'back-lost'] },
  'the other way': { drops: tunnel(2, 1), says: ['back-lost', 'out-lost'] },
  'both ways': { drops: (packet) => tunnel(1, 2)(packet) || tunnel(2, 1)(packet), says: ['lost', 'lost'] },
  'large ones': { drops: ({ size }) => size > 1_400, says: ['large-lost', 'large-lost'] },
  'large ones one way': {
    drops: (packet) => tunnel(1, 2)(packet) && packet.size > 1_400,
    says: ['large-lost', 'large-lost']
  },
  'answers alone': { drops: (packet) => isInner(packet) && packet.isAnswer, says: ['host-firewall', 'host-firewall'] },
  'all there is': { drops: () => true, says: ['lost', 'lost'] }
}

for (const [name, { drops, says }] of Object.entries(faults))
  test(`what is lost: ${name}; said within 15 seconds, and whole within 15 seconds afterwards`, () => {
    const network = healthy()
    network.carries = (packet) => !packet.nodes.every((n) => n <= 2) || !drops(packet)
    network.step(15_000)
    assert.deepEqual(said(network), says)
    assert.deepEqual([network.node(3).verdict(1), network.node(3).verdict(2)], ['whole', 'whole'])
    network.step(60_000)
    assert.deepEqual(said(network), says)
    network.carries = () => true
    network.step(15_000)
    assert.deepEqual(
      [said(network), said(network, 'nodes')],
      [
        ['whole', 'whole'],
        ['whole', 'whole']
      ]
    )
  })

test('what a busy node reads late was heard when it arrived: the direction is right', () => {
  for (const [drops, says] of [
    [tunnel(1, 2), ['out-lost', 'back-lost']],
    [tunnel(2, 1), ['back-lost', 'out-lost']]
  ] as const) {
    const network = healthy()
    let asked = 0
    network.carries = (packet) => {
      if (tunnel(1, 2)(packet) && !packet.isAnswer) asked++
      return true
    }
    network.node(2).isBusy = true
    while (asked === 0) network.step(250)
    network.carries = (packet) => !drops(packet)
    network.step(6_000)
    network.node(2).isBusy = false
    network.step(20_000)
    assert.deepEqual(said(network), says)
  }
})

test('of many peers what arrives is read by turns of two seconds; between the turns of few, packets wake it up', () => {
  const [few, many] = [new ProbeNetwork(3, 1), new ProbeNetwork(500, 1)]
  for (const network of [few, many]) network.step(60_000)
  assert.ok(few.node(1).watches > 0)
  const [sent, watches] = [many.sent, many.node(1).watches]
  let turns = 0
  for (const end = many.time + 120_000; many.time < end; turns++)
    many.time += many.node(1).prober?.tick() ?? assert.fail('it does not probe')
  assert.ok(many.sent - sent > 1_000, `${many.sent - sent} probes`)
  assert.equal(many.node(1).watches, watches)
  assert.ok(turns <= 75, `${turns} turns`)
})

test('the sentence names both ends, port, direction and size, and the cure', () => {
  const network = healthy()
  network.carries = (packet) => !tunnel(1, 2)(packet)
  network.step(15_000)
  const way = network.node(1).way(2)
  assert.match(
    way.text,
    /^UDP port 8472 from this node \(192\.0\.0\.1\) to node-2 \(192\.0\.0\.2\) is lost: probes from node-2/
  )
  assert.match(way.cure ?? '', /^let UDP port 8472 pass from 192\.0\.0\.1 to 192\.0\.0\.2: firewalls/)
  assert.match(network.node(2).way(1).text, /from node-1 \(192\.0\.0\.1\) to this node \(192\.0\.0\.2\) is lost/)
  network.carries = (packet) => !(tunnel(1, 2)(packet) && packet.size > 1_400)
  network.step(15_000)
  assert.match(
    network.node(2).way(1).text,
    /^packets of 1450 bytes \(1500 between the nodes\) from node-1 \(192\.0\.0\.1\) to this node \(192\.0\.0\.2\) are lost, but small ones pass$/
  )
  assert.match(network.node(1).way(3).text, /^10\.64\.3\.0 answers in 0\.00 ms, at 84 and at 1450 bytes$/)
})

test('a stopped daemon is no fault, a node that is gone is, and of a peer that sends nothing no direction is said', () => {
  const network = new ProbeNetwork(2, 1)
  network.step(10_000)
  const [one] = [network.node(1)]
  assert.equal(one.verdict(2), 'whole')
  network.carries = (packet) => !isInner(packet)
  network.step(15_000)
  assert.equal(one.verdict(2), 'lost')
  assert.match(one.way(2).text, /lost, direction unknown; 192\.0\.0\.2 itself answers$/)
  network.carries = () => true
  network.node(2).isUp = false
  network.step(40_000)
  assert.deepEqual([one.verdict(2), one.verdict(2, 'nodes')], ['lost', 'lost'])
  assert.match(one.way(2).text, /192\.0\.0\.2 does not answer either$/)
})

test('a firewall that drops ICMP on a node is told from a lost way, and whose it is, also without its daemon', () => {
  const network = healthy(2)
  network.node(2).drops = true
  network.step(20_000)
  assert.deepEqual(said(network), ['host-firewall', 'host-firewall'])
  assert.match(network.node(1).way(2).text, /^packets to and from node-2 arrive, .* the firewall of node-2 drops it/)
  assert.match(network.node(2).way(1).text, /the firewall of this node drops it/)
  network.node(2).drops = false
  network.step(15_000)
  assert.deepEqual(said(network), ['whole', 'whole'])
  const half = new ProbeNetwork(2, 1)
  half.step(10_000)
  half.node(1).drops = true
  half.step(20_000)
  assert.equal(half.node(1).verdict(2), 'host-firewall')
})

test('nothing is said of a lease in its first thirty seconds, nor while our own link is down', () => {
  const network = new ProbeNetwork(2)
  network.node(2).isUp = false
  network.step(29_000)
  assert.equal(network.node(1).verdict(2), 'not-asked')
  assert.match(network.node(1).way(2).text, /may still be setting up/)
  network.step(10_000)
  assert.equal(network.node(1).verdict(2), 'lost')
  network.node(2).isUp = true
  network.step(15_000)
  assert.equal(network.node(1).verdict(2), 'whole')
  network.node(1).isUp = false
  network.node(1).conditions = ['LINK_DOWN']
  network.step(60_000)
  assert.equal(network.node(1).verdict(2), 'whole')
})

test('a node whose firewall drops forwarded packets tells its peers that plain routes to it are refused', () => {
  const network = healthy()
  const refused = () => [...(network.node(1).prober?.refused() ?? [])]
  assert.deepEqual(refused(), [])
  network.node(2).plainDrop = 'a rule'
  network.step(5_000)
  assert.deepEqual(refused(), [keyOf(2)])
  network.node(2).plainDrop = undefined
  network.step(5_000)
  assert.deepEqual(refused(), [])
})

test('ICMP dropped between node addresses, or on all of a node, is no fault of pods ways', () => {
  const network = new ProbeNetwork(2)
  network.carries = isInner
  network.step(60_000)
  assert.deepEqual(
    [said(network), said(network, 'nodes')],
    [
      ['whole', 'whole'],
      ['not-asked', 'not-asked']
    ]
  )
  assert.match(network.node(1).way(2, 'nodes').text, /pods do not depend on it/)
})

test('host-gw: a flanneld without pods has no address to ask, which is said; a node that probes has one', () => {
  const network = new ProbeNetwork(3, 2, 'host-gw')
  network.carries = ({ to }) => !to.startsWith('10.')
  network.step(60_000)
  assert.equal(network.node(1).verdict(3), 'not-asked')
  assert.match(network.node(1).way(3).text, /a flanneld has none before its first pod/)
  assert.equal(network.node(1).verdict(2), 'lost')
  network.carries = () => true
  network.step(15_000)
  assert.deepEqual([network.node(1).verdict(2), network.node(1).verdict(3)], ['whole', 'whole'])
})

test('leases that go are forgotten, those that return are asked at once', () => {
  const network = healthy()
  network.node(1).drop(2)
  network.step(1_000)
  assert.equal(network.node(1).verdict(2), 'not-asked')
  network.node(1).put(2)
  network.step(2_000)
  assert.equal(network.node(1).verdict(2), 'whole')
})

test('500 peers, 5 % of them faulty: exactly those are said, within ten minutes, with few packets a second', () => {
  const network = new ProbeNetwork(500, 1)
  const one = network.node(1)
  network.step(60_000)
  const wrong = () => Array.from({ length: 499 }, (_, at) => at + 2).filter((n) => one.verdict(n) !== 'whole')
  assert.deepEqual(wrong(), [])
  network.carries = (packet) => !isInner(packet) || Math.max(...packet.nodes) % 20 !== 0
  const before = network.sent
  network.step(600_000)
  assert.deepEqual(
    wrong(),
    Array.from({ length: 25 }, (_, at) => 20 * (at + 1))
  )
  const each = (network.sent - before) / 600
  assert.ok(each < 60, `${each} packets a second`)
  network.carries = () => true
  network.step(15_000)
  assert.deepEqual(wrong(), [])
})

test('it sleeps until somebody is due, and asks several together; one timer, which changes make shorter', async () => {
  const network = new ProbeNetwork(11, 1)
  const prober = network.node(1).prober ?? assert.fail()
  let [turns, sends] = [0, 0]
  for (let time = 0; time < 60_000; ) {
    const [sent, pause] = [network.sent, prober.tick()]
    turns++
    if (network.sent > sent) sends++
    network.time += pause
    time += pause
  }
  assert.ok(turns <= 65 && sends <= 60, `${turns} turns, ${sends} with probes, in 60 s`)
  assert.ok(network.sent >= 3 * 10 * 11, `${network.sent} probes`)
  network.node(5).isUp = false
  const end = network.time + 13_000
  while (network.time < end && network.node(1).verdict(5) === 'whole') network.time += prober.tick()
  assert.equal(network.node(1).verdict(5), 'lost')

  const [controller, done] = [new AbortController(), Promise.withResolvers<void>()]
  let runs = 0
  const following = new Turns(() => {
    if (++runs === 2) done.resolve()
    return 3_600_000
  })
  const over = following.follow(controller.signal)
  while (Number(runs) === 0) await turn()
  following.within(1)
  await done.promise
  controller.abort(new Error('over'))
  await assert.rejects(over, /over/)
  following.within(0)
  await assert.rejects(
    new Turns(() => {
      throw new Error('broken')
    }).follow(new AbortController().signal),
    /broken/
  )
  assert.equal(runs, 2)
})

test('a pod that writes the digest of a node into a probe decides nothing about plain routes, nor what was heard', () => {
  const network = healthy()
  const { prober } = network.node(1)
  const forge = (from: string, to: string, lane: number) => {
    const message = new Uint8Array(128)
    const length = writeProbe(
      message,
      {
        ...{ family: 4, mark: 0, sent: 1, slot: 0, lane, sender: digestOf(keyOf(2), 4), mtu: 128 },
        ...{ heardAgo: [0, 0, 0, 0, 0], isTrouble: false, isPlain: true, isPlainRefused: true }
      },
      () => new Uint8Array(8)
    )
    const packet = new Uint8Array(20 + length)
    packet[0] = 0x45
    packet.set(from.split('.').map(Number), 12)
    packet.set(message.subarray(0, length), 20)
    network.node(1).receive(to, packet)
  }
  const heard = () => [...(prober?.refused() ?? [])]
  for (const lane of [0, 1, 3, 4]) forge('10.64.2.7', '10.64.1.0', lane)
  // With the address of its own node, which translates.
  forge('192.0.0.3', '192.0.0.1', 2)
  forge('192.0.0.3', '192.0.0.1', 0)
  assert.deepEqual([heard(), prober?.look(keyOf(2), 4, 'plain')?.isHeardWhole ?? false], [[], false])
  forge('10.64.2.0', '10.64.1.0', 0)
  assert.deepEqual(heard(), [keyOf(2)])
})

test('a probe to the address of a node never comes from the pod network', () => {
  const conf = { families: { 4: { network: { ip: ipOf('10.64.0.0'), length: 10 } } } } as unknown as Place['conf']
  const pods = { source: ipOf('10.64.1.0'), to: ipOf('10.64.2.0') }
  const isBy = (source: string, way: Way) => isSentBy(ipOf(source), way, { pods }, conf)
  assert.deepEqual(
    [isBy('10.64.2.7', 'nodes'), isBy('192.0.0.2', 'nodes'), isBy('192.0.0.2', 'pods')],
    [false, true, false]
  )
})
