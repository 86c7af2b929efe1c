// docs/metrics.md against the source and against a registry: names, types, labels, helps.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import test from 'node:test'
import { Health } from '../../../daemon/health/health.ts'
import { createMetrics, observeHealth, observeProcess } from '../../../daemon/health/metrics.ts'
import { repairReport } from '../../../daemon/reconcile/repair-report.ts'
import { describedMetrics, metricNames } from '../../../scripts/docs/metrics.ts'

const page = readFileSync(new URL('../../../docs/metrics.md', import.meta.url), 'utf8')
const described = describedMetrics()

test('every text in the source that looks like the name of a metric is described, once', () => {
  const names = described.map(({ name }) => name)
  assert.deepEqual(names.toSorted(), [...new Set(names)].toSorted())
  assert.deepEqual(metricNames().toSorted(), names.toSorted())
  assert.ok(names.length > 10)
})

test('what is read off the source is what a registry gets', async () => {
  const metrics = createMetrics()
  const health = new Health(Date.now, () => undefined)
  observeProcess(metrics, '1.2.3')
  observeHealth(metrics, health)
  repairReport({ error() {}, warn() {}, info() {}, debug() {} }, metrics, health)
  const registered = await metrics.registry.getMetricsAsJSON()
  assert.ok(registered.length >= 9)
  for (const { name, type, help } of registered) {
    const found = described.find((each) => each.name === name)
    assert.deepEqual({ name, type, help }, { name: found?.name, type: found?.type, help: found?.help })
  }
  assert.deepEqual(described.find(({ name }) => name === 'weft_condition')?.labels, ['code', 'severity'])
  assert.deepEqual(described.find(({ name }) => name === 'weft_repairs_total')?.labels, ['kind', 'by'])
})

test('every metric that any page names exists', () => {
  const names = new Set(described.map(({ name }) => name))
  const series = (name: string) => name.replace(/_(bucket|sum|count)$/, '')
  const named = [...page.matchAll(/\bweft_[a-z0-9_]+\b/g)].map(([name]) => name)
  assert.deepEqual(
    named.filter((name) => name !== 'weft_' && !names.has(name) && !names.has(series(name))),
    []
  )
  for (const name of names) assert.ok(named.includes(name), name)
})

test('the help of the steps names each of them', () => {
  const source = readFileSync(new URL('../../../daemon/pod/context.ts', import.meta.url), 'utf8')
  const steps = [...(/^export type Step = (.*)$/m.exec(source)?.[1]?.matchAll(/'(\w+)'/g) ?? [])].map(
    ([, step]) => step
  )
  assert.ok(steps.length > 4)
  const help = described.find(({ name }) => name === 'weft_pod_step_seconds')?.help ?? ''
  for (const step of steps) assert.match(help, new RegExp(`\\b${step}\\b`))
})
