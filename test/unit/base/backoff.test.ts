// How long attempts wait for each other: pauses that grow to a limit, differ between nodes and end with the signal.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Backoff } from '../../../daemon/base/backoff.ts'

const { signal } = new AbortController()

/** What a Backoff asked its clock to wait for. */
async function pauses(backoff: Backoff, waited: number[], count: number): Promise<readonly number[]> {
  waited.length = 0
  for (let n = 0; n < count; n++) await backoff.pause(signal)
  return [...waited]
}

function recorded() {
  const waited: number[] = []
  return { waited, backoff: new Backoff(async (milliseconds) => void waited.push(milliseconds)) }
}

test('each pause is between half and all of twice the one before, and none longer than a quarter of a minute', async () => {
  const { backoff, waited } = recorded()
  for (const [n, pause] of (await pauses(backoff, waited, 30)).entries()) {
    const whole = Math.min(100 * 2 ** n, 15_000)
    assert.ok(pause >= whole / 2 && pause <= whole, `pause ${n} of ${pause} ms`)
  }
})

test('two nodes that lost the same store do not come back in step', async () => {
  const [one, other] = [recorded(), recorded()]
  assert.notDeepEqual(await pauses(one.backoff, one.waited, 10), await pauses(other.backoff, other.waited, 10))
})

test('after a success it begins anew', async () => {
  const { backoff, waited } = recorded()
  await pauses(backoff, waited, 10)
  backoff.reset()
  const [first = Number.NaN] = await pauses(backoff, waited, 1)
  assert.ok(first <= 100)
})

test('a pause ends when nobody waits for it any more', async () => {
  const stop = new AbortController()
  const waiting = new Backoff().pause(stop.signal)
  stop.abort()
  await assert.rejects(waiting, { name: 'AbortError' })
})
