// Rules that administrators write: where the accepts are beside them. admin-packets.test.ts sends packets through them.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { foreignAccepts, foreignDrops, unansweredReasons } from '../../../daemon/firewall/foreign-accepts.ts'
import { acceptsIn } from '../../../daemon/kernel/nftables/read-tables.ts'
import type { PodSide } from '../../../daemon/state/foreign-chain.ts'
import { placeFor } from '../../../daemon/state/foreign-course.ts'
import { pods, saved, side, verdictOf } from './saved-rules.ts'

const withDocker0: PodSide = { ...side, devices: [...side.devices, 'docker0'] }

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
        .map(({ accept }) => `${name}: ${matchText[accept.match]} ${verdictOf(accept)}`)
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
      'everything but one network dropped early: pods return, and meet what is dropped later',
      'DROP',
      [user, '-A FORWARD -o br-x -j DROP', '-A DOCKER-USER -s 192.168.10.0/24 -j RETURN', '-A DOCKER-USER -j DROP'],
      [
        user,
        '-A FORWARD -o br-x -j DROP',
        ...wide,
        '-A DOCKER-USER -s 192.168.10.0/24 -j RETURN',
        'DOCKER-USER: -s pods return',
        'DOCKER-USER: -d pods return',
        '-A DOCKER-USER -j DROP'
      ]
    ],
    [
      'a drop of all in a called chain, and a rule about pods behind its call: pods return to that rule',
      'ACCEPT',
      [user, '-A FORWARD -i cni0 -o eth1 -j REJECT', established, '-A DOCKER-USER -j DROP'],
      [
        user,
        '-A FORWARD -i cni0 -o eth1 -j REJECT',
        established,
        'DOCKER-USER: -s pods return',
        'DOCKER-USER: -d pods return',
        '-A DOCKER-USER -j DROP'
      ]
    ],
    [
      'the same by two calls, and a narrowed drop behind: pods reach each other before that, all else is accepted last',
      'DROP',
      [
        user,
        '-A FORWARD -i eth0 ! -s 192.0.2.1 -j DROP',
        '-A DOCKER-USER -j INNER',
        '-A INNER -i eth9 -j RETURN',
        '-A INNER -j DROP'
      ],
      [
        user,
        '-A FORWARD -i eth0 ! -s 192.0.2.1 -j DROP',
        ...wide,
        '-A DOCKER-USER -j INNER',
        'DOCKER-USER: -s pods -d pods accept',
        '-A INNER -i eth9 -j RETURN',
        'INNER: -s pods return',
        'INNER: -d pods return',
        '-A INNER -j DROP'
      ]
    ],
    [
      'a drop of all by a chain that others call, too: pods return before the call of it',
      'ACCEPT',
      [
        user,
        '-A FORWARD -i cni0 -o eth1 -j LOGDROP',
        '-A DOCKER-USER -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT',
        '-A DOCKER-USER -j LOGDROP',
        '-A LOGDROP -j DROP'
      ],
      [
        user,
        '-A FORWARD -i cni0 -o eth1 -j LOGDROP',
        '-A DOCKER-USER -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT',
        'DOCKER-USER: -s pods return',
        'DOCKER-USER: -d pods return',
        '-A DOCKER-USER -j LOGDROP',
        '-A LOGDROP -j DROP'
      ]
    ],
    [
      'a drop of all in the base chain, a narrowed one that is not reached behind it: pods reach each other only',
      'DROP',
      ['-A FORWARD -j REJECT', '-A FORWARD -i eth0 ! -s 192.0.2.1 -j DROP'],
      ['FORWARD: -s pods -d pods accept', '-A FORWARD -j REJECT', '-A FORWARD -i eth0 ! -s 192.0.2.1 -j DROP']
    ],
    [
      'the same with a rule about pods: nothing',
      'DROP',
      ['-A FORWARD -g ALL', '-A ALL -j DROP', '-A ALL -i cni0 -o eth1 -j REJECT'],
      ['-A FORWARD -g ALL', '-A ALL -j DROP', '-A ALL -i cni0 -o eth1 -j REJECT']
    ],
    [
      'what is invalid, dropped behind a drop of all: the accepts are before that',
      'ACCEPT',
      ['-A FORWARD -j REJECT', '-A FORWARD -m conntrack --ctstate INVALID -j DROP'],
      [...wide, '-A FORWARD -j REJECT', '-A FORWARD -m conntrack --ctstate INVALID -j DROP']
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

  test('a rule that cuts pods off is reported; one that keeps them out of something is not', () => {
    const reported = (rules: readonly string[], policy: 'ACCEPT' | 'DROP' = 'DROP') =>
      unansweredReasons(foreignDrops(saved(policy, rules), { 4: pods }, side)).length
    assert.equal(reported([]), 0)
    assert.equal(reported(['-A FORWARD -i cni0 -o eth1 -j REJECT']), 0)
    assert.equal(reported(['-A FORWARD -s 10.244.0.0/16 -j DROP']), 1)
    assert.equal(reported(['-A FORWARD -i cni0 -j DROP'], 'ACCEPT'), 1)
    // Pods return from the first, the second keeps them out of one network.
    assert.equal(reported(['-A FORWARD -j ALL', '-A FORWARD -i cni0 -o eth1 -j REJECT', '-A ALL -j DROP']), 0)
    // A call for new connections is judged as one rule, which keeps strangers out and drops everything.
    const callOfNew = ['-A FORWARD -m conntrack --ctstate NEW -j NEW', '-A NEW -i eth0 ! -s 192.0.2.1 -j DROP']
    assert.equal(reported([...callOfNew, '-A NEW -j DROP']), 1)
    assert.equal(reported([...callOfNew, '-A NEW -s 10.0.0.0/8 -j ACCEPT', '-A NEW -j DROP']), 0)
    assert.equal(reported(['-A FORWARD -j REJECT', '-A FORWARD -i cni0 -o eth1 -j REJECT']), 1)
    // Before the policy engine no accept may be, and other nodes' packets enter by weft.1.
    const policies = '-A FORWARD -j KUBE-ROUTER-FORWARD'
    assert.equal(reported(['-A FORWARD -i eth0 ! -s 192.0.2.1 -j DROP', policies]), 0)
    assert.equal(reported(['-A FORWARD ! -i lo ! -s 192.0.2.1 -j DROP', policies]), 1)
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
  const [user, drop] = ['-A FORWARD -j DOCKER-USER', '-A DOCKER-USER -j DROP']
  const returned = (verdict: string) => `-A DOCKER-USER -s 10.244.0.0/16 ${weft} -j ${verdict}`
  assert.deepEqual(judge(user, reject, returned('RETURN'), drop), [['accept', true]])
  assert.deepEqual(judge(user, reject, drop, returned('RETURN')), [['accept', false]])
  assert.deepEqual(judge(user, reject, returned('ACCEPT'), drop), [['accept', false]])
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
