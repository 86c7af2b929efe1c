// Where a listing in pages goes on, also after keys that other programs made of any octets.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { keyAfter } from '../../../../daemon/stores/etcd/key-range.ts'

const PREFIX = '/coreos.com/network/subnets/'
const bytes = (text: string) => Buffer.from(text, 'latin1')

/** Pages as etcd gives them: keys from `from` on by their octets, `limit` at a time, read as text. */
function listed(keys: readonly Buffer[], limit: number): readonly string[] {
  const sorted = keys.toSorted(Buffer.compare)
  const found: string[] = []
  let from: string | undefined = PREFIX
  for (let pages = 0; from !== undefined; pages++) {
    assert.ok(pages <= keys.length, 'the listing ends')
    const start: Buffer = Buffer.from(from)
    const rest = sorted.filter((key) => Buffer.compare(key, start) >= 0)
    const page = rest.slice(0, limit).map((key) => key.toString())
    found.push(...page)
    from = rest.length > limit ? keyAfter(page.at(-1) ?? '', PREFIX) : undefined
  }
  return found
}

test('a listing in pages ends and has every lease, whatever octets other keys are of', () => {
  const ours = Array.from({ length: 40 }, (_, n) => `${PREFIX}10.${n + 1}.0.0-24`)
  const strange = [
    '\xff\xfe',
    '\x80',
    '10.2\xff',
    '10.2\xff\xff',
    '10.25\xc3',
    '\xef\xbf\xbf\xff',
    '\xf0\x90\x8f\xbf\xff',
    '\xef\xbf\xbe',
    '10.\xf0\x80'
  ]
  const keys = [...ours.map(bytes), ...strange.map((each) => bytes(PREFIX + each))]
  for (const limit of [1, 2, 3, 5, 100]) {
    const found = new Set(listed(keys, limit))
    assert.deepEqual(
      ours.filter((each) => !found.has(each)),
      [],
      `pages of ${limit}`
    )
  }
})
