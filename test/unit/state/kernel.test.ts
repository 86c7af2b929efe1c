// Outcomes of applied changes: which one an error is about.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { put } from '../../../daemon/state/difference.ts'
import { failureIn } from '../../../daemon/state/kernel.ts'

test('the first failed change is reported with its error, and none where all succeeded', () => {
  const [up, down] = [true, false].map((isUp) => put({ kind: 'link', name: 'eth0', up: isUp }))
  assert.ok(up !== undefined && down !== undefined)
  const [first, second] = [new Error('first'), new Error('second')]
  assert.deepEqual(failureIn([{ change: up }, { change: down, error: first }, { change: up, error: second }]), {
    change: down,
    error: first
  })
  assert.equal(failureIn([{ change: up }, { change: down }]), undefined)
})
