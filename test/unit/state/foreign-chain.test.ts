// The judgement about other programs' chains: where a pod's packet would be dropped, and before which rule an accept
// has its place.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  type ForeignBranch,
  type ForeignChain,
  type ForeignTable,
  isPolicyTable
} from '../../../daemon/state/foreign-chain.ts'
import { courseIn } from '../../../daemon/state/foreign-course.ts'
import { parsePrefix } from '../../../ipam/address.ts'

const prefix = (text: string) => parsePrefix(text) ?? assert.fail(text)
const pods = prefix('10.244.0.0/16')
const rule = (...branches: readonly ForeignBranch[]) => ({ branches, text: 'a rule' })
const drop: ForeignBranch = { conditions: [], verdict: { kind: 'drop' } }
const accept: ForeignBranch = { conditions: [], verdict: { kind: 'accept' } }
const jump = (chain: string): ForeignBranch => ({ conditions: [], verdict: { kind: 'jump', chain } })
const from = (...texts: readonly string[]) =>
  ({ kind: 'address', prefixes: texts.map(prefix), negated: false }) as const

const table = (...chains: readonly ForeignChain[]): ForeignTable => ({
  tool: 'nft',
  family: 'ip',
  table: 'filter',
  chains: new Map(chains.map((chain) => [chain.name, chain]))
})
const forward = (policy: 'accept' | 'drop', ...rules: ForeignChain['rules']): ForeignChain => ({
  name: 'FORWARD',
  policy,
  rules
})

/** Indexes in FORWARD: of the rules that drop everything, and before which accepts of packets from pods belong. */
type Judged = { readonly drops: readonly number[]; readonly accept?: number; readonly pair?: number }

const judged: readonly (readonly [string, ForeignTable, Judged])[] = [
  ['a policy of drop drops at the end', table(forward('drop')), { drops: [0], accept: 0 }],
  ['an accept before the policy ends it', table(forward('drop', rule(accept))), { drops: [] }],
  ['a rule that drops all drops there', table(forward('accept', rule(), rule(drop))), { drops: [1], accept: 1 }],
  [
    'an accept is before the call of a chain that drops all',
    table(forward('accept', rule(jump('sub'))), { name: 'sub', rules: [rule(drop)] }),
    { drops: [0], accept: 0 }
  ],
  [
    'a drop of other sources says nothing of packets from pods',
    table(
      forward('drop', rule({ conditions: [{ ...from('203.0.113.0/24'), side: 'source' }], verdict: { kind: 'drop' } }))
    ),
    { drops: [1], accept: 1 }
  ],
  [
    'a drop of addresses around those of pods lets only an accept for pairs be before it',
    table(forward('accept', rule({ conditions: [from('10.0.0.0/8')], verdict: { kind: 'drop' } }))),
    { drops: [], pair: 0 }
  ],
  [
    'a drop of the pod network is answered by nothing',
    table(forward('accept', rule({ conditions: [from('10.244.0.0/16')], verdict: { kind: 'drop' } }))),
    { drops: [] }
  ],
  [
    'what a policy engine refuses is on purpose, and an accept comes after it',
    table(forward('drop', rule(jump('KUBE-FORWARD')))),
    { drops: [1], accept: 1 }
  ],
  [
    'a rule for the other family says nothing',
    table(forward('accept', rule({ conditions: [{ kind: 'family', family: 6 }], verdict: { kind: 'drop' } }))),
    { drops: [] }
  ],
  [
    'chains that call each other come to an end',
    table(
      forward('accept', rule(jump('a'))),
      { name: 'a', rules: [rule(jump('b'))] },
      { name: 'b', rules: [rule(jump('a'))] }
    ),
    { drops: [] }
  ]
]
for (const [what, tables, { drops, accept: place, pair }] of judged)
  test(what, () => {
    const course = courseIn(tables, 'FORWARD', pods, { devices: [], adminChains: [] })
    const inForward = (places: readonly { readonly chain: string; readonly index: number }[]) =>
      places.flatMap(({ chain, index }) => (chain === 'FORWARD' ? [index] : []))
    const placesOf = (match: 'source' | 'pair') => course.inserts.find((insert) => insert.match === match)?.places ?? []
    const stops = course.drops.source.map(({ chain, index }) => (chain === 'FORWARD' ? index : 0))
    assert.deepEqual([stops, inForward(placesOf('source')).at(-1)], [drops, place])
    assert.equal(inForward(placesOf('pair')).at(-1), pair)
  })

test('a chain that does not exist lets packets pass', () => {
  const course = courseIn(table(), 'nothing', pods, { devices: [], adminChains: [] })
  assert.deepEqual(course.drops, { pair: [], source: [], destination: [] })
})

test('tables of policy engines are distinguished from those of firewalls', () => {
  assert.deepEqual(
    ['kube-proxy', 'calico', 'cilium', 'filter', 'firewalld'].map((name) => isPolicyTable({ table: name })),
    [true, true, true, false, false]
  )
})
