// The rules of metric names, and what is read off the process and the table of conditions at a scrape.
import assert from 'node:assert/strict'
import test from 'node:test'
import { CONDITIONS } from '../../../daemon/health/conditions.ts'
import { Health } from '../../../daemon/health/health.ts'
import { createMetrics, observeHealth, observeProcess } from '../../../daemon/health/metrics.ts'

/** The samples of a scrape, by name with labels. */
const scrape = async (metrics: ReturnType<typeof createMetrics>): Promise<Map<string, number>> =>
  new Map(
    (await metrics.registry.metrics())
      .split('\n')
      .filter((line) => line !== '' && !line.startsWith('#'))
      .map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ') + 1))])
  )

test('counters, gauges and histograms come out of the registry they were made with, and of no other', async () => {
  const [one, other] = [createMetrics(), createMetrics()]
  one.counter('weft_repairs_total', 'Repairs.', ['kind']).inc({ kind: 'route' }, 2)
  one.gauge('weft_leases', 'Leases.', [], (gauge) => gauge.set(5))
  one.histogram('weft_cni_step_seconds', 'Steps.', ['step']).observe({ step: 'netlink' }, 0.0007)
  const samples = await scrape(one)
  assert.equal(samples.get('weft_repairs_total{kind="route"}'), 2)
  assert.equal(samples.get('weft_leases'), 5)
  assert.equal(samples.get('weft_cni_step_seconds_bucket{le="0.0005",step="netlink"}'), 0)
  assert.equal(samples.get('weft_cni_step_seconds_bucket{le="0.001",step="netlink"}'), 1)
  assert.equal((await scrape(other)).size, 0)
})

for (const [what, make] of [
  ['a name without our prefix', () => createMetrics().gauge('leases', 'x')],
  ['a counter without _total', () => createMetrics().counter('weft_repairs', 'x')],
  ['a gauge with _total', () => createMetrics().gauge('weft_repairs_total', 'x')],
  ['a histogram without unit', () => createMetrics().histogram('weft_add', 'x')],
  ['another unit than the base one', () => createMetrics().gauge('weft_add_ms', 'x')],
  ['another unit inside', () => createMetrics().counter('weft_add_milliseconds_total', 'x')],
  ['a series per peer', () => createMetrics().counter('weft_repairs_total', 'x', ['peer'])]
] as const) {
  test(`${what} is refused`, () => assert.throws(make, /weft_|leases/))
}

test('the process tells of its memory, its processor time and its version', async () => {
  const metrics = createMetrics()
  observeProcess(metrics, '1.2.3')
  const first = await scrape(metrics)
  assert.equal(first.get(`weft_build_info{version="1.2.3",runtime="${process.version}"}`), 1)
  const resident = first.get('weft_process_resident_memory_bytes') ?? 0
  const anonymous = first.get('weft_process_anonymous_memory_bytes') ?? 0
  assert.ok(anonymous > 1e6 && resident > anonymous, `${resident} ${anonymous}`)
  const cpu = first.get('weft_process_cpu_seconds_total') ?? 0
  let burnt = 0
  for (const start = process.cpuUsage().user; process.cpuUsage().user - start < 50_000; ) burnt++
  const grown = ((await scrape(metrics)).get('weft_process_cpu_seconds_total') ?? 0) - cpu
  assert.ok(grown >= 0.05 && grown < 10, `${grown} after ${burnt} rounds`)
})

test('each condition has a series, which is 1 while it holds', async () => {
  const metrics = createMetrics()
  const health = new Health(
    () => 0,
    () => {}
  )
  observeHealth(metrics, health)
  health.raise('NO_LEASE', 'etcd does not answer')
  let samples = await scrape(metrics)
  assert.equal(samples.size, Object.keys(CONDITIONS).length)
  assert.equal(samples.get('weft_condition{code="NO_LEASE",severity="error"}'), 1)
  assert.equal(samples.get('weft_condition{code="STARTING",severity="warning"}'), 1)
  assert.equal(samples.get('weft_condition{code="LEASE_LOST",severity="error"}'), 0)
  health.clear('NO_LEASE')
  samples = await scrape(metrics)
  assert.equal(samples.get('weft_condition{code="NO_LEASE",severity="error"}'), 0)
})
