// Rules that are certain to drop packets between pods of two nodes: the detail of FORWARD_DROPPED.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { foreignDrops, unansweredReasons } from '../../../daemon/firewall/foreign-accepts.ts'
import type { ForeignTable, PodSide } from '../../../daemon/state/foreign-chain.ts'
import type { Insert } from '../../../daemon/state/foreign-course.ts'
import { withFacts } from '../../../daemon/state/foreign-facts.ts'
import { Verdicts } from '../../../daemon/state/foreign-verdict.ts'
import type { Prefix } from '../../../ipam/address.ts'
import { pods, saved, side } from './saved-rules.ts'

describe('what is certain to drop packets between pods of two nodes is reported', () => {
  const between: PodSide = { ...side, local: ['cni0'], remote: ['weft.1'] }
  const reported = (tables: readonly ForeignTable[]) => unansweredReasons(foreignDrops(tables, { 4: pods }, between))
  const wan = ['-A WAN -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT', '-A WAN -j DROP']
  const queue = '-A FORWARD -j NFQUEUE --queue-num 3'
  for (const [what, rules, rule] of [
    ['a chain for a device by which they enter', ['-A FORWARD -i weft.1 -j WAN', ...wan], '-A WAN -j DROP'],
    ['two devices', ['-A FORWARD -i cni0 -o weft.1 -j REJECT'], '-A FORWARD -i cni0 -o weft.1 -j REJECT'],
    ['all but one device, by goto', ['-A FORWARD ! -i eth1 -g WAN', ...wan], undefined],
    [
      'the same, where a rule before it is about pods',
      ['-A FORWARD ! -i eth1 -g WAN', ...wan, '-A WAN -i cni0 -o eth1 -j DROP'],
      '-A WAN -j DROP'
    ],
    ['not what only may drop', ['-A FORWARD -m mark --mark 1 -j DROP', '-A FORWARD -i weft.1 -j WAN', ...wan], wan[1]],
    [
      'what may be accepted before',
      ['-A FORWARD -m mark --mark 1 -j ACCEPT', '-A FORWARD -i weft.1 -j DROP'],
      undefined
    ],
    ['a mark', ['-A FORWARD -m mark --mark 1 -j DROP'], undefined],
    ['a port', ['-A FORWARD -i weft.1 -p tcp -m tcp --dport 25 -j WAN', ...wan], undefined],
    ['one pod', ['-A FORWARD -i weft.1 -d 10.244.1.7/32 -j WAN', ...wan], undefined],
    ['another device', ['-A FORWARD -i eth0 -j WAN', ...wan], undefined],
    ['connections that exist', ['-A FORWARD -i weft.1 -m conntrack --ctstate ESTABLISHED -j WAN', ...wan], undefined],
    ['a queue, of which it is not known who listens', [queue], undefined]
  ] as const) {
    test(what, () => {
      const reasons = reported(saved('ACCEPT', rules))
      if (rule === undefined) assert.deepEqual(reasons, [])
      else assert.ok(reasons.join().includes(`"${rule}"`), reasons.join())
    })
  }
  test('a queue without a program', () => {
    const tables = saved('ACCEPT', [queue, '-A FORWARD -j NFQUEUE --queue-balance 0:3 --queue-bypass'])
    assert.deepEqual(reported(withFacts(tables, { queues: new Set([3]), sets: new Map() })), [])
    assert.match(
      reported(withFacts(tables, { queues: new Set([0]), sets: new Map() })).join(),
      /by "-A FORWARD -j NFQUEUE/
    )
  })
  test('a set that holds the pod network', () => {
    const set = { name: 'private', negated: false }
    const conditions = [{ kind: 'deliberate' as const, set }]
    const rules = [{ text: 'ip saddr @private drop', branches: [{ conditions, verdict: { kind: 'drop' as const } }] }]
    const chains = new Map([['forward', { name: 'forward', policy: 'accept' as const, rules }]])
    const tables: readonly ForeignTable[] = [{ tool: 'nft', family: 'ip', table: 'guard', chains }]
    const holding = (...held: readonly Prefix[]) => ({
      queues: new Set<number>(),
      sets: new Map([['ip guard private', held]])
    })
    assert.deepEqual(reported(withFacts(tables, holding())), [])
    assert.match(reported(withFacts(tables, holding(pods))).join(), /by "ip saddr @private drop"/)
  })
})

test('an accept or a RETURN of Weft before it saves the packet', () => {
  const [table] = saved('ACCEPT', ['-A FORWARD -j ADMIN', '-A ADMIN -j DROP'])
  assert.ok(table)
  const packet = { in: 'weft.1', out: 'cni0' }
  const dropWith = (inserts: readonly Insert[]) => new Verdicts(table, 'FORWARD', inserts, pods).certainDrop(packet)
  const places = [{ chain: 'ADMIN', index: 0 }]
  assert.deepEqual(dropWith([]), { chain: 'ADMIN', index: 0 })
  assert.equal(dropWith([{ match: 'pair', places }]), undefined)
  assert.equal(dropWith([{ match: 'source', verdict: 'return', places }]), undefined)
})
