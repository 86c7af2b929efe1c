// Work in order, one at a time.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SerialQueue } from '../../../daemon/base/serial-queue.ts'

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
