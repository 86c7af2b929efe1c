// Rules that administrators write: where the accepts are beside them, and that they open nothing. The second part sends
// every kind of packet through random rulesets, without the accepts and with them.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { foreignAccepts, foreignDrops, unansweredReasons } from '../../../daemon/firewall/foreign-accepts.ts'
import { savedTables } from '../../../daemon/kernel/nftables/iptables-save.ts'
import { acceptsIn } from '../../../daemon/kernel/nftables/read-tables.ts'
import type { ForeignCondition, ForeignTable, PodSide } from '../../../daemon/state/foreign-chain.ts'
import { placeFor } from '../../../daemon/state/foreign-course.ts'
import type { ForeignAccept } from '../../../daemon/state/object.ts'
import { contains, type Ip, type Prefix, parseIp, parsePrefix } from '../../../ipam/address.ts'

const prefix = (text: string): Prefix => parsePrefix(text) ?? assert.fail(text)
const pods = prefix('10.244.0.0/16')
const side: PodSide = { devices: ['cni0', 'weft.1', 'veth*'], carriers: ['weft.1'], adminChains: ['CNI-ADMIN'] }
const withDocker0: PodSide = { ...side, devices: [...side.devices, 'docker0'] }

const saved = (policy: 'ACCEPT' | 'DROP', rules: readonly string[]): readonly ForeignTable[] => {
  const chains = new Set(rules.flatMap((rule) => /^-A (\S+)/.exec(rule)?.[1] ?? []))
  const called = rules.flatMap((rule) => /-[jg] ([A-Z][A-Z0-9-]*[A-Z0-9])$/.exec(rule)?.[1] ?? [])
  const names = [...new Set([...chains, ...called])].filter(
    (name) => !/^(FORWARD|ACCEPT|DROP|REJECT|RETURN)$/.test(name)
  )
  return savedTables(
    ['*filter', `:FORWARD ${policy} [0:0]`, ...names.map((name) => `:${name} - [0:0]`), ...rules, 'COMMIT'].join('\n'),
    4
  )
}

const matchText = { pair: '-s pods -d pods', source: '-s pods', destination: '-d pods' } as const

/** The rules with Weft's accepts among them, as iptables would have them. */
function answered(rules: readonly string[], policy: 'ACCEPT' | 'DROP', by: PodSide = side): readonly string[] {
  const tables = saved(policy, rules)
  const [table] = tables
  assert.ok(table)
  const accepts = foreignAccepts(foreignDrops(tables, { 4: pods }, by))
  const placed = accepts.map((accept) => ({ accept, at: placeFor(table, accept, by) ?? assert.fail('no place') }))
  return [...table.chains.values()].flatMap(({ name, rules: own }) => {
    const before = (index: number) =>
      placed
        .filter(({ accept, at }) => accept.chain === name && at === index)
        .map(({ accept }) => `${name}: ${matchText[accept.match]} accept`)
    return [...own.flatMap(({ text }, index) => [...before(index), text]), ...before(own.length)]
  })
}

describe('beside the rules of an administrator', () => {
  const wide = ['FORWARD: -s pods accept', 'FORWARD: -d pods accept']
  const established = '-A DOCKER-USER -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT'
  const user = '-A FORWARD -j DOCKER-USER'
  const stranger = '-A DOCKER-USER -i eth0 ! -s 192.168.10.77 -j DROP'
  const back = '-A DOCKER-USER -j RETURN'
  for (const [what, policy, rules, expected] of [
    [
      "the rule of Docker's manual keeps strangers out: only pods pass before it",
      'DROP',
      [user, established, stranger, back],
      [
        user,
        established,
        'DOCKER-USER: -s pods -d pods accept',
        stranger,
        'DOCKER-USER: -s pods accept',
        'DOCKER-USER: -d pods accept',
        back
      ]
    ],
    [
      'pods kept out of a management network: nothing comes before it',
      'DROP',
      ['-A FORWARD -i cni0 -o eth1 -j REJECT'],
      ['-A FORWARD -i cni0 -o eth1 -j REJECT', ...wide]
    ],
    [
      'nor before the drop of one pod, of an unreadable match, of a set, of a port',
      'DROP',
      [
        '-A FORWARD -d 10.244.1.7/32 -p tcp -j DROP',
        '-A FORWARD -m set --match-set blocked src -j DROP',
        '-A FORWARD -m socket -j DROP',
        '-A FORWARD -p tcp -m tcp --dport 25 -j DROP'
      ],
      [
        '-A FORWARD -d 10.244.1.7/32 -p tcp -j DROP',
        '-A FORWARD -m set --match-set blocked src -j DROP',
        '-A FORWARD -m socket -j DROP',
        '-A FORWARD -p tcp -m tcp --dport 25 -j DROP',
        ...wide
      ]
    ],
    [
      'a RETURN that packets of pods take: the accept goes before it, or into the calling chain',
      'DROP',
      [user, established, '-A DOCKER-USER -s 10.0.0.0/8 -j RETURN', stranger, back],
      [
        user,
        'FORWARD: -d pods accept',
        established,
        'DOCKER-USER: -s pods accept',
        '-A DOCKER-USER -s 10.0.0.0/8 -j RETURN',
        stranger,
        back
      ]
    ],
    [
      'a RETURN in the base chain: the accepts go before it',
      'DROP',
      ['-A FORWARD -i eth0 -j RETURN'],
      [...wide, '-A FORWARD -i eth0 -j RETURN']
    ],
    [
      'all pods dropped by name: nothing is done',
      'ACCEPT',
      ['-A FORWARD -s 10.244.0.0/16 -j DROP'],
      ['-A FORWARD -s 10.244.0.0/16 -j DROP']
    ],
    [
      'a chain of the administrator comes before everything',
      'DROP',
      ['-A FORWARD -j CNI-ADMIN', '-A CNI-ADMIN -j DROP'],
      ['-A FORWARD -j CNI-ADMIN', ...wide, '-A CNI-ADMIN -j DROP']
    ],
    [
      'a chain with a drop of its own before the one of everything: the accept is between',
      'ACCEPT',
      ['-A FORWARD -j ADMIN', '-A ADMIN -i veth+ -o eth1 -j DROP', '-A ADMIN -j REJECT'],
      [
        '-A FORWARD -j ADMIN',
        '-A ADMIN -i veth+ -o eth1 -j DROP',
        'ADMIN: -s pods accept',
        'ADMIN: -d pods accept',
        '-A ADMIN -j REJECT'
      ]
    ],
    [
      'firewalld: the zone of an interface keeps strangers out, the default zone is answered',
      'ACCEPT',
      [
        '-A FORWARD -m conntrack --ctstate INVALID -j DROP',
        '-A FORWARD -j ZONES',
        '-A FORWARD -j REJECT',
        '-A ZONES -i eth0 -g PUBLIC',
        '-A ZONES -g PUBLIC',
        '-A PUBLIC -j REJECT'
      ],
      [
        '-A FORWARD -m conntrack --ctstate INVALID -j DROP',
        'FORWARD: -s pods -d pods accept',
        '-A FORWARD -j ZONES',
        '-A FORWARD -j REJECT',
        '-A ZONES -i eth0 -g PUBLIC',
        'ZONES: -s pods accept',
        'ZONES: -d pods accept',
        '-A ZONES -g PUBLIC',
        '-A PUBLIC -j REJECT'
      ]
    ],
    [
      'what the administrator accepts himself needs no accept',
      'DROP',
      ['-A FORWARD -s 10.0.0.0/8 -j ACCEPT'],
      ['-A FORWARD -s 10.0.0.0/8 -j ACCEPT', 'FORWARD: -d pods accept']
    ],
    [
      'everything but one network dropped early: accepts are there for packets that go no further',
      'DROP',
      [user, '-A FORWARD -o br-x -j DROP', '-A DOCKER-USER -s 192.168.10.0/24 -j RETURN', '-A DOCKER-USER -j DROP'],
      [
        user,
        '-A FORWARD -o br-x -j DROP',
        'FORWARD: -d pods accept',
        '-A DOCKER-USER -s 192.168.10.0/24 -j RETURN',
        'DOCKER-USER: -s pods accept',
        '-A DOCKER-USER -j DROP'
      ]
    ],
    [
      'a drop of new connections drops everything',
      'ACCEPT',
      ['-A FORWARD -m conntrack ! --ctstate RELATED,ESTABLISHED -j DROP'],
      [...wide, '-A FORWARD -m conntrack ! --ctstate RELATED,ESTABLISHED -j DROP']
    ]
  ] as const) {
    test(what, () => assert.deepEqual(answered(rules, policy), expected))
  }

  test('a rule that cuts pods off is told; one that keeps them out of something is not', () => {
    const told = (rules: readonly string[], policy: 'ACCEPT' | 'DROP' = 'DROP') =>
      unansweredReasons(foreignDrops(saved(policy, rules), { 4: pods }, side)).length
    assert.equal(told([]), 0)
    assert.equal(told(['-A FORWARD -i cni0 -o eth1 -j REJECT']), 0)
    assert.equal(told(['-A FORWARD -s 10.244.0.0/16 -j DROP']), 1)
    assert.equal(told(['-A FORWARD -i cni0 -j DROP'], 'ACCEPT'), 1)
    // Before the policy engine no accept may be, and other nodes' packets enter by weft.1.
    const policies = '-A FORWARD -j KUBE-ROUTER-FORWARD'
    assert.equal(told(['-A FORWARD -i eth0 ! -s 192.0.2.1 -j DROP', policies]), 0)
    assert.equal(told(['-A FORWARD ! -i lo ! -s 192.0.2.1 -j DROP', policies]), 1)
  })
})

describe('Docker', () => {
  const wide = ['FORWARD: -s pods accept', 'FORWARD: -d pods accept']
  const old = [
    '-A FORWARD -j DOCKER-USER',
    '-A FORWARD -j DOCKER-ISOLATION-STAGE-1',
    '-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT',
    '-A FORWARD -o docker0 -j DOCKER',
    '-A FORWARD -i docker0 ! -o docker0 -j ACCEPT',
    '-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2',
    '-A DOCKER-ISOLATION-STAGE-1 -i br-x ! -o br-x -j DOCKER-ISOLATION-STAGE-2',
    '-A DOCKER-ISOLATION-STAGE-1 -j RETURN',
    '-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP',
    '-A DOCKER-ISOLATION-STAGE-2 -o br-x -j DROP',
    '-A DOCKER-ISOLATION-STAGE-2 -j RETURN',
    '-A DOCKER-USER -j RETURN'
  ]
  /** Docker 29 (moby, integration/network/bridge/iptablesdoc); 28 has the isolation chains in DOCKER-FORWARD. */
  const recent = [
    '-A FORWARD -j DOCKER-USER',
    '-A FORWARD -j DOCKER-FORWARD',
    '-A DOCKER-FORWARD -j DOCKER-CT',
    '-A DOCKER-FORWARD -j DOCKER-INTERNAL',
    '-A DOCKER-FORWARD -j DOCKER-BRIDGE',
    '-A DOCKER-FORWARD -i docker0 -j ACCEPT',
    '-A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT',
    '-A DOCKER-BRIDGE -o docker0 -j DOCKER',
    '-A DOCKER-BRIDGE -o br-x -j DOCKER',
    '-A DOCKER ! -i docker0 -o docker0 -j DROP',
    '-A DOCKER ! -i br-x -o br-x -j DROP'
  ]
  const inserted = (rules: readonly string[], by: PodSide, policy: 'ACCEPT' | 'DROP' = 'DROP') =>
    answered(rules, policy, by).filter((line) => !rules.includes(line))
  const before = (rules: readonly string[], line: string, by: PodSide) => {
    const all = answered(rules, 'DROP', by)
    return all.slice(0, all.indexOf(line))
  }

  test('of old keeps apart its own bridges only: the accepts are in DOCKER-USER', () =>
    assert.deepEqual(inserted(old, side), ['DOCKER-USER: -s pods accept', 'DOCKER-USER: -d pods accept']))
  test('of old with pods behind docker0: wide accepts come after the isolation, pods reach each other before it', () =>
    assert.deepEqual(inserted(old, withDocker0), [...wide, 'DOCKER-USER: -s pods -d pods accept']))
  test('of today drops what is not published: wide accepts come after that; for pods behind docker0 there is one before it', () => {
    assert.deepEqual(inserted(recent, side), wide)
    assert.deepEqual(inserted(recent, withDocker0), [...wide, 'DOCKER-USER: -s pods -d pods accept'])
  })
  test('without a bridge between its containers keeps them apart: not even pods pass before that', () => {
    const apart = ['-A DOCKER-FORWARD -i docker0 -o docker0 -j DROP', ...recent.slice(2)]
    const rules = [...recent.slice(0, 2), ...apart]
    const line = '-A DOCKER-FORWARD -i docker0 -o docker0 -j DROP'
    assert.deepEqual(
      before(rules, line, withDocker0).filter((each) => each.endsWith('accept') && !each.startsWith('FORWARD')),
      []
    )
  })
  test('with an internal network of pods lets nobody in', () => {
    const internal = '-A DOCKER-INTERNAL ! -s 10.244.1.0/24 -o docker0 -j DROP'
    assert.ok(!inserted([...recent, internal], withDocker0).includes('DOCKER-USER: -s pods -d pods accept'))
  })
  test('that only isolates needs no accept', () => assert.deepEqual(inserted(old, side, 'ACCEPT'), []))
})

test('an accept that precedes what it may not is out of its place; another call of the administrator suffices', () => {
  const weft = '-m comment --comment weft'
  const judge = (...rules: readonly string[]) =>
    acceptsIn(saved('DROP', rules), side).map(({ kind, effective }) => [kind, effective])
  const reject = '-A FORWARD -i cni0 -o eth1 -j REJECT'
  const source = `-A FORWARD -s 10.244.0.0/16 ${weft} -j ACCEPT`
  assert.deepEqual(judge(source, reject), [['accept', false]])
  assert.deepEqual(judge(reject, source), [['accept', true]])
  assert.deepEqual(judge(source, reject, source), [['accept', false]])
  assert.deepEqual(judge(`-A FORWARD -s 10.244.0.0/16 -d 10.244.0.0/16 ${weft} -j ACCEPT`, reject), [['accept', false]])
  const call = `-A FORWARD ${weft} -j CNI-ADMIN`
  assert.deepEqual(judge(call, source), [
    ['admin-call', true],
    ['accept', true]
  ])
  assert.deepEqual(judge(source, call), [
    ['accept', false],
    ['admin-call', false]
  ])
})

/* Random rulesets. */

type Packet = { readonly in: string; readonly out: string; readonly source: Ip; readonly destination: Ip }

const ip = (text: string): Ip => parseIp(text) ?? assert.fail(text)
const addresses = ['10.244.1.7', '10.244.2.9', '10.9.9.9', '192.168.10.77', '203.0.113.5'].map(ip)
const packets: readonly Packet[] = ['cni0', 'eth0', 'docker0'].flatMap((from) =>
  ['cni0', 'eth0', 'docker0'].flatMap((to) =>
    addresses.flatMap((source) => addresses.map((destination) => ({ in: from, out: to, source, destination })))
  )
)

function matches(conditions: readonly ForeignCondition[], packet: Packet): boolean {
  return conditions.every((condition) => {
    if (condition.kind === 'interface') return condition.names.includes(packet[condition.side]) !== condition.negated
    if (condition.kind !== 'address' || condition.side === undefined) return condition.kind === 'family'
    const address = packet[condition.side]
    return condition.prefixes.some((one) => contains(one, address)) !== condition.negated
  })
}

type Placed = { readonly accept: ForeignAccept; readonly at: number | undefined }
type End = { readonly verdict: 'accept' | 'drop' | 'return'; readonly conditions: readonly ForeignCondition[] }

const isMeant = (match: ForeignAccept['match'], { source, destination }: Packet): boolean =>
  (match === 'destination' || contains(pods, source)) && (match === 'source' || contains(pods, destination))

/** The verdict for a packet, and the conditions on its way there. */
function send(table: ForeignTable, accepts: readonly Placed[], packet: Packet): End {
  const isAcceptedAt = (name: string, index: number): boolean =>
    accepts.some(({ accept, at }) => accept.chain === name && at === index && isMeant(accept.match, packet))
  const through = (name: string, outer: readonly ForeignCondition[], from = 0): End | undefined => {
    if (isAcceptedAt(name, from)) return { verdict: 'accept', conditions: [] }
    const rule = table.chains.get(name)?.rules[from]
    if (rule === undefined) return undefined
    const branch = rule.branches.find(({ conditions }) => matches(conditions, packet))
    if (branch === undefined) return through(name, outer, from + 1)
    const { verdict } = branch
    const conditions = [...outer, ...branch.conditions]
    if (verdict.kind === 'accept' || verdict.kind === 'drop') return { verdict: verdict.kind, conditions }
    const end = 'chain' in verdict ? through(verdict.chain, conditions) : undefined
    return end ?? (verdict.kind === 'jump' ? through(name, outer, from + 1) : undefined)
  }
  return through('FORWARD', []) ?? { verdict: table.chains.get('FORWARD')?.policy ?? 'accept', conditions: [] }
}

const conditionTexts = [
  ...[
    '-s 10.244.1.7',
    '-s 10.0.0.0/8',
    '! -s 192.168.10.77',
    '-s 203.0.113.5',
    '-d 10.244.0.0/16',
    '! -d 10.244.0.0/16'
  ],
  ...['-d 10.9.9.9', '-i cni0', '! -i cni0', '-i eth0', '-o docker0', '! -o eth0', '-o cni0']
]
const conditions = fc.oneof(
  { weight: 2, arbitrary: fc.constant('') },
  { weight: 3, arbitrary: fc.constantFrom(...conditionTexts) },
  fc.tuple(fc.constantFrom(...conditionTexts), fc.constantFrom(...conditionTexts)).map((two) => two.join(' '))
)
const verdicts = fc.constantFrom('-j DROP', '-j DROP', '-j REJECT', '-j ACCEPT', '-j RETURN')
const ruleIn = (chain: string, calls: readonly string[]) =>
  fc
    .tuple(conditions, fc.oneof(verdicts, ...(calls.length > 0 ? [fc.constantFrom(...calls)] : [])))
    .map((parts) => ['-A', chain, ...parts].filter(Boolean).join(' '))
const rulesets = fc
  .tuple(
    fc.array(ruleIn('FORWARD', ['-j ADMIN', '-g ADMIN', '-j DOCKER-USER', '-j INNER']), { maxLength: 4 }),
    fc.array(ruleIn('ADMIN', ['-j INNER', '-g INNER']), { maxLength: 3 }),
    fc.array(ruleIn('DOCKER-USER', ['-j INNER']), { maxLength: 3 }),
    fc.array(ruleIn('INNER', []), { maxLength: 3 })
  )
  .map((parts) => parts.flat())
/** 100,000 of them held on 2026-11-29; these take a second. */
const RUNS = 400
const policies = fc.constantFrom('ACCEPT' as const, 'DROP' as const)

/** Whether a drop names addresses of pods or devices behind which they are. */
const namesPods = (all: readonly ForeignCondition[]): boolean =>
  all.some((condition) =>
    condition.kind === 'interface'
      ? condition.names.includes('cni0')
      : condition.kind === 'address' && condition.prefixes.some((one) => contains(pods, one))
  )

test('whatever the rules: no drop that names pods is opened, narrowed ones only between pods; those of everything are', () => {
  fc.assert(
    fc.property(policies, rulesets, (policy, rules) => {
      const tables = saved(policy, rules)
      const [table] = tables
      assert.ok(table)
      const drops = foreignDrops(tables, { 4: pods }, side)
      const accepts = foreignAccepts(drops).map((accept) => ({ accept, at: placeFor(table, accept, side) }))
      const isTold = unansweredReasons(drops).length > 0
      for (const packet of packets) {
        const without = send(table, [], packet)
        const withThem = send(table, accepts, packet)
        const [fromPod, toPod] = [contains(pods, packet.source), contains(pods, packet.destination)]
        if (without.verdict !== 'drop' || !(fromPod || toPod)) continue
        const isCaught = withThem.verdict === 'drop' && withThem.conditions.length === 0
        assert.ok(!isCaught || isTold, 'what drops everything is neither answered nor told')
        if (withThem.verdict === 'drop') continue
        const isPair = fromPod && toPod
        assert.ok(!namesPods(without.conditions), 'a drop that names pods is opened')
        assert.ok(isPair || without.conditions.length === 0, 'a narrowed drop is opened for others')
      }
    }),
    { numRuns: RUNS }
  )
})
