// Rulesets of other programs, as nft's JSON and iptables-save print them, and the accepts for each.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { dropReasons, foreignAccepts, foreignDrops } from '../../../daemon/firewall/foreign-accepts.ts'
import { savedTables } from '../../../daemon/kernel/nftables/iptables-save.ts'
import { foreignTable, textsOf } from '../../../daemon/kernel/nftables/parse-foreign-tables.ts'
import { acceptsIn } from '../../../daemon/kernel/nftables/read-tables.ts'
import type { ForeignTable } from '../../../daemon/state/foreign-chain.ts'
import { keyOf, type NftFamily } from '../../../daemon/state/object.ts'
import { type PerFamily, type Prefix, parsePrefix } from '../../../ipam/address.ts'

const prefix = (text: string): Prefix => parsePrefix(text) ?? assert.fail(text)
const cluster: PerFamily<Prefix> = { 4: prefix('10.244.0.0/16'), 6: prefix('fd00:10::/48') }

type Json = Record<string, unknown>
const match = (left: Json, right: unknown, op = '=='): Json => ({ match: { op, left, right } })
const payload = (protocol: string, field: string): Json => ({ payload: { protocol, field } })
const saddr = payload('ip', 'saddr')
const state = { ct: { key: 'state' } }
const [drop, accept, ret, counter] = [
  { drop: null },
  { accept: null },
  { return: null },
  { counter: { packets: 0, bytes: 0 } }
]
const jump = (target: string): Json => ({ jump: { target } })
const extension = (name: string, type = 'match'): Json => ({ xt: { type, name } })
const p = (addr: string, len: number): Json => ({ prefix: { addr, len } })

type Rules = readonly (readonly Json[])[]

/**
 * A table whose first chain hangs at hook forward; rules get the handles 10, 11, … in the order in which they are
 * given.
 */
function table(
  place: `${NftFamily} ${string}`,
  policy: 'accept' | 'drop',
  chains: Readonly<Record<string, Rules>>,
  more: {
    readonly texts?: Readonly<Record<number, string>>
    readonly comments?: Readonly<Record<number, string>>
    readonly hook?: string
  } = {}
): ForeignTable {
  const [family = '', name = ''] = place.split(' ')
  let handle = 10
  const entries = Object.entries(chains).flatMap(([chain, rules], at) => [
    {
      chain: {
        family,
        table: name,
        name: chain,
        ...(at === 0 ? { type: 'filter', hook: more.hook ?? 'forward', prio: 0, policy } : {})
      }
    },
    ...rules.map((expr) => {
      const number = handle++
      const comment = more.comments?.[number]
      return {
        rule: { family, table: name, chain, handle: number, expr, ...(comment === undefined ? {} : { comment }) }
      }
    })
  ])
  const texts = new Map(Object.entries(more.texts ?? {}).map(([number, text]) => [Number(number), text]))
  return foreignTable(family as NftFamily, name, entries, texts)
}

const answers = (...tables: readonly ForeignTable[]): readonly string[] =>
  foreignAccepts(foreignDrops(tables, cluster)).map((object) => keyOf(object).replace('accept ', ''))

const pair = (place: string, prefix: string): readonly string[] => [`${place} pair ${prefix}`]
const both = (place: string, ...prefixes: readonly string[]): readonly string[] =>
  prefixes.flatMap((text) => [`${place} source ${text}`, `${place} destination ${text}`])

describe('answered is', () => {
  for (const [what, tables, expected] of [
    [
      'a policy',
      [table('ip filter', 'drop', { FORWARD: [] })],
      both('iptables-nft ip filter FORWARD', '10.244.0.0/16')
    ],
    [
      'a policy for both families',
      [table('inet guard', 'drop', { forward: [] })],
      both('nft inet guard forward', '10.244.0.0/16', 'fd00:10::/48')
    ],
    [
      'a reject at the end, as firewalld has it',
      [
        table('inet firewalld', 'accept', {
          filter_FORWARD: [
            [match(state, { set: ['established', 'related'] }, 'in'), accept],
            [match(state, 'invalid', 'in'), drop],
            [jump('zones')],
            [{ reject: { type: 'icmpx', expr: 'admin-prohibited' } }]
          ],
          zones: []
        })
      ],
      both('nft inet firewalld filter_FORWARD', '10.244.0.0/16', 'fd00:10::/48')
    ],
    [
      'a drop behind two jumps',
      [
        table('ip6 guard', 'accept', {
          forward: [[jump('one')]],
          one: [[jump('two')]],
          two: [[match({ meta: { key: 'iifname' } }, 'eth0'), drop]]
        })
      ],
      pair('nft ip6 guard forward', 'fd00:10::/48')
    ],
    [
      'a REJECT of iptables',
      [table('ip filter', 'accept', { FORWARD: [[counter, extension('REJECT', 'target')]] })],
      both('iptables-nft ip filter FORWARD', '10.244.0.0/16')
    ],
    [
      'a drop of a network around ours',
      [table('ip guard', 'accept', { f: [[match(saddr, p('10.0.0.0', 8)), drop]] })],
      pair('nft ip guard f', '10.244.0.0/16')
    ],
    [
      'a drop of all but another network',
      [table('ip guard', 'accept', { f: [[match(saddr, p('192.168.0.0', 16), '!='), drop]] })],
      pair('nft ip guard f', '10.244.0.0/16')
    ],
    [
      'a drop of new connections',
      [table('ip guard', 'accept', { f: [[match(state, 'new', 'in'), drop]] })],
      both('nft ip guard f', '10.244.0.0/16')
    ],
    [
      'a drop of a whole protocol',
      [table('ip guard', 'accept', { f: [[match({ meta: { key: 'l4proto' } }, 'udp'), drop]] })],
      pair('nft ip guard f', '10.244.0.0/16')
    ],
    [
      'a verdict map that drops more than the invalid',
      [
        table('ip guard', 'accept', {
          f: [
            [
              {
                vmap: {
                  key: state,
                  data: {
                    set: [
                      ['established', accept],
                      ['new', drop]
                    ]
                  }
                }
              }
            ]
          ]
        })
      ],
      both('nft ip guard f', '10.244.0.0/16')
    ],
    [
      'a named verdict map, of which nothing is known',
      [table('ip guard', 'accept', { f: [[{ vmap: { key: { meta: { key: 'iifname' } }, data: '@zones' } }]] })],
      pair('nft ip guard f', '10.244.0.0/16')
    ],
    [
      'a policy of iptables-legacy',
      savedTables('*filter\n:FORWARD DROP [0:0]\nCOMMIT\n', 6),
      both('iptables-legacy ip6 filter FORWARD', 'fd00:10::/48')
    ],
    [
      'a drop of iptables-legacy on interfaces',
      savedTables(
        '*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD ! -i br+ -o eth0 -p tcp -m comment --comment "a \\"b\\" -j ACCEPT" -j REJECT --reject-with icmp-port-unreachable\nCOMMIT\n',
        4
      ),
      pair('iptables-legacy ip filter FORWARD', '10.244.0.0/16')
    ]
  ] as const) {
    test(what, () => assert.deepEqual(answers(...tables), expected))
  }
})

describe('left alone is', () => {
  for (const [what, tables] of [
    ['a chain that accepts', [table('ip filter', 'accept', { FORWARD: [] })]],
    ['a drop at another hook', [table('ip filter', 'drop', { INPUT: [] }, { hook: 'input' })]],
    ['a policy behind an accept of everything', [table('ip filter', 'drop', { FORWARD: [[counter, accept], [drop]] })]],
    [
      'a drop of invalid packets',
      [
        table('inet guard', 'accept', {
          f: [
            [match(state, 'invalid', 'in'), drop],
            [match(state, ['invalid', 'untracked'], 'in'), drop]
          ]
        })
      ]
    ],
    [
      'the same in a verdict map',
      [
        table('inet guard', 'accept', {
          f: [
            [
              {
                vmap: {
                  key: state,
                  data: {
                    set: [
                      ['invalid', drop],
                      ['established', accept]
                    ]
                  }
                }
              }
            ]
          ]
        })
      ]
    ],
    [
      'the same by iptables-nft, which only the text tells',
      [
        table(
          'ip filter',
          'accept',
          { FORWARD: [[extension('conntrack'), counter, drop]] },
          { texts: { 10: 'ct state invalid drop' } }
        )
      ]
    ],
    [
      'a blocked port',
      [table('ip guard', 'accept', { f: [[match(payload('tcp', 'dport'), { set: [25, 465] }), drop]] })]
    ],
    [
      'a blocked address',
      [
        table('ip guard', 'accept', {
          f: [
            [match(saddr, '192.0.2.7'), drop],
            [match(saddr, { range: ['192.0.2.1', '192.0.2.9'] }), drop]
          ]
        })
      ]
    ],
    [
      'a list of addresses that somebody keeps',
      [table('inet crowdsec', 'accept', { f: [[match(saddr, '@bans'), drop]] })]
    ],
    ['a limit', [table('ip guard', 'accept', { f: [[{ limit: { rate: 5, per: 'second', inv: true } }, drop]] })]],
    [
      'a set that is filled at a rate, a group of devices, a MAC, a SYN proxy',
      [
        table('ip guard', 'accept', {
          f: [
            [{ set: { op: 'add', elem: saddr, set: '@fast', stmt: [{ limit: { rate: 5, per: 'second' } }] } }, drop],
            [match({ meta: { key: 'iifgroup' } }, 7), drop],
            [match(payload('ether', 'saddr'), '0a:58:0a:f4:01:02'), drop],
            [match({ meta: { key: 'iifname' } }, '@inside'), drop],
            [{ synproxy: null }]
          ]
        })
      ]
    ],
    [
      'a drop of the other family',
      [
        table('inet guard', 'accept', {
          f: [[match({ meta: { key: 'nfproto' } }, 'ipv4'), match(saddr, p('172.16.0.0', 12)), drop]]
        })
      ]
    ],
    [
      "kube-proxy's and policy engines' chains",
      [
        table('ip filter', 'accept', {
          FORWARD: [[jump('KUBE-FORWARD')], [jump('cali-FORWARD')]],
          'KUBE-FORWARD': [[drop]],
          'cali-FORWARD': [[drop]]
        })
      ]
    ],
    ["kube-proxy's table", [table('ip kube-proxy', 'accept', { 'filter-forward': [[drop]] })]],
    ['our own table', [table('inet weft', 'drop', { forward: [] })]],
    [
      'a legacy drop of invalid packets and of a port',
      savedTables(
        '*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -m conntrack --ctstate INVALID -j DROP\n-A FORWARD -p tcp -m tcp --dport 25 -j DROP\n-A FORWARD -j LOG --log-prefix "x -j DROP"\nCOMMIT\n',
        4
      )
    ]
  ] as const) {
    test(what, () => assert.deepEqual(answers(...tables), []))
  }
})

const docker = (policy: 'drop' | 'accept', forward: Rules, user: Rules = [[counter, ret]]): ForeignTable =>
  table('ip filter', policy, {
    FORWARD: forward,
    'DOCKER-USER': user,
    'DOCKER-ISOLATION-STAGE-1': [[match({ meta: { key: 'iifname' } }, 'docker0'), drop]]
  })

test('where Docker calls DOCKER-USER first the accept goes there, and the reason names Docker', () => {
  const drops = foreignDrops(
    [
      docker('drop', [
        [counter, jump('DOCKER-USER')],
        [counter, jump('DOCKER-ISOLATION-STAGE-1')]
      ])
    ],
    cluster
  )
  assert.deepEqual(foreignAccepts(drops).map(keyOf), both('accept iptables-nft ip filter DOCKER-USER', '10.244.0.0/16'))
  assert.match(
    dropReasons(drops).join(),
    /^Docker: chain ip filter FORWARD \(iptables-nft\) drops forwarded packets by its policy/
  )
})

test('that Docker keeps its own bridges apart drops no pod', () =>
  assert.deepEqual(
    answers(
      docker('accept', [
        [counter, jump('DOCKER-USER')],
        [counter, jump('DOCKER-ISOLATION-STAGE-1')]
      ])
    ),
    []
  ))

test('it stays in FORWARD when something drops before DOCKER-USER is called, or a policy engine comes after it', () => {
  const expected = both('iptables-nft ip filter FORWARD', '10.244.0.0/16')
  assert.deepEqual(answers(docker('drop', [[drop], [jump('DOCKER-USER')]])), expected)
  assert.deepEqual(answers(docker('drop', [[jump('DOCKER-USER')], [jump('KUBE-ROUTER-FORWARD')]])), expected)
})

describe('an accept of ours in the chain', () => {
  const ours = [match(saddr, p('10.244.0.0', 16)), counter, accept]
  const filter = (rules: Rules, at: number): ForeignTable =>
    table('ip filter', 'drop', { FORWARD: rules }, { comments: { [10 + at]: 'weft' } })
  for (const [what, tables, effective] of [
    ['counts before what drops', [filter([ours, [drop]], 0)], [true]],
    ['does not count after what drops', [filter([[drop], ours], 1)], [false]],
    [
      'counts between a blocked port and the policy',
      [filter([[match(payload('tcp', 'dport'), 25), drop], ours], 1)],
      [true]
    ],
    ['does not count before a policy engine', [filter([ours, [jump('KUBE-ROUTER-FORWARD')]], 0)], [false]],
    ['is not ours without our comment', [table('ip filter', 'drop', { FORWARD: [ours] })], []],
    ['is not ours when it says more', [filter([[match(payload('tcp', 'dport'), 25), ...ours]], 0)], []],
    [
      'is known in iptables-legacy, too',
      savedTables(
        '*filter\n:FORWARD DROP [0:0]\n-A FORWARD -s 10.244.0.0/16 -m comment --comment weft -j ACCEPT\n-A FORWARD -s 10.244.0.0/16 -p tcp -m comment --comment weft -j ACCEPT\nCOMMIT\n',
        4
      ),
      [true]
    ]
  ] as const) {
    test(what, () =>
      assert.deepEqual(
        acceptsIn(tables).map((one) => one.effective),
        effective
      )
    )
  }
})

test('the texts of rules are found by handle, without counters', () => {
  const listing = `table ip filter { # handle 3
	chain FORWARD { # handle 1
		type filter hook forward priority filter; policy drop;
		ct state invalid counter packets 0 bytes 0 drop # handle 6
		ip saddr 10.1.0.0/16  counter accept comment "x" # handle 8
	}
}`
  assert.deepEqual(
    [...textsOf(listing)],
    [
      [6, 'ct state invalid drop'],
      [8, 'ip saddr 10.1.0.0/16 accept comment "x"']
    ]
  )
})
