// Wake-ups: everybody who waits is woken, once for any number of notifications, and a signal ends the wait.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Wakeup } from '../../../daemon/base/wakeup.ts'

test('a notification wakes all who wait, and nobody who comes later', async () => {
  const changed = new Wakeup()
  let woken = 0
  const waiting = [changed.next(), changed.next()].map((next) => next.then(() => woken++))
  changed.notify()
  changed.notify()
  await Promise.all(waiting)
  assert.equal(woken, 2)
  void changed.next().then(() => woken++)
  await Promise.resolve()
  assert.equal(woken, 2)
})

test('what happens between taking the promise and waiting for it is not missed', async () => {
  const changed = new Wakeup()
  const next = changed.next()
  changed.notify()
  await next
})

test('a signal ends the wait, one that has aborted before too', async () => {
  const changed = new Wakeup()
  const stop = new AbortController()
  const waiting = changed.next(stop.signal)
  stop.abort()
  await waiting
  await changed.next(stop.signal)
  await changed.next(AbortSignal.timeout(1))
})

test('after a wait the signal has no listener left', async () => {
  const listeners = new Set<unknown>()
  const signal = {
    aborted: false,
    addEventListener: (_: string, listener: unknown) => listeners.add(listener),
    removeEventListener: (_: string, listener: unknown) => listeners.delete(listener)
  } as unknown as AbortSignal
  const changed = new Wakeup()
  const next = changed.next(signal)
  assert.equal(listeners.size, 1)
  changed.notify()
  await next
  assert.equal(listeners.size, 0)
})

test('a wait that a signal ended leaves no waiter to the next notification', async () => {
  let abort: (() => void) | undefined
  let ended = 0
  const signal = {
    aborted: false,
    addEventListener: (_: string, listener: () => void) => {
      abort = listener
    },
    // Each time the waiter is run.
    removeEventListener: () => ended++
  } as unknown as AbortSignal
  const changed = new Wakeup()
  const next = changed.next(signal)
  abort?.()
  await next
  assert.equal(ended, 1)
  changed.notify()
  assert.equal(ended, 1)
})
