// What the page says of answers: states of paths, counts, the sentence on top, nodes, changes, and large networks.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { PeersAnswer, ReportAnswer } from '../../../daemon/api/path-answers.ts'
import { type Asked, factsOf as shortFacts } from '../../../daemon/ctl/page/facts.ts'
import { PATH_STATES } from '../../../daemon/ctl/page/marks.ts'
import { matrixView } from '../../../daemon/ctl/page/matrix.ts'
import { nodesView } from '../../../daemon/ctl/page/node-rows.ts'
import { hopsOf, pathView } from '../../../daemon/ctl/page/path-view.ts'
import { viewOf } from '../../../daemon/ctl/page/view.ts'
import { AT, type Bad, change, factsOf, keyOf, nameOf, numbers, peersOf, probe, statusOf } from './page-scene.ts'

/** Every node is asked; `bad` by the number of the node that sends. */
const cluster = (nodes: number, bad: Readonly<Record<number, Bad>> = {}): readonly Asked[] =>
  numbers(nodes).map((n) => ({ name: nameOf(n), facts: factsOf(n, nodes, bad[n]) }))

const statesOf = (asked: readonly Asked[], most?: number) => matrixView(asked, most).rows.map(({ states }) => states)
const countsOf = (asked: readonly Asked[]) =>
  Object.fromEntries(Object.values(matrixView(asked).legend).map(({ word, count }) => [word, count]))

test('each state has a letter and a sign of its own, and a word', () => {
  const states = Object.values(PATH_STATES)
  for (const each of [
    states.map(({ letter }) => letter),
    states.map(({ sign }) => sign),
    states.map(({ word }) => word)
  ])
    assert.equal(new Set(each).size, states.length)
})

test('the matrix has a row for the node that sends and a column for the one that answers', () => {
  const asked = cluster(4, {
    1: { 3: 'out-lost' },
    3: { 1: 'back-lost', 4: 'large-lost' },
    2: { 4: 'host-firewall' },
    4: { 1: 'lost', 2: 'not-asked' }
  })
  assert.deepEqual(statesOf(asked), ['swow', 'wswf', 'bwsl', 'xnws'])
  const { rows, columns, legend, broken, note, more } = matrixView(asked)
  assert.deepEqual(
    columns.map(({ name }) => name),
    ['node-1', 'node-2', 'node-3', 'node-4']
  )
  assert.deepEqual(rows[0]?.roundTrips, [null, 300 + 33 * 25, 300 + 6 * 25, 300 + 19 * 25])
  assert.deepEqual(
    Object.entries(legend).map(([letter, { count }]) => [letter, count]),
    [
      ['x', 1],
      ['o', 1],
      ['b', 1],
      ['l', 1],
      ['f', 1],
      ['n', 1],
      ['w', 6],
      ['s', 0]
    ]
  )
  assert.deepEqual(
    broken.map(({ fromName, toName, mark }) => `${fromName} ${toName} ${mark.sign}`),
    ['node-4 node-1 ×', 'node-1 node-3 →', 'node-3 node-1 ←', 'node-3 node-4 L']
  )
  assert.deepEqual([note, more], ['', 0])
  assert.match(broken[3]?.cure ?? '', /^set the MTU of eth0/)
})

test('of both families the worse is shown, and of the ways that of pods; others are no fault by themselves', () => {
  const two = (...ways: PeersAnswer['peers'][number]['ways']): Asked => {
    const facts = factsOf(1, 2)
    const [peer] = peersOf(1, 2).peers
    assert.ok(peer)
    return { name: '', facts: { ...facts, peers: { node: nameOf(1), key: keyOf(1), peers: [{ ...peer, ways }] } } }
  }
  const six = { family: 'ipv6' } as const
  assert.equal(statesOf([two(probe('whole'), probe('lost', six))])[0], 'sx')
  // A plain route that is not in use, and nodes that drop each other's pings.
  const side = [probe('lost', { way: 'plain' }), probe('lost', { way: 'nodes' })]
  const fine = matrixView([two(probe('whole'), ...side)])
  assert.deepEqual([fine.rows[0]?.states, fine.broken], ['sw', []])
  const lost = matrixView([two(probe('lost'), ...side)])
  assert.deepEqual(
    lost.broken.map(({ way }) => way),
    ['between pods, IPv4', 'between node addresses, IPv4']
  )
  assert.equal(statesOf([two()])[0], 'sn')
  // A verdict of a later release.
  assert.equal(statesOf([two(probe('new-one' as 'lost'))])[0], 'su')
})

test('what other nodes published fills their rows: whole is the rest only if every node was asked', () => {
  const report = (n: number, asked: number, bad: ReportAnswer['bad'] = []): ReportAnswer => ({
    ...{ key: keyOf(n), node: nameOf(n), at: AT, asked, bad }
  })
  const lost = { key: keyOf(1), way: 'pods', family: 'ipv4', verdict: 'lost', since: AT } as const
  const asked = [
    { name: '', facts: { ...factsOf(1, 4), peers: peersOf(1, 4, {}, [report(2, 3, [lost]), report(3, 2)]) } }
  ]
  assert.deepEqual(statesOf(asked), ['swww', 'xsww', 'uusu', 'uuus'])
  const { broken, note } = matrixView(asked)
  assert.deepEqual([broken.length, broken[0]?.text], [1, 'node-2 published this in the store'])
  assert.equal(note, 'Paths from 1 of 4 nodes are not known here.')
  // Leases in etcd have no names, reports have.
  const nameless = factsOf(1, 3)
  const leases = (nameless.nodes?.leases ?? []).map((each) => ({ ...each, node: '' }))
  const peers = { ...peersOf(1, 3, {}, [report(2, 2), report(9, 2)]) }
  const unnamed = { ...peers, peers: peers.peers.map((each) => ({ ...each, node: '' })) }
  const { rows } = matrixView([{ name: '', facts: { ...nameless, nodes: { leases }, peers: unnamed } }])
  assert.deepEqual(
    rows.map(({ name }) => name),
    ['192.0.2.3', 'node-1', 'node-2']
  )
  assert.deepEqual(countsOf(asked), {
    'lost, direction unknown': 1,
    'not known here': 6,
    whole: 5,
    'the node itself': 0
  })
})

test('a weftd that does not know the question is named instead of an empty matrix', () => {
  const { peers: _, ...facts } = factsOf(1, 3)
  const unanswered = { peers: 'this weftd does not know the question peers; a later one does' }
  const view = viewOf([{ name: '', facts: { ...facts, unanswered } }], AT, false)
  assert.deepEqual([view.matrix.rows, view.matrix.columns, view.matrix.legend], [[], [], {}])
  assert.match(view.matrix.note, /^Whether packets arrive is not known: this weftd does not know the question peers/)
  assert.deepEqual(
    [view.summary.sign, view.summary.word],
    ['?', 'No fault is reported; whether packets arrive is not known']
  )
})

test('up to 200 nodes have every cell; of more only rows and columns with something wrong, and the rest as numbers', () => {
  const bad = Object.fromEntries(numbers(205).map((n) => [n, n <= 3 ? ({ 77: 'lost', 5: 'not-asked' } as const) : {}]))
  const all = statesOf(cluster(200, bad))
  assert.deepEqual([all.length, new Set(all.map((row) => row.length))], [200, new Set([200])])
  const large = cluster(205, bad)
  const { rows, columns, note, legend } = matrixView(large)
  assert.deepEqual(
    [rows.map(({ name }) => name), columns.map(({ name }) => name)],
    [['node-1', 'node-2', 'node-3'], ['node-77']]
  )
  assert.equal(note, 'Of 205 nodes, only those with a broken path are shown: 3 rows, 1 column.')
  assert.deepEqual([legend.x?.count, legend.n?.count, legend.w?.count], [3, 3, 205 * 204 - 6])
  assert.equal(matrixView(cluster(205)).note, 'No broken path is known among 205 nodes.')
  // Of very many the worst are shown.
  const worse = cluster(8, { 1: { 2: 'lost', 3: 'lost' }, 2: { 3: 'lost' }, 3: { 4: 'lost', 5: 'lost', 3: 'lost' } })
  const few = matrixView(worse, 2)
  assert.deepEqual([few.rows.map(({ name }) => name), few.columns.length], [['node-1', 'node-3'], 2])
  assert.match(few.note, /2 of 3 rows, 2 of 4 columns\.$/)
})

test('5,000 nodes of which one node knows all are counted within the time of a glance', () => {
  const reports = numbers(5_000)
    .slice(1)
    .map((n) => ({ ...{ key: keyOf(n), node: nameOf(n), at: AT, asked: 4_999 }, bad: [] }))
  const asked = [{ name: '', facts: { ...factsOf(1, 5_000), peers: peersOf(1, 5_000, { 9: 'lost' }, reports) } }]
  const view = viewOf(asked, AT, false)
  assert.equal(view.summary.word, '1 of 24,995,000 paths between nodes is broken')
  assert.ok(JSON.stringify(view).length < 200_000)
})

test('of a report that is full, what it does not have is not known', () => {
  const row = (cut: boolean) => {
    const bad = [{ ...({ key: keyOf(3), way: 'pods', family: 'ipv4', verdict: 'lost', since: AT } as const) }]
    const report = { key: keyOf(2), node: nameOf(2), at: AT, asked: 3, bad, ...(cut && { cut }) }
    const facts = { ...factsOf(1, 4), peers: peersOf(1, 4, {}, [report]) }
    return matrixView([{ name: '', facts }]).rows[1]?.states
  }
  const letters = (...states: readonly (keyof typeof PATH_STATES)[]) =>
    states.map((state) => PATH_STATES[state].letter).join('')
  assert.equal(row(false), letters('whole', 'self', 'lost', 'whole'))
  assert.equal(row(true), letters('unknown', 'self', 'lost', 'unknown'))
})

test('the sentence on top says what is broken, that all is whole, or what is not known', () => {
  const wordOf = (asked: readonly Asked[]) => viewOf(asked, AT, true).summary
  assert.deepEqual(wordOf(cluster(3)), { sign: '✓', word: 'All 6 paths between 3 nodes are whole', tone: 'good' })
  assert.equal(wordOf(cluster(3, { 1: { 2: 'lost' } })).word, '1 of 6 paths between nodes is broken')
  const silent = [...cluster(3).slice(0, 2), { name: nameOf(3), failure: 'no route to host' }]
  assert.equal(wordOf(silent).word, '1 node has an error or does not answer')
  assert.equal(viewOf(silent, AT, true).notes[0], '1 node of 3 gave no answer.')
  const silentFirewall = cluster(2, { 1: { 2: 'host-firewall' } })
  assert.deepEqual(wordOf(silentFirewall).tone, 'good')
  assert.equal(wordOf(silentFirewall).word, "Packets arrive on all 2 paths; on 1 the node's firewall drops echo")
  const young = cluster(3, { 1: { 2: 'not-asked' } })
  assert.deepEqual(wordOf(young).tone, 'unknown')
  assert.equal(wordOf(young).word, 'No fault is known: 5 of 6 paths between nodes are whole, the others were not asked')
  assert.equal(wordOf(cluster(1)).word, 'This node is alone in its network')
  const [only] = cluster(1)
  const early = viewOf(
    [{ name: '', facts: { ...only?.facts, nodes: { leases: [], listed: false }, unanswered: {} } }],
    AT,
    false
  )
  assert.equal(early.summary.tone, 'unknown')
  assert.match(early.notes.join(), /has not listed its leases yet/)
  const alone = viewOf([{ name: '', facts: factsOf(1, 3) }], AT, false)
  assert.match(alone.notes.join(), /This is what one node sees/)
  assert.equal(alone.title, `? ${alone.summary.word} – Weft`)
})

const CONDITION = { code: 'STORE_DENIED', severity: 'error', blocks: ['add'], since: AT, sentence: 'a: b. Cure: c' }

test('a row per node, the worst first, with MTU, pods, free addresses, and conditions with their cure', () => {
  const facts = (n: number, over = {}) => ({ name: nameOf(n), facts: factsOf(n, 4, {}, { status: statusOf(n, over) }) })
  const { rows } = nodesView([
    facts(1),
    facts(2, { conditions: [CONDITION] }),
    facts(3, { ready: false }),
    { name: nameOf(4), failure: 'late' }
  ])
  assert.deepEqual(
    rows.map(({ name, state }) => [name, state.word]),
    [
      ['node-2', 'ready, with an error'],
      ['node-3', 'not ready'],
      ['node-4', 'no answer'],
      ['node-1', 'ready']
    ]
  )
  const [{ conditions, mtu, pods, addresses, subnet, backend } = assert.fail()] = rows
  assert.deepEqual(
    [mtu, pods, addresses, subnet, backend],
    ['pods 1450, eth0 1500', '2, 251 addresses free', '192.0.2.2', '10.244.2.0/24', 'vxlan']
  )
  assert.deepEqual(
    conditions.map(({ code, text, cure, mark }) => [code, text, cure, mark.word]),
    [['STORE_DENIED', 'a: b', 'c', 'error']]
  )
  // Of a node without an answer, what its lease says.
  assert.deepEqual([rows[2]?.subnet, rows[2]?.conditions[0]?.text], ['10.244.4.0/24', 'late'])
})

test('nodes that were not asked, that no weft pod runs on, and that are not programmed are told apart', () => {
  const one = factsOf(1, 3)
  const leases = (one.nodes?.leases ?? []).map((lease) =>
    lease.key === keyOf(2) ? { ...lease, inKernel: false } : lease
  )
  const asked = [{ name: '', facts: { ...one, nodes: { leases } } }]
  const local = nodesView(asked).rows
  assert.deepEqual(
    local.map(({ state }) => state.word),
    ['ready, with a warning', 'not asked, NOT programmed', 'not asked, programmed']
  )
  assert.equal(local[0]?.conditions[0]?.text, 'node-2 is incomplete in the kernel')
  const inCluster = nodesView([...asked, { name: nameOf(2), facts: factsOf(2, 3) }]).rows
  assert.equal(
    inCluster.find(({ name }) => name === 'node-3')?.conditions[0]?.text,
    'it has a lease, but no weft pod there has answered'
  )
})

test('changes of all nodes, the latest first, and who made the most', () => {
  const withChanges = (n: number, changes: readonly ReturnType<typeof change>[]) => ({
    name: '',
    facts: factsOf(n, 2, {}, { changes: { changes } })
  })
  const { culprit: _, ...anonymous } = change({ at: '2026-01-31T12:00:02Z', unnamed: 'the kernel does not say' })
  const { changes } = viewOf(
    [
      withChanges(1, [anonymous, change()]),
      withChanges(2, [change({ at: '2026-01-31T12:00:01Z', culprit: 'NetworkManager (9)' })])
    ],
    AT,
    true
  )
  assert.deepEqual(
    changes.rows.map(({ node, culprit, took }) => [node, culprit, took]),
    [
      ['node-1', 'unknown: the kernel does not say', '3.1 ms'],
      ['node-2', 'NetworkManager (9)', '3.1 ms'],
      ['node-1', 'NetworkManager (611)', '3.1 ms']
    ]
  )
  assert.deepEqual(changes.culprits, [
    { name: 'NetworkManager', count: 2 },
    { name: 'unknown', count: 1 }
  ])
  const many = viewOf(
    [
      withChanges(
        1,
        Array.from({ length: 150 }, () => change())
      )
    ],
    AT,
    true
  ).changes
  assert.deepEqual([many.rows.length, many.note], [100, 'The last 100 of 150 are shown.'])
})

test('the path is told by its hops, and the first that is wrong is on top', () => {
  const way = {
    hops: [
      { at: 'route', state: 'whole', text: 'via weft.1' },
      { at: 'probe', state: 'wrong', text: 'UDP 8472 is lost', cure: 'open it' },
      { at: 'firewall', state: 'unknown', text: 'not asked' },
      7
    ]
  }
  const hops = hopsOf({ way })
  const view = pathView([{ heading: 'a to b', hops: hops ?? [], isWrong: true }])
  assert.equal(view.summary.word, 'First fault (probe): UDP 8472 is lost')
  assert.deepEqual(
    view.parts[0]?.hops.map(({ name, mark, cure }) => [name, mark.tone, cure]),
    [
      ['route', 'good', ''],
      ['probe', 'bad', 'open it'],
      ['firewall', 'unknown', ''],
      ['', 'unknown', '']
    ]
  )
  assert.equal(hopsOf({ pod: 'a', calls: [] }), undefined)
  assert.deepEqual(pathView([{ heading: 'a', text: 'a: is set up\n  x\n', isWrong: false }]).parts[0]?.lines, [
    'a: is set up',
    '  x'
  ])
})

test('what a node sends is short: no sentence for a whole path, 200 changes, 500 pods', () => {
  const { status, peers } = factsOf(1, 3, { 2: 'lost' })
  assert.ok(status && peers)
  const pod = {
    ...{ pod: 'a/b', container: 'c', interface: 'eth0', network: 'n', link: 'l', addresses: ['10.1.2.3'] },
    ...{ hostPorts: [], bandwidth: {}, netns: 'alive' as const }
  }
  const facts = shortFacts(
    {
      status,
      peers: {
        ...peers,
        peers: peers.peers.map((each) => ({ ...each, ways: each.ways.map((way) => ({ ...way, text: 'long' })) }))
      },
      changes: { changes: Array(1_000).fill(change()) },
      pods: { pods: Array(900).fill(pod) }
    },
    {}
  )
  assert.deepEqual(
    facts.peers?.peers.map(({ ways }) => ways[0]?.text),
    ['long', '']
  )
  assert.deepEqual([facts.changes?.changes.length, facts.pods?.pods.length], [200, 500])
  assert.deepEqual(Object.keys(facts.pods?.pods[0] ?? {}), ['pod', 'addresses'])
})
