// Regular expressions mean what they mean in Go.
import assert from 'node:assert/strict'
import test from 'node:test'
import { loadGoRegexp } from '../../../daemon/base/go-regexp.ts'

const compile = await loadGoRegexp()

for (const [source, matches, others] of [
  ['(?i)^ETH[[:digit:]]+$', ['eth0', 'Eth12'], ['ethx', 'eth0.1']],
  ['^en[[:alpha:]]', ['ens3', 'enp0s3'], ['en0', 'en[[:alpha:]]']],
  ['\\A10\\.(1|2)\\.', ['10.1.0.1'], ['110.1.0.1', '10.3.0.1']],
  ['\\d+\\z', ['eth0'], ['eth']],
  ['th', ['eth0'], ['lo']],
  ['\\Qa.b\\E', ['xa.bx'], ['axb']]
] as const)
  test(`${source} matches ${matches.join(', ')} and not ${others.join(', ')}`, () => {
    const pattern = compile(source)
    for (const text of matches) assert.ok(pattern.test(text), text)
    for (const text of others) assert.ok(!pattern.test(text), text)
  })

for (const source of ['(', '(?=eth)', '(a)\\1', '*', 'a{1001}'])
  test(`${source} is refused, as by Go`, () => assert.throws(() => compile(source), /`/))

test('no pattern runs for ever', () => {
  assert.equal(compile('^(a+)+$').test(`${'a'.repeat(5_000)}b`), false)
})
