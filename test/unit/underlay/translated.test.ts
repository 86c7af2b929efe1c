// What translated packets to a peer show, and how often they are sent.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { aliasOf, type Cured, curedOf } from '../../../daemon/underlay/checksum-alias.ts'
import { nextPause } from '../../../daemon/underlay/checksum-cures.ts'
import { pairOf } from '../../../daemon/underlay/probe-schedule.ts'
import { type Attempt, areSilent, judgeTranslated } from '../../../daemon/underlay/translated.ts'
import { firstDue, nextDue } from '../../../daemon/underlay/translated-schedule.ts'

const lost: Attempt = { before: true, translated: false, after: true }
const passed: Attempt = { before: true, translated: true, after: true }
const silent: Attempt = { before: false, translated: false, after: false }

test('translated packets are lost only where untranslated ones are answered before and after each', () => {
  assert.equal(judgeTranslated([]), 'unknown')
  assert.equal(judgeTranslated([lost, lost]), 'unknown')
  assert.equal(judgeTranslated([lost, lost, lost]), 'translated-lost')
  assert.equal(judgeTranslated([lost, lost, { ...lost, after: false }]), 'unknown')
  assert.equal(judgeTranslated([silent, silent, silent]), 'unknown')
  assert.equal(judgeTranslated([lost, silent, lost]), 'unknown')
})

test('one translated packet that was answered shows that they pass', () => {
  assert.equal(judgeTranslated([lost, lost, lost, passed]), 'whole')
  assert.equal(judgeTranslated([passed, lost, lost, lost]), 'translated-lost')
})

test('5,000 peers that become whole together are asked at most five in a second, and each once a day', () => {
  const seconds = new Map<number, number>()
  for (let at = 1; at <= 5_000; at++) {
    const due = firstDue(5_000, pairOf(7, at), 10)
    assert.equal(nextDue(due, 0), due + 864_000)
    const second = Math.floor(due / 10)
    seconds.set(second, (seconds.get(second) ?? 0) + 1)
  }
  assert.ok(Math.max(...seconds.values()) <= 5, `${Math.max(...seconds.values())} in one second`)
})

test('an attempt of which nothing follows is repeated soon, and ever later; a verdict is for a day', () => {
  const due = (undecided: number) => nextDue(100, undecided)
  assert.deepEqual([1, 2, 3, 4].map(due), [150, 200, 300, 500])
  assert.deepEqual([0, 30, 2_000].map(due), [864_100, 864_100, 864_100])
})

test('silence is proven by three attempts without any answer', () => {
  assert.deepEqual(
    [
      [silent, silent],
      [silent, silent, silent],
      [silent, lost, silent],
      [passed, silent, silent, silent]
    ].map(areSilent),
    [false, true, false, true]
  )
})

test('the alias of a device says what was turned off for whom; of other texts nothing is concluded', () => {
  for (const broken of ['translated', 'all'] as const)
    for (const isProven of [true, false]) {
      const cured: Cured = { broken, isProven, key: '10.244.2.0-24_fd00:0:0:2::-64' }
      assert.deepEqual(curedOf(aliasOf(cured)), cured)
      assert.ok(Buffer.byteLength(aliasOf({ ...cured, key: 'x'.repeat(80) })) < 256)
    }
  const mark = 'checksum-offload-off-by-weftd:translated'
  for (const text of ['', 'uplink', mark, `${mark} `, `${mark} key more`, 'weft net id eth0', `x${mark} key`])
    assert.equal(curedOf(text), undefined, text)
  assert.equal(curedOf(undefined), undefined)
})

test('offload is tried again after a day, and after twice as long each time, up to a month', () => {
  const pauses = [nextPause(undefined)]
  while (pauses.length < 7) pauses.push(nextPause(pauses.at(-1)))
  assert.deepEqual(pauses, [1, 2, 4, 8, 16, 32, 32])
})
