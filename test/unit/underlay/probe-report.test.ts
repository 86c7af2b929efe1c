// What follows from verdicts: conditions with a count, nothing about nodes that restart, and the report for other nodes.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Verdict } from '../../../daemon/underlay/judge.ts'
import type { Way } from '../../../daemon/underlay/probe-packet.ts'
import { ProbeReport, readReport } from '../../../daemon/underlay/probe-report.ts'
import { keyOf, leaseOf } from './probe-network.ts'

type Known = { readonly n: number; readonly pods: Verdict; readonly nodes?: Verdict; readonly ms?: number }

function scene() {
  const conditions = new Map<string, string>()
  const published: string[] = []
  let known: readonly Known[] = []
  const clock = { now: Date.parse('2026-01-01T00:10:00.400Z') }
  const of = (key: string) => known.find(({ n }) => keyOf(n) === key)
  const look = (key: string, _family: 4 | 6, way: Way) => {
    const { pods = 'whole', nodes = 'whole', ms = 1_000 } = of(key) ?? {}
    const judgement = { verdict: way === 'pods' ? pods : nodes, out: undefined, back: undefined }
    return { judgement, sinceMsAgo: ms, isNew: false, isHeard: true, isHeardWhole: false, dropsHere: false }
  }
  const report = new ProbeReport({
    prober: {
      look,
      forEach: (callback) => {
        for (const { n } of known)
          for (const way of ['pods', 'nodes'] as const)
            callback(keyOf(n), 4, way, look(keyOf(n), 4, way).judgement.verdict)
      }
    },
    views: {
      of: (key) => [
        { way: 'pods', family: 4, verdict: 'lost', since: 0, text: `lost to ${of(key)?.n}`, cure: 'let it pass' }
      ]
    },
    peers: {
      get leases() {
        return new Map(known.map(({ n }) => [keyOf(n), leaseOf(n)]))
      }
    },
    health: {
      raise: (code, detail) => void conditions.set(code, detail),
      clear: (code) => void conditions.delete(code)
    },
    publish: (text) => void published.push(text),
    ...{ nodeName: 'one', now: () => clock.now }
  })
  const see = (...all: readonly Known[]) => {
    known = all
    report.update()
    return Object.fromEntries(conditions)
  }
  return { see, published, report, clock }
}

test('the condition names the peer whose direction is known, and counts the others; it ends with the last', () => {
  const { see, report } = scene()
  assert.deepEqual(see({ n: 2, pods: 'lost' }, { n: 3, pods: 'out-lost' }, { n: 4, pods: 'whole' }), {
    UNDERLAY_LOST: 'lost to 3 (and 1 more node)'
  })
  assert.deepEqual(see({ n: 2, pods: 'large-lost' }, { n: 3, pods: 'host-firewall' }, { n: 4, pods: 'not-asked' }), {})
  assert.equal(report.large?.detail, 'lost to 2')
  assert.deepEqual(see({ n: 2, pods: 'whole' }), {})
  assert.equal(report.large, undefined)
})

test('a number of other nodes that keeps changing is no new condition each time', () => {
  const { see, clock } = scene()
  const lost = (...nodes: readonly number[]) => see(...nodes.map((n): Known => ({ n, pods: 'lost' })))
  assert.deepEqual(lost(2), { UNDERLAY_LOST: 'lost to 2' })
  assert.deepEqual(lost(2, 3), { UNDERLAY_LOST: 'lost to 2' })
  clock.now += 30_000
  assert.deepEqual(lost(2, 3, 4), { UNDERLAY_LOST: 'lost to 2 (and 2 more nodes)' })
  assert.deepEqual(lost(3, 4), { UNDERLAY_LOST: 'lost to 3 (and 1 more node)' }, 'what it says first is at once')
  assert.deepEqual(lost(), {})
  assert.deepEqual(lost(3), { UNDERLAY_LOST: 'lost to 3' })
})

test('a node that is away itself is a condition neither while it may restart nor after an hour', () => {
  const { see } = scene()
  const away = { n: 2, pods: 'lost', nodes: 'lost' } as const
  assert.deepEqual(see({ ...away, ms: 60_000 }), {})
  assert.deepEqual(see({ ...away, ms: 200_000 }), { UNDERLAY_LOST: 'lost to 2' })
  assert.deepEqual(see({ ...away, ms: 4_000_000 }), {})
})

test('where node addresses do not answer, a silent node may be restarting, and one that is heard is not', () => {
  const { see } = scene()
  const silent = { n: 2, pods: 'lost', nodes: 'not-asked' } as const
  assert.deepEqual(see({ ...silent, ms: 60_000 }), {})
  assert.deepEqual(see({ ...silent, ms: 200_000 }), { UNDERLAY_LOST: 'lost to 2' })
  assert.deepEqual(see({ ...silent, ms: 4_000_000 }), { UNDERLAY_LOST: 'lost to 2' })
  assert.deepEqual(see({ ...silent, pods: 'out-lost', ms: 1_000 }), { UNDERLAY_LOST: 'lost to 2' })
})

test('a report of few peers is published with each change', () => {
  const { see, published } = scene()
  for (let count = 0; count < 3; count++)
    see(...Array.from({ length: 80 }, (_, at): Known => ({ n: at + 2, pods: at < count ? 'lost' : 'whole' })))
  assert.equal(published.length, 3)
})

test('the more peers, the longer between two reports, and the last one is published in the end', () => {
  const { see, published, clock } = scene()
  const peers = Array.from({ length: 200 }, (_, at): Known => ({ n: at + 2, pods: 'whole' }))
  const lost = (count: number) => peers.map((peer, at): Known => (at < count ? { ...peer, pods: 'lost' } : peer))
  see(...peers)
  clock.now += 60_000
  for (const count of [1, 2, 3]) {
    see(...lost(count))
    clock.now += 500
  }
  assert.equal(published.length, 2)
  clock.now += 12_000
  see(...lost(3))
  const report = readReport(published[2] ?? '')
  assert.deepEqual([report?.bad.length, report?.cut], [3, undefined])
  // The clock is set back.
  clock.now -= 3_600_000
  see(...lost(150))
  const full = readReport(published[3] ?? '')
  assert.deepEqual([full?.bad.length, full?.cut], [100, true])
})

test('a report is published when it changes, and read by others with checks', () => {
  const { see, published } = scene()
  see({ n: 2, pods: 'lost' }, { n: 3, pods: 'whole' }, { n: 4, pods: 'not-asked' })
  see({ n: 2, pods: 'lost' }, { n: 3, pods: 'whole' }, { n: 4, pods: 'not-asked' })
  assert.equal(published.length, 1)
  const since = '2026-01-01T00:09:59.000Z'
  assert.deepEqual(readReport(published[0] ?? ''), {
    ...{ node: 'one', at: '2026-01-01T00:10:00.400Z', asked: 2 },
    bad: [{ key: keyOf(2), way: 'pods', family: 'ipv4', verdict: 'lost', since }]
  })
  const whole = { node: 'x', at: '', asked: 1 }
  assert.deepEqual(readReport(JSON.stringify({ ...whole, bad: [{ key: 'k' }, null, 7] }))?.bad, [])
  const way = { key: 'k', way: 'pods', family: 'ipv4', verdict: 'lost', since: whole.at }
  const hostile = [
    { ...way, key: 'k'.repeat(101) },
    { ...way, way: '__proto__' },
    { ...way, family: 'ipv4\u001b[2J' },
    { ...way, since: ' '.repeat(41) },
    { ...way, more: 'x'.repeat(1_000) }
  ]
  assert.deepEqual(readReport(JSON.stringify({ ...whole, bad: hostile }))?.bad, [way])
  const long = [
    { node: 'n'.repeat(254) },
    { at: ' '.repeat(41) },
    { asked: 1.5 },
    { asked: '3' },
    { more: 'x'.repeat(1 << 20) }
  ]
  for (const over of long) assert.equal(readReport(JSON.stringify({ ...whole, ...over })), undefined)
  for (const text of ['', '7', '[]', 'null', JSON.stringify({ ...whole, bad: 1 }), JSON.stringify({ bad: [] })])
    assert.equal(readReport(text), undefined, text)
})
