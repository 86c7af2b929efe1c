// When memory is returned to the system.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { AfterBurst } from '../../../daemon/kernel/after-burst.ts'

test('memory is given back once, some time after the last large batch, and never after small ones', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  let released = 0
  const bursts = new AfterBurst(() => {
    released++
  })
  bursts.heard(3)
  t.mock.timers.tick(10_000)
  assert.equal(released, 0)
  bursts.heard(5_000)
  t.mock.timers.tick(1_500)
  bursts.heard(700)
  t.mock.timers.tick(1_500)
  assert.equal(released, 0)
  t.mock.timers.tick(1_000)
  assert.equal(released, 1)
  t.mock.timers.tick(10_000)
  assert.equal(released, 1)
})

test('what the start took is given back a while after it', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  let released = 0
  const bursts = new AfterBurst(() => {
    released++
  })
  bursts.started()
  t.mock.timers.tick(1_000)
  assert.equal(released, 0)
  t.mock.timers.tick(1_000)
  assert.equal(released, 1)
})
