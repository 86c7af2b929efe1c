// The ring of repairs: in words, the latest first, never more than 1,000, and no long texts.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Health } from '../../../daemon/health/health.ts'
import { createMetrics } from '../../../daemon/health/metrics.ts'
import type { DriftReport } from '../../../daemon/reconcile/drift.ts'
import { RecentChanges } from '../../../daemon/reconcile/recent-changes.ts'
import { repairReport } from '../../../daemon/reconcile/repair-report.ts'
import { silent } from '../logs.ts'

const report = (over: Partial<DriftReport> = {}): DriftReport => ({
  ...{ object: 'route 10.244.3.0/24', kind: 'route', what: 'removed', unnamed: undefined, device: 'eth0' },
  ...{ by: { self: false, pid: 611, name: 'NetworkManager' }, afterMs: 3.04, because: undefined },
  ...{ times: 1, isRepeated: false, ...over }
})

test('what is reported as a repair is kept, with what weftd did, who made it necessary, and how long it took', () => {
  const changes = new RecentChanges(() => 7)
  const { drift } = repairReport(silent, createMetrics(), new Health(Date.now, () => undefined), changes)
  drift(report())
  drift(report({ what: 'changed (mtu)', object: 'link weft.1', by: undefined, unnamed: 'the kernel does not say' }))
  drift(report({ what: 'added' }))
  assert.deepEqual(
    changes.list().map(({ text, culprit, unnamed }) => [text, culprit, unnamed]),
    [
      ['removed route 10.244.3.0/24', 'NetworkManager (611)', undefined],
      ['changed back (mtu) link weft.1', undefined, 'the kernel does not say'],
      ['put back route 10.244.3.0/24', 'NetworkManager (611)', undefined]
    ]
  )
  assert.deepEqual([changes.list()[0]?.at, changes.list()[0]?.tookMs], [7, 3])
})

test('the last 1,000 are kept, the latest first, each with at most 300 characters of its object', () => {
  const changes = new RecentChanges(() => 0)
  for (let n = 1; n <= 2_500; n++) changes.add(report({ object: `object ${n}` }))
  const texts = changes.list().map(({ text }) => text)
  assert.deepEqual([texts.length, texts[0], texts.at(-1)], [1_000, 'put back object 2500', 'put back object 1501'])
  changes.add(report({ object: 'x'.repeat(10_000) }))
  assert.equal(changes.list()[0]?.text, `put back ${'x'.repeat(299)}…`)
})

test('what weftd did by itself is in the same list, and by nobody else', () => {
  const changes = new RecentChanges(() => 7)
  changes.add(report())
  changes.note('turned transmit checksum offload of weft.1 off')
  const [own] = changes.list()
  assert.deepEqual([own?.at, own?.isOwn, own?.culprit, own?.tookMs], [7, true, undefined, undefined])
})
