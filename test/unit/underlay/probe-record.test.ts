// From what was sent, answered and heard to a verdict; who is asked when; and what each peer costs.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { judge, type LaneFacts } from '../../../daemon/underlay/judge.ts'
import { LANES, PLAIN_LANES, POD_LANES } from '../../../daemon/underlay/probe-packet.ts'
import { ProbeRecord } from '../../../daemon/underlay/probe-record.ts'
import { interval, lostInterval, pairOf, patience, phase } from '../../../daemon/underlay/probe-schedule.ts'
import { ProbeSlots } from '../../../daemon/underlay/probe-slots.ts'

const facts = (state: LaneFacts['state'], out?: boolean, back?: boolean): LaneFacts => ({ state, out, back })
const answered = facts('answered', true, true)

test('the judge: every fact that a size can have', () => {
  const rows: readonly (readonly [LaneFacts, LaneFacts | undefined, string])[] = [
    [answered, answered, 'whole'],
    [answered, undefined, 'whole'],
    [facts('open'), answered, 'not-asked'],
    [answered, facts('open'), 'not-asked'],
    [facts('missed', false, true), facts('missed'), 'out-lost'],
    [facts('missed', true, false), facts('missed'), 'back-lost'],
    [facts('missed', true, true), facts('missed'), 'host-firewall'],
    [facts('missed', false, false), facts('missed'), 'lost'],
    [facts('missed'), facts('missed'), 'lost'],
    [facts('missed', undefined, true), facts('missed'), 'lost'],
    [facts('missed'), undefined, 'lost'],
    [answered, facts('missed', false, true), 'large-lost'],
    [answered, facts('missed'), 'large-lost'],
    [answered, facts('missed', true, true), 'host-firewall']
  ]
  for (const [small, large, verdict] of rows)
    assert.equal(judge({ small, large }).verdict, verdict, JSON.stringify({ small, large }))
})

/** Three probes without an answer in the pods' lanes, from `at` on. */
function loses(record: ProbeRecord, slot: number, at: number, lanes: readonly number[] = POD_LANES): void {
  for (const time of [at, at + 10, at + 30]) {
    for (const lane of POD_LANES) {
      record.asked(slot, lane, time)
      if (!lanes.includes(lane)) record.answered(slot, lane, time, 500)
    }
    record.settle(slot)
  }
}

const NEVER = LANES.map(() => undefined)
/** The peer says that it heard each of these lanes so many tenths of a second ago. */
const heardAgo = (ago: Readonly<Record<number, number>>) => LANES.map((_, lane) => ago[lane])

test('a peer is lost after three misses, in the direction that its own probes show, and whole with an answer', () => {
  const record = new ProbeRecord()
  const slot = record.add({ high: 1, low: 2 })
  const verdict = () => record.judge(slot, 'pods').verdict
  assert.equal(verdict(), 'not-asked')
  for (const lane of POD_LANES) {
    record.asked(slot, lane, 5)
    record.answered(slot, lane, 5, 700)
  }
  assert.deepEqual([record.settle(slot), verdict(), record.roundTrip(slot, 'pods')], [0, 'whole', 700])
  // Both heard each other before the fault began: that says nothing.
  record.heard(slot, 0, heardAgo({ 0: 1 }), 6)
  loses(record, slot, 50)
  assert.deepEqual([record.misses(slot), verdict()], [3, 'lost'])
  // Its probe by the other way says that it still has not heard ours, and its own did not come by this one.
  record.heard(slot, 2, heardAgo({ 0: 75, 1: 75 }), 81)
  assert.deepEqual(record.judge(slot, 'pods'), { verdict: 'lost', out: false, back: false })
  record.heard(slot, 2, heardAgo({ 0: 2, 1: 75 }), 82)
  assert.equal(verdict(), 'back-lost')
  record.heard(slot, 0, heardAgo({ 0: 2 }), 82)
  assert.equal(verdict(), 'host-firewall')
  for (const lane of POD_LANES) {
    record.asked(slot, lane, 90)
    record.answered(slot, lane, 90, 600)
  }
  assert.deepEqual([verdict(), record.misses(slot), record.answeredAt(slot, 'pods')], ['whole', 0, 90])
})

test('who hears the other and gets no answer does not get out; large ones are lost where small ones arrive', () => {
  const record = new ProbeRecord()
  const [a, b] = [record.add({ high: 1, low: 1 }), record.add({ high: 1, low: 2 })]
  loses(record, a, 50)
  record.heard(a, 0, NEVER, 85)
  assert.equal(record.judge(a, 'pods').verdict, 'out-lost')
  loses(record, b, 50, [1])
  assert.equal(record.judge(b, 'pods').verdict, 'large-lost')
  // The peer hears our large ones, and of its own only small ones arrive: they are lost on the way here.
  record.heard(b, 0, heardAgo({ 0: 1, 1: 1 }), 85)
  assert.deepEqual(record.judge(b, 'pods'), { verdict: 'large-lost', out: true, back: false })
})

test('a late answer counts, one to another slot or from the future does not', () => {
  const record = new ProbeRecord()
  const slot = record.add({ high: 1, low: 1 })
  record.asked(slot, 0, 10)
  record.settle(slot)
  record.asked(slot, 0, 20)
  record.answered(slot, 0, 10, 1_100_000)
  assert.deepEqual([record.misses(slot), record.answeredAt(slot, 'pods')], [0, 10])
  record.answered(slot, 0, 30, 1)
  assert.equal(record.answeredAt(slot, 'pods'), 10)
  record.remove(slot)
  record.answered(slot, 0, 20, 1)
  assert.equal(record.answeredAt(record.add({ high: 9, low: 9 }), 'pods'), 0)
})

test('peers are found by digest whatever was added and removed before, and 5,000 cost less than a megabyte', () => {
  const [record, slots] = [new ProbeRecord(), new ProbeSlots()]
  const digest = (n: number) => ({ high: n, low: Math.imul(n, 0x9e37_79b1) >>> 0 })
  const held = new Map<number, number>()
  for (let n = 1; n <= 5_000; n++) {
    const slot = record.add(digest(n))
    held.set(n, slot)
    slots.add(slot, { key: String(n), family: 4, pair: n, now: 1 })
  }
  for (let round = 0; round < 3; round++) {
    for (let n = round + 1; n <= 5_000; n += 2) record.remove(held.get(n) ?? assert.fail())
    for (let n = round + 1; n <= 5_000; n += 2) assert.equal(record.slotOf(digest(n)), undefined)
    for (let n = round + 1; n <= 5_000; n += 2) held.set(n, record.add(digest(n)))
    for (const [n, slot] of held) assert.equal(record.slotOf(digest(n)), slot)
  }
  assert.equal(record.size, 5_000)
  assert.equal(new Set(held.values()).size, 5_000)
  const bytes = record.bytes + slots.bytes
  assert.ok(bytes < 1_000_000, `${bytes} bytes`)
})

test('the plain way costs memory while it is tried, and while a peer tries its own', () => {
  const [record, slots] = [new ProbeRecord(), new ProbeSlots()]
  const [small, large] = PLAIN_LANES
  const peers = Array.from({ length: 250 }, (_, n) => record.add({ high: 1, low: n }))
  const bytes = record.bytes
  const [slot = 0, other = 1] = peers
  for (const lane of PLAIN_LANES) {
    record.asked(slot, lane, 10)
    record.heard(slot, lane, NEVER, 11)
    record.answered(slot, lane, 10, 700)
  }
  assert.deepEqual(
    [record.judge(slot, 'plain').verdict, record.roundTrip(slot, 'plain'), record.isHeard(slot, 'plain', 600, 20)],
    ['whole', 700, true]
  )
  assert.equal(record.judge(other, 'plain').verdict, 'not-asked')
  assert.deepEqual(record.heardAgo(other, 20), NEVER)
  record.forgetPlain(slot)
  assert.equal(record.judge(slot, 'plain').verdict, 'not-asked')
  // All try theirs one after the other, as do the peers of those.
  for (const [n, each] of peers.entries()) {
    record.asked(each, small, 1_000 * n)
    record.heard(each, large, NEVER, 1_000 * n)
    record.forgetPlain(each)
    record.heard(each, large, NEVER, 1_000 * n + 50)
  }
  assert.ok(record.bytes <= 2 * bytes, `${record.bytes} bytes, ${bytes} before`)
  const next = record.add({ high: 2, low: 2 })
  slots.add(next, { key: 'next', family: 4, pair: 1, now: 1 })
  assert.deepEqual([record.slotOf({ high: 2, low: 2 }), slots.key(next)], [next, 'next'])
})

test('few peers are asked each five seconds; of many some, and all within ten minutes', () => {
  assert.equal(interval(16, 99), 50)
  for (const peers of [17, 100, 500, 5_000]) {
    const pairs = Array.from({ length: peers }, (_, n) => pairOf(n + 1, 12_345))
    const often = pairs.filter((pair) => interval(peers, pair) === 50).length
    assert.ok(often >= 1 && often <= 30, `${often} of ${peers}`)
    assert.ok(pairs.every((pair) => interval(peers, pair) <= 6_000))
    const each = pairs.reduce((sum, pair) => sum + 10 / interval(peers, pair), 0)
    assert.ok(each < 16, `${each} peers a second of ${peers}`)
  }
  assert.equal(pairOf(7, 8), pairOf(8, 7))
  assert.deepEqual([patience(0), patience(1), patience(2), patience(3)], [10, 20, 40, 40])
  assert.deepEqual([lostInterval(1), lostInterval(64), lostInterval(640)], [50, 50, 500])
  const phases = new Set(Array.from({ length: 200 }, (_, n) => phase(pairOf(n + 1, 1), 5_400)))
  assert.ok(phases.size > 180, `${phases.size} of 200 moments`)
})

test('a peer with both families is one peer, so that its interval is that of its number', () => {
  const slots = new ProbeSlots()
  for (let slot = 0; slot < 30; slot++)
    slots.add(slot, { key: `peer ${slot >> 1}`, family: slot % 2 === 0 ? 4 : 6, pair: 99, now: 1 })
  assert.deepEqual([slots.peers, interval(slots.peers, 99)], [15, 50])
  for (let slot = 0; slot < 30; slot += 2) slots.remove(slot)
  slots.remove(1)
  assert.equal(slots.peers, 14)
})
