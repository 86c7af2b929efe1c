// How weftctl and its page show translated packets, and the offloads that weftd itself turned off or on.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { PeersAnswer, ProbeAnswer } from '../../../daemon/api/path-answers.ts'
import { changes } from '../../../daemon/ctl/changes.ts'
import type { Asked } from '../../../daemon/ctl/page/facts.ts'
import { matrixView } from '../../../daemon/ctl/page/matrix.ts'
import { viewOf } from '../../../daemon/ctl/page/view.ts'
import { brokenWays, peers } from '../../../daemon/ctl/peers.ts'
import { AT, change, factsOf, keyOf, nameOf, peersOf, probe } from './page-scene.ts'

const translated = (verdict: ProbeAnswer['verdict'], text: string): ProbeAnswer =>
  probe(verdict, { way: 'translated', text })

const LOST = translated('lost', 'packets whose source port is translated are lost')
const notAsked = (n: number) =>
  translated('not-asked', `not asked: UDP port 9 of 10.244.${n}.0 answers no packets, translated or not`)

const answer = (...all: readonly (readonly ProbeAnswer[])[]): PeersAnswer => ({
  node: nameOf(1),
  key: keyOf(1),
  peers: all.map((ways, at) => ({ key: keyOf(at + 2), node: nameOf(at + 2), publicIp: [], subnet: [], ways })),
  reports: []
})

test('peers: what was found has a line for each node, what was not asked one for each reason', () => {
  const quiet = [2, 3].map((n) => [probe('whole'), notAsked(n)])
  const fine = peers.read(answer(...quiet, [probe('whole'), translated('whole', 'it answers')]), [])
  assert.equal(fine.exit, 0)
  assert.equal(fine.text.match(/^\S+ +translated /gm)?.length, 1)
  assert.match(fine.text, /\n2 of 3 \(translated\): not asked: UDP port 9 answers no packets, translated or not\n$/)
  const lost = peers.read(answer([probe('whole'), LOST]), [])
  assert.match(lost.text, /^node-2 +translated +ipv4 +lost /m)
  assert.match(lost.text, /^node-2 \(translated, ipv4\): packets whose source port is translated are lost/m)
  assert.equal(lost.exit, 1)
})

test('a way on which translated packets alone are lost is broken, in kubectl weft peers and on the page', () => {
  assert.deepEqual(brokenWays([probe('whole'), LOST, probe('lost', { way: 'nodes' })]), [LOST])
  assert.deepEqual(brokenWays([probe('whole'), notAsked(2)]), [])
  const [peer] = peersOf(1, 2).peers
  const { peers: found } = answer([probe('whole'), LOST])
  assert.ok(peer)
  const asked: Asked = {
    name: '',
    facts: { ...factsOf(1, 2), peers: { ...answer(), peers: [{ ...peer, ways: found[0]?.ways ?? [] }] } }
  }
  assert.deepEqual(
    matrixView([asked]).broken.map(({ way, text }) => [way, text]),
    [['between pods, source port translated, IPv4', LOST.text]]
  )
})

test('changes: what weftd did by itself is listed, and no other program is said to have changed anything', () => {
  const own = { at: AT, text: 'turned transmit checksum offload of weft.1 off', isOwn: true, culprit: 'weftd' } as const
  const { text, exit } = changes.read({ changes: [own] }, [])
  assert.match(text, /\n\S+ +weftd +- +turned transmit checksum offload of weft\.1 off\n$/)
  assert.equal(exit, 0)
  assert.equal(changes.read({ changes: [own, change()] }, []).exit, 1)
  const asked: Asked = { name: '', facts: factsOf(1, 2, {}, { changes: { changes: [own, change()] } }) }
  const view = viewOf([asked], AT, true).changes
  assert.deepEqual([view.rows.length, view.culprits], [2, [{ name: 'NetworkManager', count: 1 }]])
})
