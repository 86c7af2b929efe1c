// The table of conditions: every row has a cure, and causes are reported before their consequences.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { logCondition } from '../../../daemon/health/condition-log.ts'
import { CONDITIONS, sentence } from '../../../daemon/health/conditions.ts'
import { Health } from '../../../daemon/health/health.ts'

test('every condition has a title, a cure, and words for codes', () => {
  for (const [code, row] of Object.entries(CONDITIONS)) {
    assert.match(code, /^[A-Z]+(_[A-Z]+)*$/)
    assert.ok(row.title.length > 10 && row.cure.length > 10, code)
    assert.equal(/[.:]$/.test(row.title), false, `${code}: the detail follows the title`)
  }
})

test('nothing can be served before somebody says so', () => {
  const health = new Health(
    () => 0,
    () => undefined
  )
  assert.equal(health.blocking('add')?.code, 'STARTING')
  health.clear('STARTING')
  assert.equal(health.blocking('add'), undefined)
})

test('an error blocks before a warning that holds longer', () => {
  let now = 0
  const health = new Health(
    () => now++,
    () => undefined
  )
  health.raise('CONFIG_INVALID', 'Network is 7')
  assert.equal(health.blocking('ready')?.code, 'CONFIG_INVALID')
  assert.match(sentence(health.blocking('ready') ?? assert.fail()), /invalid: Network is 7\. Cure: correct/)
})

test('a cause that brings its own cure has that one told, and a change of it too', () => {
  const cures: string[] = []
  const health = new Health(
    () => 0,
    (condition, active) => active && cures.push(condition.cure)
  )
  health.raise('CONFIG_INVALID', 'Backend is missing', 'add one')
  health.raise('CONFIG_INVALID', 'Backend is missing', 'add one')
  assert.match(sentence(health.blocking('ready') ?? assert.fail()), /Backend is missing\. Cure: add one$/)
  health.raise('CONFIG_INVALID', 'Backend is missing')
  assert.deepEqual(cures.slice(1), ['add one', CONDITIONS.CONFIG_INVALID.cure])
})

test('a start is reported as information; what holds besides by how bad it is', () => {
  const lines: string[] = []
  const line = (level: string) => (fields: object) => lines.push(`${level} ${(fields as Fields).condition}`)
  type Fields = { readonly condition: string }
  const log = { info: line('info'), warn: line('warn'), error: line('error'), debug: line('debug') }
  const health = new Health(() => 0, logCondition(log))
  health.raise('STORE_UNREACHABLE', 'silent')
  health.raise('NO_LEASE', 'silent')
  health.clear('STARTING')
  assert.deepEqual(lines, ['info STARTING', 'warn STORE_UNREACHABLE', 'error NO_LEASE', 'info STARTING'])
})

test('listeners hear of what begins, what changes its words and what ends, once each', () => {
  const heard: string[] = []
  const health = new Health(
    () => 0,
    (condition, active) => heard.push(`${condition.code} ${active} ${condition.detail}`)
  )
  health.raise('STORE_UNREACHABLE', 'a')
  health.raise('STORE_UNREACHABLE', 'a')
  health.raise('STORE_UNREACHABLE', 'b')
  health.clear('STORE_UNREACHABLE')
  health.clear('STORE_UNREACHABLE')
  assert.deepEqual(heard.slice(1), [
    'STORE_UNREACHABLE true a',
    'STORE_UNREACHABLE true b',
    'STORE_UNREACHABLE false b'
  ])
})

test('at start the store’s trouble is the cause that is reported, with its cure', () => {
  const health = new Health(
    () => 0,
    () => undefined
  )
  health.raise('STARTING', 'reading the network configuration')
  health.raise('STORE_UNREACHABLE', 'http://192.0.2.1:2379 refused the connection')
  const blocking = health.blocking('add') ?? assert.fail()
  assert.equal(blocking.code, 'STARTING')
  assert.match(
    sentence(blocking),
    /configuration; the lease store does not respond.*192\.0\.2\.1:2379 refused.*Cure: check that the store is running/
  )
})

test('STARTING is left out where an error says why nothing is served yet, and is back when that is over', () => {
  const health = new Health(
    () => 0,
    () => undefined
  )
  const codes = () => health.active().map(({ code }) => code)
  health.raise('CONFIG_INVALID', 'Network is 7')
  assert.deepEqual(codes(), ['CONFIG_INVALID'])
  health.raise('LINK_DOWN', 'eth0 has no carrier')
  health.clear('CONFIG_INVALID')
  assert.deepEqual(codes(), ['LINK_DOWN', 'STARTING'])
})

test('words of others that end with a full stop get no second one', () => {
  const text = sentence({ title: 'it failed', detail: 'no such device. ', cure: 'make one' })
  assert.equal(text, 'it failed: no such device. Cure: make one')
})
