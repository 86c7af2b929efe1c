// A wait for notifications does not end before those that arrived while the event loop was busy.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { MessageChannel } from 'node:worker_threads'
import { afterArrivals } from '../../../daemon/reconcile/requeue.ts'

test('what arrived while the event loop was busy is processed before a wait for it ends', async () => {
  const { port1, port2 } = new MessageChannel()
  const order: string[] = []
  // As kernel/observer.ts: read when the socket is polled, processed one turn later.
  port2.on('message', () => setImmediate(() => order.push('processed')))
  const { promise, resolve } = Promise.withResolvers<void>()
  port1.postMessage('a notification')
  afterArrivals(1, () => {
    order.push('the end of the wait')
    resolve()
  })
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20)
  await promise
  assert.deepEqual(order, ['processed', 'the end of the wait'])
  port1.close()
  await once(port2, 'close')
})
