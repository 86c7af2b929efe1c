// What must not mislead a prober: a limit of echo, and answers to the probes of another lease.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { lookOf } from '../../../daemon/underlay/probe-look.ts'
import { AT_MARK, LANES } from '../../../daemon/underlay/probe-packet.ts'
import { ProbeRecord } from '../../../daemon/underlay/probe-record.ts'
import { ProbeSlots } from '../../../daemon/underlay/probe-slots.ts'
import { ProbeNetwork } from './probe-network.ts'

test('a peer that takes one echo request a second loses no large packets', () => {
  const network = new ProbeNetwork(2, 1)
  let last = Number.NEGATIVE_INFINITY
  network.carries = ({ isAnswer, nodes }) => {
    if (isAnswer || nodes[1] !== 2) return true
    if (network.time - last < 1_000) return false
    last = network.time
    return true
  }
  const seen = new Set<string>()
  for (let seconds = 0; seconds < 120; seconds++) {
    network.step(1_000)
    seen.add(network.node(1).verdict(2))
  }
  assert.deepEqual(
    [...seen].filter((verdict) => verdict !== 'not-asked'),
    ['whole']
  )
})

test('an answer to a probe of the lease, or the address, that the slot had before is none', () => {
  const network = new ProbeNetwork(3, 1)
  network.node(1).drop(3)
  network.step(5_000)
  assert.equal(network.node(1).verdict(2), 'whole')
  const kept: Uint8Array[] = []
  const deliver = network.deliver.bind(network)
  network.deliver = (_from, _to, message) => {
    const answer = new Uint8Array(20 + message.length)
    answer[0] = 0x45
    answer.set(message, 20)
    answer[20] = 0
    kept.push(answer)
  }
  network.step(5_000)
  assert.ok(kept.length > 0)
  network.node(1).drop(2)
  network.step(250)
  network.node(1).put(3)
  network.step(250)
  for (const answer of kept.slice(0, 3))
    for (const to of ['10.64.1.0', '192.0.0.1']) network.node(1).receive(to, answer)
  assert.equal(network.node(1).verdict(3), 'not-asked')
  network.deliver = deliver
  network.step(5_000)
  assert.equal(network.node(1).verdict(3), 'whole')
})

test('probes carry a mark that only their process knows', () => {
  const marks = [1, 2].map(() => {
    const network = new ProbeNetwork(2)
    const found = new Map<string, number>()
    network.deliver = (from, _to, message) => {
      found.set(from, Buffer.from(message).readUInt32BE(8 + AT_MARK))
    }
    network.step(1_000)
    return found
  })
  const [one, again] = marks
  assert.notEqual(one?.get('10.64.1.0'), one?.get('10.64.2.0'))
  assert.ok(one?.get('10.64.1.0') !== 0)
  assert.equal(one?.get('10.64.1.0'), again?.get('10.64.1.0'))
})

test('that a peer takes its plain route counts for three of its turns', () => {
  const [record, slots] = [new ProbeRecord(), new ProbeSlots()]
  const slot = record.add({ high: 1, low: 1 })
  slots.add(slot, { key: 'peer', family: 4, pair: 1, now: 1 })
  record.heard(
    slot,
    0,
    LANES.map(() => undefined),
    100
  )
  slots.setPlainThere(slot, true, false)
  assert.equal(lookOf(slot, 'plain', { slots, record, now: 600 }).isHeardWhole, true)
  assert.equal(lookOf(slot, 'plain', { slots, record, now: 800 }).isHeardWhole, false)
})
