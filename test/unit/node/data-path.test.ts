// The data path of a backend: the first that the kernel can do, and what is said where there is none.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { ConfiguredBackend, DataPath } from '../../../daemon/backend/backend.ts'
import { BACKENDS, registry } from '../../../daemon/backend/registry.ts'
import { WeftError } from '../../../daemon/base/error.ts'
import { Health } from '../../../daemon/health/health.ts'
import { DataPaths } from '../../../daemon/node/data-path.ts'
import type { Feature } from '../../../daemon/state/feature.ts'
import { silent } from '../logs.ts'

const fast: Feature = { kind: 'fou', port: 1, protocol: 4 }
const slow: Feature = { kind: 'link', name: 'try-slow', form: { type: 'bridge' } }
const dataPaths: readonly DataPath[] = [
  { name: 'fast', features: [fast] },
  { name: 'slow', features: [slow] }
]
const backend: ConfiguredBackend = { ...registry(BACKENDS).configure('host-gw', {}), type: 'two-ways', dataPaths }
const needs = [
  { type: 'two-ways', oneOf: [[fast], [slow]] },
  { type: 'any', oneOf: [[]] },
  { type: 'bridged', oneOf: [[slow], [{ ...slow, name: 'try-other' }]] }
] as const

function scene(has: Set<Feature>) {
  const tried: Feature[][] = []
  const health = new Health(Date.now, () => undefined)
  const lacking = async (features: readonly Feature[]) => {
    tried.push([...features])
    return features.flatMap((feature) =>
      has.has(feature) ? [] : [new WeftError('KERNEL_FEATURE_MISSING', `no ${feature.kind}`, `load ${feature.kind}`)]
    )
  }
  const paths = new DataPaths({ lacking, needs, health, log: silent })
  const condition = () => health.active().find(({ code }) => code === 'KERNEL_FEATURE')
  return { tried, paths, condition, signal: new AbortController() }
}

test('the first data path that the kernel can do is taken, and tried once', async () => {
  const { paths, tried, signal } = scene(new Set([fast, slow]))
  assert.deepEqual(await paths.of(backend, signal.signal), { dataPath: 'fast' })
  assert.deepEqual(await paths.of(backend, signal.signal), { dataPath: 'fast' })
  assert.deepEqual(tried, [[fast]])
  const second = scene(new Set([slow]))
  assert.deepEqual(await second.paths.of(backend, signal.signal), { dataPath: 'slow' })
})

test('a backend without a choice has none, and nothing is tried', async () => {
  const { paths, tried, signal } = scene(new Set())
  assert.deepEqual(await paths.of({ ...backend, dataPaths: [] }, signal.signal), {})
  assert.deepEqual(tried, [])
})

test('without any, a condition says what is missing and which types the kernel can do, until one is there', async () => {
  const has = new Set<Feature>()
  const { paths, condition, signal } = scene(has)
  const chosen = paths.of(backend, signal.signal)
  const deadline = Date.now() + 5_000
  while (condition() === undefined && Date.now() < deadline) await new Promise((resolve) => setImmediate(resolve))
  assert.equal(condition()?.detail, 'Backend.Type is "two-ways": no fou; no link; the types that it can do: any')
  assert.equal(condition()?.cure, 'load fou; load link; or set Backend.Type to one of any')
  has.add(fast)
  assert.deepEqual(await chosen, { dataPath: 'fast' })
  assert.equal(condition(), undefined)
})

test('the wait ends with the signal', async () => {
  const { paths, signal } = scene(new Set())
  const chosen = paths.of(backend, signal.signal)
  signal.abort()
  await assert.rejects(chosen)
})
