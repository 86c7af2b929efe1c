// When a kernel call may be made on the event loop.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Lane } from '../../../../daemon/kernel/netlink/lane.ts'

test('a short call is made at once when the lane is idle', async () => {
  const lane = new Lane(() => 0)
  const answer = lane.takeShort(
    () => 'here',
    async () => 'pool'
  )
  assert.equal(await answer, 'here')
})

test('a short call that fails rejects, and the lane continues', async () => {
  const lane = new Lane(() => 0)
  const failing = lane.takeShort(
    () => assert.fail('refused'),
    async () => 'pool'
  )
  await assert.rejects(failing, /refused/)
  assert.equal(lane.idle, true)
})

test('a short call waits in the queue while another runs', async () => {
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

test('after a long call, calls go to the pool for seconds', async () => {
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
