// Backoff: pauses grow to a limit, differ between nodes and end with the signal. Retry: what is tried again, and when
// it stops.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Backoff, type BackoffBounds, retry } from '../../../daemon/base/backoff.ts'

const { signal } = new AbortController()

/** What a Backoff asked its clock to wait for. */
async function pauses(backoff: Backoff, waited: number[], count: number): Promise<readonly number[]> {
  waited.length = 0
  for (let n = 0; n < count; n++) await backoff.pause(signal)
  return [...waited]
}

function recorded(bounds?: BackoffBounds) {
  const waited: number[] = []
  return { waited, backoff: new Backoff(bounds, async (milliseconds) => void waited.push(milliseconds)) }
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

test('a pause that was cut short rejects with the reason, and does not lengthen the next one', async () => {
  const waited: number[] = []
  const backoff = new Backoff(undefined, async (milliseconds, { aborted }) => {
    waited.push(milliseconds)
    if (aborted) throw new Error('The operation was aborted')
  })
  for (let n = 0; n < 5; n++) await assert.rejects(backoff.pause(AbortSignal.abort(new Error('stopping'))), /stopping/)
  await backoff.pause(signal)
  assert.ok(Math.max(...waited) <= 100, String(waited))
})

test('constant pauses neither grow nor are shorter than asked for', async () => {
  const waited: number[] = []
  const backoff = Backoff.constant(1_000, async (milliseconds) => void waited.push(milliseconds))
  for (const pause of await pauses(backoff, waited, 20)) assert.ok(pause >= 1_000 && pause <= 1_500, `${pause} ms`)
  assert.equal(new Set(waited).size, 20)
})

test('retries that the signal ends during a pause reject with its reason', async () => {
  const stop = new AbortController()
  const waiting = retry(() => undefined, { signal: stop.signal, backoff: Backoff.constant(60_000) })
  setImmediate(() => stop.abort(new Error('stopping')))
  await assert.rejects(waiting, /stopping/)
})

test('with equal bounds the pauses do not grow', async () => {
  const { backoff, waited } = recorded({ firstMs: 1_000, longestMs: 1_000 })
  for (const pause of await pauses(backoff, waited, 5)) assert.ok(pause >= 500 && pause <= 1_000, `${pause} ms`)
})

test('an attempt is repeated until it returns a value, with a pause in between', async () => {
  const { backoff, waited } = recorded()
  const results = [undefined, undefined, 'done']
  assert.equal(await retry(async () => results.shift(), { signal, backoff }), 'done')
  assert.equal(waited.length, 2)
})

test('an error ends the attempts unless it is accepted', async () => {
  const { backoff } = recorded()
  await assert.rejects(
    retry(() => assert.fail('refused'), { signal, backoff }),
    /refused/
  )
  const seen: unknown[] = []
  let attempts = 0
  const attempt = () => {
    attempts++
    if (attempts < 3) throw attempts
    return attempts
  }
  assert.equal(await retry(attempt, { signal, backoff, onError: (error) => void seen.push(error) }), 3)
  assert.deepEqual(seen, [1, 2])
  const onError = (error: unknown) => {
    throw new Error('pointless', { cause: error })
  }
  await assert.rejects(
    retry(() => assert.fail('refused'), { signal, backoff, onError }),
    /pointless/
  )
})

test('after the abort nothing is tried again, and an error of the last attempt is not reported', async () => {
  const stop = new AbortController()
  const failing = retry(
    () => {
      stop.abort(new Error('stopping'))
      throw new Error('cut off')
    },
    { signal: stop.signal, onError: () => assert.fail('reported') }
  )
  await assert.rejects(failing, /stopping/)
})
