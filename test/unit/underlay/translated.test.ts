// What translated packets to a peer show, and how often they are sent.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { pairOf } from '../../../daemon/underlay/probe-schedule.ts'
import { type Attempt, judgeTranslated, translatedDue } from '../../../daemon/underlay/translated.ts'

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
    const peer = { peers: 5_000, pair: pairOf(7, at), wholeAt: 10, losses: 0 }
    const due = translatedDue({ ...peer, askedAt: 0 }) ?? 0
    assert.equal(translatedDue({ ...peer, askedAt: due }), due + 864_000)
    const second = Math.floor(due / 10)
    seconds.set(second, (seconds.get(second) ?? 0) + 1)
  }
  assert.ok(Math.max(...seconds.values()) <= 5, `${Math.max(...seconds.values())} in one second`)
  assert.equal(translatedDue({ peers: 5_000, pair: 1, wholeAt: undefined, askedAt: 0, losses: 0 }), undefined)
})

test('a loss is asked about again at once until it is proven, then daily', () => {
  const due = (losses: number) => translatedDue({ peers: 3, pair: 1, wholeAt: 10, askedAt: 100, losses })
  assert.deepEqual([0, 1, 2, 3].map(due), [864_100, 150, 150, 864_100])
})
