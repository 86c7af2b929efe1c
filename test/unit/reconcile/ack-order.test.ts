// Acknowledgements, notifications and dumps that arrive in any order: which is the newest.
import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { AckOrder, ECHO } from '../../../daemon/reconcile/ack-order.ts'
import { type KernelObject, type Key, keyOf, type State, stateOf } from '../../../daemon/state/object.ts'

const link = (mtu: number): KernelObject => ({ kind: 'link', name: 'weft.1', mtu })
const key = keyOf(link(0))
const put = (object: KernelObject) => ({ do: 'put', object }) as const

/** One that was read at once. */
const dump = (state: State, at: number) => ({ state, at, unannouncedAt: at })

function started(t: TestContext) {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const clock = { now: 1_000 }
  const again: (readonly [Key, KernelObject | undefined])[] = []
  return {
    clock,
    again,
    ackOrder: new AckOrder(
      { now: () => clock.now, after: (milliseconds, work) => void setTimeout(work, milliseconds) },
      (...replayed) => again.push(replayed)
    )
  }
}

test('what was acknowledged after a dump was complete counts, and what was before is in the dump', (t) => {
  const { clock, ackOrder: each } = started(t)
  const other: KernelObject = { kind: 'link', name: 'weft.2', mtu: 1 }
  each.acknowledged(put(other))
  clock.now = 2_000
  each.acknowledged(put(link(1450)))
  assert.deepEqual([...each.dumped(dump(new Map(), 1_500), [])], [[key, link(1450)]])
  assert.deepEqual([...each.dumped(dump(new Map(), 1_500), [])], [])
})

test('an acknowledgement is kept against a dump for seconds, and not for ever', (t) => {
  const { ackOrder: each } = started(t)
  each.acknowledged(put(link(1450)))
  t.mock.timers.tick(6_000)
  assert.ok(each.dumped(dump(new Map(), 900), []).has(key))
  each.acknowledged(put(link(1450)))
  // One after the other: a timer that a timer sets counts from the end of a tick.
  for (let seconds = 0; seconds < 10; seconds += 5) t.mock.timers.tick(5_000)
  assert.deepEqual([...each.dumped(dump(new Map(), 900), [])], [])
})

test('a removal that was acknowledged after a dump counts too', (t) => {
  const { ackOrder: each } = started(t)
  each.acknowledged({ do: 'remove', object: link(1450) })
  assert.deepEqual([...each.dumped(dump(stateOf([link(1450)]), 900), [])], [[key, undefined]])
})

test('a dump that disagrees with a later acknowledgement wins when nothing follows', (t) => {
  const { again, ackOrder: each } = started(t)
  each.acknowledged(put(link(1450)))
  each.dumped(dump(new Map(), 900), [])
  assert.deepEqual(again, [])
  t.mock.timers.tick(ECHO)
  assert.deepEqual(again, [[key, undefined]])
})

test('a notification that follows decides about a dump', (t) => {
  const { again, ackOrder: each } = started(t)
  each.acknowledged(put(link(1450)))
  each.dumped(dump(new Map(), 900), [])
  each.notified(key, link(1450), false)
  t.mock.timers.tick(ECHO)
  assert.deepEqual(again, [])
})

test('an observation during a change that disagrees with it is replayed when nothing follows', (t) => {
  const { again, ackOrder: each } = started(t)
  each.notified(key, link(1500), true)
  each.acknowledged(put(link(1450)))
  t.mock.timers.tick(ECHO)
  assert.deepEqual(again, [[key, link(1500)]])
})

test('a dump without the object of a change in flight is replayed when nothing follows the acknowledgement', (t) => {
  const { again, ackOrder: each } = started(t)
  each.dumped(dump(new Map(), 900), [key])
  each.acknowledged(put(link(1450)))
  t.mock.timers.tick(ECHO)
  assert.deepEqual(again, [[key, undefined]])
})

test('what agrees with the acknowledgement is not replayed', (t) => {
  const { again, ackOrder: each } = started(t)
  each.notified(key, link(1450), true)
  each.acknowledged(put(link(1450)))
  t.mock.timers.tick(ECHO)
  assert.deepEqual(again, [])
})

test('a change of the firewall after its part of the dump was read is kept, and nothing has to follow', (t) => {
  const { clock, again, ackOrder: each } = started(t)
  const set: KernelObject = {
    kind: 'nft-set',
    family: 'inet',
    table: 'weft',
    set: 'ports',
    form: 'set',
    declaration: 'type mark;'
  }
  clock.now = 1_500
  each.acknowledged(put(set))
  const read = { state: new Map(), at: 2_000, unannouncedAt: 1_400 }
  assert.deepEqual([...each.dumped(read, [])], [[keyOf(set), set]])
  each.dumped(read, [keyOf(set)])
  each.acknowledged(put(set))
  t.mock.timers.tick(ECHO)
  assert.deepEqual(again, [])
})
