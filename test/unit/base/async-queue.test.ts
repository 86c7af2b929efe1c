// The async queue: order, its ends (drained, failed, closed), batches, and several sources read together.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { AsyncQueue } from '../../../daemon/base/async-queue.ts'

async function* counted(...values: readonly number[]): AsyncGenerator<number, void> {
  for (const value of values) yield value
}

async function all<T>(values: AsyncIterable<T>): Promise<readonly T[]> {
  const read: T[] = []
  for await (const value of values) read.push(value)
  return read
}

test('values come in the order in which they were pushed, those from before the reader too', async () => {
  const queue = new AsyncQueue<number | undefined>()
  queue.push(1)
  queue.push(undefined)
  const read = all(queue)
  await turn()
  queue.push(3)
  queue.end()
  queue.push(4)
  assert.deepEqual(await read, [1, undefined, 3])
})

test('after a failure the reader gets what was pushed before it, then the error', async () => {
  const queue = new AsyncQueue<number>()
  queue.push(1)
  queue.fail(new Error('broken'))
  queue.fail(new Error('later'))
  const read: number[] = []
  await assert.rejects(async () => {
    for await (const value of queue) read.push(value)
  }, /broken/)
  assert.deepEqual(read, [1])
})

test('the signal ends it at once, while values wait and while the reader does', async () => {
  const stop = new AbortController()
  let ends = 0
  const queue = new AsyncQueue<number>(stop.signal, () => ends++)
  for (const value of [1, 2, 3]) queue.push(value)
  const read: number[] = []
  for await (const value of queue) {
    read.push(value)
    if (value === 2) stop.abort()
  }
  assert.deepEqual(read, [1, 2])
  assert.equal(ends, 1)
  const waiting = new AbortController()
  const rest = all(new AsyncQueue<number>(waiting.signal))
  waiting.abort()
  assert.deepEqual(await rest, [])
  assert.deepEqual(await all(new AsyncQueue<number>(stop.signal)), [])
})

test('a signal that has aborted before ends it as well, once its maker has it', async () => {
  const queues = new Set<AsyncQueue<number>>()
  let ends = 0
  const queue = new AsyncQueue<number>(AbortSignal.abort(), () => {
    queues.delete(queue)
    ends++
  })
  queues.add(queue)
  assert.deepEqual(await all(queue), [])
  assert.deepEqual([queues.size, ends], [0, 1])
})

test('a reader that leaves ends it', async () => {
  let ends = 0
  const queue = new AsyncQueue<number>(undefined, () => ends++)
  queue.push(1)
  for await (const _ of queue) break
  assert.equal(ends, 1)
  queue.push(2)
  assert.deepEqual(await all(queue), [])
})

test('a batch is all that has come until it is taken', async () => {
  const queue = new AsyncQueue<number>()
  const read = all(queue.batches(turn))
  queue.push(1)
  await Promise.resolve()
  queue.push(2)
  for (let n = 0; n < 3; n++) await turn()
  queue.push(3)
  queue.end()
  assert.deepEqual(await read, [[1, 2], [3]])
})

test('several sources are read together until all have ended, or the first fails', async () => {
  const both = await all(AsyncQueue.of(counted(1, 2), counted(3)))
  assert.deepEqual(both.toSorted(), [1, 2, 3])
  const failing = async function* (): AsyncGenerator<number, void> {
    yield 1
    throw new Error('broken')
  }
  const never = new AbortController()
  const silent = new AsyncQueue<number>(never.signal)
  await assert.rejects(all(AsyncQueue.of(failing(), silent)), /broken/)
  never.abort()
})
