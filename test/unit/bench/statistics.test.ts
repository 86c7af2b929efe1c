// The numbers of the benchmark's report.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { figure, quantile, type Row, ratio, summary, table } from '../../bench/statistics.ts'

test('quantiles lie between the values, whatever their order', () => {
  assert.equal(quantile([3, 1, 2], 0.5), 2)
  assert.equal(quantile([4, 1, 3, 2], 0.5), 2.5)
  assert.equal(quantile([10, 20], 0.1), 11)
  assert.equal(quantile([7], 0.99), 7)
  assert.ok(Number.isNaN(quantile([], 0.5)))
  assert.deepEqual(summary([1, 2, 3]), { count: 3, median: 2, p10: 1.2, p90: 2.8, p99: 2.98 })
})

test('figures have three digits, and thousands are set apart', () => {
  assert.deepEqual([0.012345, 12.34, 999.4, 12345.6, Number.NaN].map(figure), ['0.0123', '12.3', '999', '12,346', '–'])
})

const row: Row = { what: 'ADD', unit: 'ms', ours: [2, 2, 2], peer: [30, 20, 40], target: 'at most 1/4' }

test('a ratio is read as ours to the peer, and is absent when one side is', () => {
  assert.equal(ratio(row), '1/15')
  assert.equal(ratio({ ...row, ours: [60] }), '2 times')
  assert.equal(ratio({ ...row, ours: [] }), '–')
  assert.equal(ratio({ ...row, by: 'p99', ours: [39.8] }), '1 times')
})

test('a table shows median, spread, ratio, target and rounds', () => {
  const [, , line] = table([row]).split('\n')
  assert.equal(line, '| ADD | ms | 2 (2–2) | 30 (22–38) | 1/15 | at most 1/4 | 3/3 |')
  assert.match(table([{ ...row, ours: [], note: 'why' }]), /\| ADD \(why\) \| ms \| – \| 30/)
})
