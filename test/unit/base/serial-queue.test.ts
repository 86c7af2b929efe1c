// One thing after another, and when a call may be made without a thread.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Lane, SerialQueue } from '../../../daemon/base/serial-queue.ts'

test('work is done in the order in which it was given, also after a failure', async () => {
  const turns = new SerialQueue()
  const done: number[] = []
  const work = (n: number) => async () => {
    await Promise.resolve()
    done.push(n)
    if (n === 1) throw new Error('one')
  }
  const all = [1, 2, 3].map((n) => turns.take(work(n)))
  assert.equal(turns.idle, false)
  await assert.rejects(all[0] ?? assert.fail(), /one/)
  await Promise.all(all.slice(1))
  assert.deepEqual(done, [1, 2, 3])
  assert.equal(turns.idle, true)
})

test('a short call is made at once when nothing else has its turn', async () => {
  const lane = new Lane(() => 0)
  const answer = lane.takeShort(
    () => 'here',
    async () => 'pool'
  )
  assert.equal(await answer, 'here')
})

test('a short call that fails rejects, and the lane goes on', async () => {
  const lane = new Lane(() => 0)
  const failing = lane.takeShort(
    () => assert.fail('refused'),
    async () => 'pool'
  )
  await assert.rejects(failing, /refused/)
  assert.equal(lane.idle, true)
})

test('a short call waits its turn while something else is at work', async () => {
  const lane = new Lane(() => 0)
  const { promise, resolve } = Promise.withResolvers<void>()
  const before = lane.take(() => promise)
  let here = false
  const short = lane.takeShort(
    () => {
      here = true
      return 'here'
    },
    async () => 'pool'
  )
  resolve()
  await before
  assert.equal(await short, 'pool')
  assert.equal(here, false)
})

test('after a call that took long, calls go to the pool for seconds', async () => {
  let now = 0
  const lane = new Lane(() => now)
  const call = (takes: number) =>
    lane.takeShort(
      () => {
        now += takes
        return 'here'
      },
      async () => 'pool'
    )
  assert.equal(await call(2), 'here')
  assert.equal(await call(51), 'here')
  assert.equal(await call(2), 'pool')
  now += 6_000
  assert.equal(await call(2), 'here')
})
