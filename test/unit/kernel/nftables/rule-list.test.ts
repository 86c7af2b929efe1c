// Rules of long chains: alike ones become one, what is too long is kept roughly, and nothing that decides gets lost.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { savedTable } from '../../../../daemon/kernel/nftables/legacy-lines.ts'
import { RuleList } from '../../../../daemon/kernel/nftables/rule-list.ts'
import type { ForeignCondition, ForeignRule, ForeignVerdict } from '../../../../daemon/state/foreign-chain.ts'
import { formatPrefix, parsePrefix } from '../../../../ipam/address.ts'

const prefix = (text: string) => parsePrefix(text) ?? assert.fail(text)
const from = (...texts: readonly string[]): ForeignCondition => ({
  kind: 'address',
  prefixes: texts.map(prefix),
  negated: false,
  side: 'source'
})
const rule = (handle: number, conditions: readonly ForeignCondition[], kind: 'drop' | 'accept' | 'return' = 'drop') =>
  ({ handle, branches: [{ conditions, verdict: { kind } }], text: `rule ${handle}` }) as const
const logs = (handle: number): ForeignRule => ({ handle, branches: [], text: 'log' })
const list = (rules: readonly ForeignRule[], most?: number) => {
  const made = new RuleList(most)
  for (const one of rules) made.add(one)
  return { rules: made.end(), isPartial: made.isPartial }
}
const addresses = ({ branches }: ForeignRule): readonly string[] =>
  branches.flatMap(({ conditions }) =>
    conditions.flatMap((one) => (one.kind === 'address' ? one.prefixes.map(formatPrefix) : []))
  )
const verdicts = ({ branches }: ForeignRule): readonly ForeignVerdict['kind'][] =>
  branches.map(({ verdict }) => verdict.kind)

test('rules that differ in one address become one, which has the handle of the first and all addresses', () => {
  const { rules, isPartial } = list([
    rule(1, [from('192.0.2.1/32')]),
    logs(2),
    rule(3, [from('192.0.2.2/32')]),
    rule(4, [from('192.0.2.3/32')], 'accept'),
    rule(5, [])
  ])
  assert.deepEqual(
    rules.map(({ handle, count = 1 }) => [handle, count]),
    [
      [1, 3],
      [4, 1],
      [5, 1]
    ]
  )
  assert.deepEqual(rules.map(addresses), [['192.0.2.1/32', '192.0.2.2/32'], ['192.0.2.3/32'], []])
  assert.match(rules[0]?.text ?? '', /^rule 1 \(the first of 3 such rules\)$/)
  assert.equal(isPartial, false)
})

test('rules stay apart that differ in anything else, or that are ours', () => {
  const ours = { match: 'source', prefix: prefix('10.244.0.0/16') } as const
  const apart: readonly ForeignRule[] = [
    rule(1, [from('192.0.2.1/32'), { kind: 'new' }]),
    rule(2, [from('192.0.2.2/32')]),
    rule(3, [{ ...from('192.0.2.2/32'), side: 'destination' } as ForeignCondition]),
    rule(4, [{ ...from('192.0.2.2/32'), negated: true } as ForeignCondition]),
    rule(5, [{ ...from('192.0.2.3/32'), negated: true } as ForeignCondition]),
    { ...rule(6, [from('10.244.0.0/16')], 'accept'), ours },
    { ...rule(7, [from('10.244.0.0/16')], 'accept'), ours },
    rule(8, [from('10.244.0.0/16')], 'accept'),
    rule(9, [from('192.0.2.1/32'), from('192.0.2.2/32')]),
    rule(10, [from('192.0.2.1/32'), from('192.0.2.3/32')])
  ]
  assert.deepEqual(list(apart).rules, apart)
})

test('a repeated rule adds its address only to its own kind', () => {
  const made = new RuleList()
  made.add(rule(1, [from('192.0.2.1/32')]))
  assert.equal(made.repeat([prefix('192.0.2.2/32')]), true)
  assert.equal(made.repeat([]), false)
  made.add(logs(3))
  assert.equal(made.repeat([prefix('192.0.2.4/32')]), false)
  assert.deepEqual(made.end().map(addresses), [['192.0.2.1/32', '192.0.2.2/32']])
})

test('of a chain that is too long the narrowed rules are unknown, and what meets all packets stays as it is', () => {
  const many = Array.from(
    { length: 100 },
    (_, n): ForeignRule => rule(n, [from(`192.0.2.${n}/32`)], n % 2 === 0 ? 'drop' : 'accept')
  )
  const { rules, isPartial } = list([...many, rule(100, []), rule(101, [from('198.51.100.1/32')])], 10)
  assert.equal(isPartial, true)
  assert.ok(rules.length < 20, String(rules.length))
  assert.equal(
    rules.reduce((sum, { count = 1 }) => sum + count, 0),
    102
  )
  assert.deepEqual(rules.slice(0, 10), many.slice(0, 10))
  const rough = rules.slice(11).filter(({ handle }) => handle !== 100)
  assert.ok(rough.every(({ branches }) => branches.every(({ conditions }) => conditions[0]?.kind === 'deliberate')))
  assert.deepEqual(new Set(rough.flatMap(verdicts)), new Set(['drop', 'accept']))
})

test('what follows the last rule that is read may drop packets of pods', () => {
  const made = new RuleList()
  let more = true
  for (let n = 0; more; n++) more = made.add(rule(n, [], 'return'))
  const last = made.end().at(-1)
  assert.equal(made.isPartial, true)
  assert.deepEqual(last?.branches, [{ conditions: [{ kind: 'deliberate' }], verdict: { kind: 'drop' } }])
})

test('a legacy table is parsed line by line, and each of its rules is counted', async () => {
  const drops = Array.from({ length: 450 }, (_, n) => `-A FORWARD -s 198.51.${n >> 8}.${n & 255}/32 -j DROP`)
  const lines = [
    '*filter',
    ':FORWARD DROP [1:2]',
    ':X - [0:0]',
    ...drops,
    '-A X -j RETURN',
    '-A FORWARD -j X',
    'COMMIT'
  ]
  const read = async function* () {
    yield* lines
  }
  const saved = await savedTable(read(), 4)
  const chains = saved?.table.chains
  assert.equal(chains?.get('FORWARD')?.policy, 'drop')
  const rules = chains?.get('FORWARD')?.rules ?? []
  assert.equal(rules.flatMap(addresses).length, 450)
  assert.equal(
    rules.reduce((sum, { count = 1 }) => sum + count, 0),
    451
  )
  assert.ok(rules.length < 10)
  assert.equal(chains?.get('X')?.rules.length, 1)
})
