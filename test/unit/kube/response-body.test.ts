// What comes from the API server as bytes: lines of JSON however they are cut, and how long it wants to be left alone.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { jsonLines, retryAfter } from '../../../daemon/kube/response-body.ts'

async function* cut(bytes: Buffer, sizes: readonly number[]): AsyncGenerator<Buffer, void> {
  let at = 0
  for (const size of sizes) {
    yield bytes.subarray(at, at + size)
    at += size
  }
  yield bytes.subarray(at)
}

async function all(bytes: Buffer, sizes: readonly number[] = []): Promise<readonly unknown[]> {
  const objects: unknown[] = []
  for await (const object of jsonLines(cut(bytes, sizes))) objects.push(object)
  return objects
}

test('events are the same however the network cuts them, characters of several bytes included', async () => {
  const objects = fc.array(
    fc.record({ type: fc.string({ unit: 'grapheme' }), n: fc.integer() }, { noNullPrototype: true }),
    { maxLength: 5 }
  )
  await fc.assert(
    fc.asyncProperty(objects, fc.array(fc.nat(20)), async (events, sizes) => {
      const bytes = Buffer.from(events.map((event) => `${JSON.stringify(event)}\n`).join(''))
      assert.deepEqual(await all(bytes, sizes), events)
    })
  )
})

test('a last event without its newline is no event, and what is no JSON object is an error that shows it', async () => {
  assert.deepEqual(await all(Buffer.from('{"a":1}\n\n{"b":')), [{ a: 1 }])
  for (const line of ['<html>\n', '[1]\n'])
    await assert.rejects(all(Buffer.from(line)), { message: new RegExp(line[1]!) })
})

for (const [header, milliseconds] of [
  [undefined, 0],
  ['1', 1_000],
  [' 7 ', 7_000],
  ['999999', 300_000],
  ['soon', 0],
  ['Thu, 01 Jan 1970 00:00:10 GMT', 9_000],
  ['Thu, 01 Jan 1970 00:00:00 GMT', 0]
] as const)
  test(`Retry-After ${header ?? 'absent'} is ${milliseconds} ms`, () =>
    assert.equal(retryAfter(header, 1_000), milliseconds))
