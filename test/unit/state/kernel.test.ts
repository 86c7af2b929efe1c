// Outcomes of applied changes: which one an error is about.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { put } from '../../../daemon/state/difference.ts'
import { failureIn, removalFailureIn } from '../../../daemon/state/kernel.ts'

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

test('with what was asked for, what others share is no failure; for who gives up, only a removal is one', () => {
  const [mine, theirs] = ['eth0', 'eth1'].map((name) => put({ kind: 'link', name }))
  assert.ok(mine !== undefined && theirs !== undefined)
  const error = new Error('no device')
  assert.equal(failureIn([{ change: mine }, { change: theirs, error }], [mine.object]), undefined)
  assert.equal(failureIn([{ change: mine, error }], [mine.object])?.error, error)
  assert.equal(removalFailureIn([{ change: theirs, error }]), undefined)
  assert.equal(removalFailureIn([{ change: { do: 'remove', object: mine.object }, error }]), error)
})
