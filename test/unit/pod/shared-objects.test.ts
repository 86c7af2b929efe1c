// Objects shared by pods: each request includes all earlier ones.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SharedObjects } from '../../../daemon/pod/shared-objects.ts'
import type { KernelObject } from '../../../daemon/state/object.ts'

test('shared objects only grow, and an object of one key is there once, as it was wanted last', () => {
  const shared = new SharedObjects()
  const sysctl = (path: string, value: string): KernelObject => ({ kind: 'sysctl', path, value })
  const [owner, first] = shared.with([sysctl('a', '1')])
  assert.deepEqual(first, [sysctl('a', '1')])
  assert.deepEqual(shared.with([sysctl('b', '2'), sysctl('a', '3')]), [owner, [sysctl('a', '3'), sysctl('b', '2')]])
  assert.deepEqual(shared.with([])[1].length, 2)
})
