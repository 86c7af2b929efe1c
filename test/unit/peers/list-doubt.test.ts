// Which missing leases are kept, and when the reconciler may remove what is stale.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Health } from '../../../daemon/health/health.ts'
import { ListDoubt } from '../../../daemon/peers/list-doubt.ts'
import { silent } from '../logs.ts'

function scene(others: number, doubtMs = 60_000) {
  const health = new Health(
    () => 0,
    () => undefined
  )
  const reconciler = {
    trusts: false,
    async trust() {
      reconciler.trusts = true
    },
    differences: () => []
  }
  const confirmed = Promise.withResolvers<readonly string[]>()
  const doubt = new ListDoubt({
    ...{ health, reconciler, log: silent, doubtMs, others: () => others },
    confirmed: async (keys) => confirmed.resolve(keys)
  })
  return { doubt, reconciler, confirmed, isDoubted: () => health.has('LIST_DOUBTED') }
}

const keys = (count: number) => Array.from({ length: count }, (_, n) => `10.244.${n}.0-24`)

test('most leases at once are kept, a few are not, and an event for one is believed', () => {
  for (const [others, missing, by, kept] of [
    [10, 5, 'events', 0],
    [10, 6, 'events', 6],
    [10, 6, 'a list', 6],
    [3, 2, 'a list', 0],
    [1, 1, 'a list', 1],
    [1, 1, 'events', 0],
    [10, 1, 'a list without us', 1]
  ] as const) {
    const { doubt, isDoubted } = scene(others)
    assert.equal(doubt.kept(keys(missing), by).size, kept, `${missing} of ${others} by ${by}`)
    assert.equal(isDoubted(), kept > 0)
    doubt.end()
  }
})

test('what is doubted stays so with the next list, and is not trusted until all of it is back', async () => {
  const { doubt, reconciler, isDoubted } = scene(10)
  doubt.kept(keys(6), 'a list')
  assert.deepEqual([...doubt.kept(keys(1), 'a list')], keys(1))
  await doubt.trustIfPlausible(undefined)
  assert.ok(isDoubted())
  for (const key of keys(6)) doubt.forget(key)
  await doubt.trustIfPlausible(undefined)
  assert.deepEqual([isDoubted(), reconciler.trusts], [false, false], 'without a view nothing can be called stale')
})

test('what is still missing at the end is named once', async () => {
  const { doubt, confirmed, isDoubted } = scene(1, 1)
  doubt.kept(keys(1), 'a list')
  // The timer does not keep a process alive.
  const alive = setInterval(() => undefined, 1_000)
  assert.deepEqual(await confirmed.promise, keys(1))
  clearInterval(alive)
  assert.equal(isDoubted(), false)
  assert.equal(doubt.kept(keys(1), 'events').size, 0)
})
