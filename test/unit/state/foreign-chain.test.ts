// The judgement about other programs' chains: where a pod's packet would be dropped, and between which rules an accept
// has its place.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  type ForeignBranch,
  type ForeignChain,
  type ForeignTable,
  fateIn,
  isPolicyTable
} from '../../../daemon/state/foreign-chain.ts'
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

const fates: readonly (readonly [string, ForeignTable, ReturnType<typeof fateIn>])[] = [
  ['a policy of drop drops at the end', table(forward('drop')), { end: 'drops', at: 0, after: 0 }],
  ['an accept before the policy ends it', table(forward('drop', rule(accept))), { end: 'accepts', at: 0, after: 0 }],
  [
    'a rule that drops all drops there',
    table(forward('accept', rule(), rule(drop))),
    { end: 'drops', at: 1, after: 0 }
  ],
  [
    'a drop in a chain that is called drops at the call',
    table(forward('accept', rule(jump('sub'))), { name: 'sub', rules: [rule(drop)] }),
    { end: 'drops', at: 0, after: 0 }
  ],
  [
    'a drop of other addresses is on purpose, and the place for an accept is after it',
    table(forward('drop', rule({ conditions: [from('203.0.113.0/24')], verdict: { kind: 'drop' } }))),
    { end: 'drops', at: 1, after: 1 }
  ],
  [
    'a drop of addresses that hold pods is not',
    table(forward('accept', rule({ conditions: [from('10.0.0.0/8')], verdict: { kind: 'drop' } }))),
    { end: 'drops', at: 0, after: 0 }
  ],
  [
    'what a policy engine refuses is on purpose',
    table(forward('drop', rule(jump('KUBE-FORWARD')))),
    { end: 'drops', at: 1, after: 1 }
  ],
  [
    'a rule for the other family says nothing',
    table(forward('accept', rule({ conditions: [{ kind: 'family', family: 6 }], verdict: { kind: 'drop' } }))),
    { end: 'accepts', at: 1, after: 0 }
  ],
  [
    'chains that call each other come to an end',
    table(
      forward('accept', rule(jump('a'))),
      { name: 'a', rules: [rule(jump('b'))] },
      { name: 'b', rules: [rule(jump('a'))] }
    ),
    { end: 'accepts', at: 1, after: 0 }
  ]
]
for (const [what, tables, fate] of fates) test(what, () => assert.deepEqual(fateIn(tables, 'FORWARD', pods), fate))

test('a chain that does not exist lets packets pass', () => {
  assert.deepEqual(fateIn(table(), 'nothing', pods), { end: 'passes', at: 0, after: 0 })
})

test('tables of policy engines are distinguished from those of firewalls', () => {
  assert.deepEqual(
    ['kube-proxy', 'calico', 'cilium', 'filter', 'firewalld'].map((name) => isPolicyTable({ table: name })),
    [true, true, true, false, false]
  )
})
