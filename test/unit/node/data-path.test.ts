// The data path of a backend: the first that the kernel can do, and what is said where there is none.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { ConfiguredBackend, DataPath } from '../../../daemon/backend/backend.ts'
import { BACKENDS, registry } from '../../../daemon/backend/registry.ts'
import { WeftError } from '../../../daemon/base/error.ts'
import { Health } from '../../../daemon/health/health.ts'
import { Configuration } from '../../../daemon/node/configuration.ts'
import { DataPaths } from '../../../daemon/node/data-path.ts'
import type { Feature } from '../../../daemon/state/feature.ts'
import { silent } from '../logs.ts'
import { until } from '../until.ts'

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
  const clock = { now: 0 }
  const lacking = async (features: readonly Feature[]) => {
    tried.push([...features])
    return features.flatMap((feature) =>
      has.has(feature) ? [] : [new WeftError('KERNEL_FEATURE_MISSING', `no ${feature.kind}`, `load ${feature.kind}`)]
    )
  }
  const paths = new DataPaths({ lacking, needs, log: silent, now: () => clock.now })
  return { tried, paths, clock }
}

test('the first data path that the kernel can do is taken, and tried once', async () => {
  const { paths, tried } = scene(new Set([fast, slow]))
  assert.deepEqual(await paths.of(backend), { dataPath: 'fast' })
  assert.deepEqual(await paths.of(backend), { dataPath: 'fast' })
  assert.deepEqual(tried, [[fast]])
  assert.deepEqual(await scene(new Set([slow])).paths.of(backend), { dataPath: 'slow' })
})

test('a backend without a choice has none, and nothing is tried', async () => {
  const { paths, tried } = scene(new Set())
  assert.deepEqual(await paths.of({ ...backend, dataPaths: [] }), {})
  assert.deepEqual(tried, [])
})

test('without any, an error says what is missing and which types the kernel can do; later it is tried again', async () => {
  const has = new Set<Feature>()
  const { paths, tried, clock } = scene(has)
  const expected = {
    code: 'KERNEL_FEATURE_MISSING',
    message: 'Backend.Type is "two-ways", and no fou; no link; the types that it can do: any',
    cure: 'load fou; load link; or set Backend.Type to a type that it can do'
  }
  await assert.rejects(paths.of(backend), expected)
  const { length } = tried
  has.add(fast)
  await assert.rejects(paths.of(backend), expected)
  assert.equal(tried.length, length)
  clock.now = 10_000
  assert.deepEqual(await paths.of(backend), { dataPath: 'fast' })
})

test('a configuration whose data path the kernel lacks is refused as such, and a corrected one taken', async () => {
  const health = new Health(Date.now, () => undefined)
  const { paths } = scene(new Set())
  const backends = { configure: (type: string) => ({ ...backend, type, ...(type === 'host-gw' && { dataPaths: [] }) }) }
  let text = '{"Network":"10.244.0.0/16","Backend":{"Type":"two-ways"}}'
  const store = { configuration: async () => text, configurationPlace: 'the file' }
  const configuration = new Configuration({ store, backends, health })
  const read = configuration.read(new AbortController().signal, ({ backend: read }) => paths.of(read))
  const condition = await until(() => health.active().find(({ code }) => code === 'KERNEL_FEATURE'), 'the condition')
  assert.match(condition.detail, /"two-ways", and no fou.*\(in the file\)$/)
  assert.ok(health.active().every(({ code }) => code !== 'CONFIG_INVALID'))
  text = '{"Network":"10.244.0.0/16","Backend":{"Type":"host-gw"}}'
  const [taken] = await read
  assert.equal(taken.backend.type, 'host-gw')
  assert.ok(health.active().every(({ code }) => code !== 'KERNEL_FEATURE'))
})
