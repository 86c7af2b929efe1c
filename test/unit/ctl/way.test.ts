// why … to …, why address and check: which ends are followed, what is printed of the hops, and the matrix.
import assert from 'node:assert/strict'
import test from 'node:test'
import { peerSaid } from '../../../daemon/api/way-answers.ts'
import { peers } from '../../../daemon/ctl/peers.ts'
import type { FollowedWay, Way } from '../../../daemon/underlay/follow-way.ts'
import { addressOf } from '../../../daemon/underlay/judge-way.ts'
import type { Hop } from '../../../daemon/underlay/way-facts.ts'
import { formatIp } from '../../../ipam/address.ts'
import { ip, lease, prefix, SmallDaemon } from './small-daemon.ts'

const fine: Hop = { at: 'route', state: 'whole', text: 'the kernel takes the route' }
const wrong: Hop = {
  at: 'firewall',
  state: 'wrong',
  text: 'the rule "drop" dropped it\u001b[2J',
  cure: 'remove the rule'
}

/** Ways to these addresses are broken; `followed` gets what was asked for. */
function follow(daemon: SmallDaemon, broken: readonly string[] = [], followed: Way[] = []): readonly Way[] {
  daemon.ways = async (ways) =>
    ways.map((way): FollowedWay => {
      followed.push(way)
      const isBroken = broken.includes(formatIp(addressOf(way.to)))
      return {
        ...way,
        hops: isBroken ? [fine, wrong, { ...wrong, at: 'answer' }] : [fine],
        ...(!isBroken && { answeredUs: 420 })
      }
    })
  return followed
}

const pod = (n: number) => ({
  ...{ network: 'cbr0', containerId: `c0ffee000${n}`, ifname: 'eth0', link: `veth${n}`, because: '' },
  ...{ addresses: [ip(`10.244.1.${n}`), ip(`fd00::${n}`)], pod: { namespace: 'shop', name: `web-${n}` } }
})

async function start(t: test.TestContext): Promise<SmallDaemon> {
  const daemon = await SmallDaemon.start(t)
  await daemon.hold()
  await daemon.send({ kind: 'list', leases: [lease(1), lease(2, { node: 'two' }), lease(3, { node: 'three' })] })
  return daemon
}

const ends = (followed: readonly Way[]) =>
  followed.map(({ from, to }) => [
    from.kind === 'pod' ? formatIp(from.pod.address) : from.kind,
    to.kind,
    formatIp(addressOf(to))
  ])

test('the ends: a pod here, a node by the address that it always has, an address of a lease, of none, of this node', async (t) => {
  const daemon = await start(t)
  const followed = follow(daemon)
  daemon.attachments.set(pod(5))
  daemon.attachments.set(pod(6))
  daemon.kernel.change(
    { kind: 'address', device: 'eth0', prefix: prefix('192.0.2.1/24') },
    'address 192.0.2.1/24 dev eth0' as never
  )
  for (const words of [
    ['pod', 'web-5', 'to', 'pod', 'shop/web-6'],
    ['pod', 'web-5', 'to', 'address', '10.244.2.9'],
    ['pod', '10.244.1.6', 'to', 'node', 'two'],
    ['node', 'one', 'to', 'address', '10.244.9.9'],
    ['address', '10.244.1.5', 'to', 'address', '203.0.113.9'],
    ['address', '10.244.1.5'],
    ['address', '10.244.1.77'],
    ['address', '192.0.2.1'],
    ['address', 'fd00::6']
  ]) {
    const { exit, out, complaints } = await daemon.weftctl('why', ...words)
    assert.deepEqual([exit, complaints], [0, ''], out)
  }
  assert.deepEqual(ends(followed), [
    ['10.244.1.5', 'pod', '10.244.1.6'],
    ['10.244.1.5', 'remote', '10.244.2.9'],
    ['10.244.1.6', 'remote', '10.244.2.0'],
    ['10.244.1.5', 'elsewhere', '10.244.9.9'],
    ['10.244.1.5', 'elsewhere', '203.0.113.9'],
    ['host', 'pod', '10.244.1.5'],
    ['10.244.1.5', 'elsewhere', '10.244.1.77'],
    ['10.244.1.5', 'own', '192.0.2.1'],
    ['host', 'pod', 'fd00::6']
  ])
  const outside = followed.flatMap(({ to }) => (to.kind === 'elsewhere' ? [[to.network, to.isOurs]] : []))
  assert.deepEqual(outside, [
    ['10.244.0.0/16', undefined],
    [undefined, undefined],
    ['10.244.0.0/16', true]
  ])
})

test('without a pod the host sends, and a node whose lease is not used is named with the reason', async (t) => {
  const daemon = await start(t)
  const followed = follow(daemon)
  await daemon.send({ kind: 'put', lease: lease(4, { node: 'four', backendType: 'udp' }) })
  await daemon.weftctl('why', 'address', '10.244.4.4')
  const { from, to } = followed[0] ?? assert.fail()
  assert.equal(from.kind, 'host')
  assert.match(to.kind === 'remote' ? String(to.remote.skipped) : '', /its backend is udp/)
})

test('ends that are unknown here are refused with what to do', async (t) => {
  const daemon = await start(t)
  follow(daemon)
  daemon.attachments.set(pod(5))
  for (const [words, said] of [
    [['pod', 'web-9', 'to', 'node', 'two'], /no pod web-9\ncure: run weftctl on its node/],
    [['pod', 'web-5', 'to', 'pod', 'web-9'], /no pod web-9\ncure: of a pod on another node use its address/],
    [['node', 'two', 'to', 'node', 'three'], /two is not this node/],
    [['pod', 'web-5', 'to', 'node', 'nine'], /no lease matches nine/],
    [['pod', 'web-5', 'to', 'node', 'one'], /one is this node|no lease matches one/],
    [['address', '10.244.1'], /"10\.244\.1" is no IPv4 or IPv6 address/]
  ] as const) {
    const { exit, complaints } = await daemon.weftctl('why', ...words)
    assert.equal(exit, 3, complaints)
    assert.match(complaints, said)
  }
  for (const [words, said] of [
    [['pod', 'x', 'to'], /why needs pod\|node\|address\n/],
    [['pod', 'x', 'to', 'node'], /why needs NAME\n/],
    [['pod', 'x', 'too'], /why has no "too"; the nearest is to\n/]
  ] as const) {
    const { exit, complaints } = await daemon.weftctl('why', ...words)
    assert.deepEqual([exit, said.test(complaints)], [2, true], complaints)
  }
})

test('the hops are printed with the first that is wrong, its cure last; the answer of why node and pod stays before', async (t) => {
  const daemon = await start(t)
  follow(daemon, ['10.244.2.0'])
  const { exit, out } = await daemon.weftctl('why', 'node', 'two')
  assert.match(out, /^two, lease 10\.244\.2\.0-24: programmed\n/)
  assert.ok(
    out.endsWith(
      [
        '',
        'path from this host to node two (10.244.2.0):',
        '    route             the kernel takes the route',
        '  ! firewall          the rule "drop" dropped it\\u001b[2J',
        '  ! answer            the rule "drop" dropped it\\u001b[2J',
        'first fault (firewall): the rule "drop" dropped it\\u001b[2J',
        'cure: remove the rule',
        ''
      ].join('\n')
    ),
    out
  )
  assert.equal(exit, 1)
  const { way } = JSON.parse((await daemon.weftctl('why', 'node', 'two', '--json')).out)
  assert.deepEqual(
    [way.first.at, way.hops.length, way.to],
    ['firewall', 3, { kind: 'node', name: 'two', address: '10.244.2.0' }]
  )
  const well = await daemon.weftctl('why', 'node', 'three')
  assert.match(well.out, /\nwhole: an answer came after 0\.4 ms\n$/)
  assert.equal(well.exit, 0)
})

test('check prints a matrix with the hop that is wrong, the sample, and what other nodes published', async (t) => {
  const daemon = await start(t)
  follow(daemon, ['10.244.3.0'])
  const { exit, out } = await daemon.weftctl('check')
  assert.equal(
    out,
    [
      'tried from one to all 2 other nodes; "kubectl weft check" tries from every node',
      '',
      'FROM  two  three',
      'one   ok   firewall',
      '',
      'one to three: the rule "drop" dropped it\\u001b[2J',
      '  cure: remove the rule',
      ''
    ].join('\n')
  )
  assert.equal(exit, 1)
  const some = await daemon.weftctl('check', 'two')
  assert.match(some.out, /^tried from one to a sample of 1 of 2 other nodes/)
  assert.equal(some.exit, 0)
  const mistyped = await daemon.weftctl('check', 'two,twi')
  assert.match(mistyped.out, /^twi was not asked: no lease matches it$/m)
  assert.equal(mistyped.exit, 1)
  assert.equal((await daemon.weftctl('check', 'one,two')).exit, 0)
  const at = '2026-01-01T00:00:00Z'
  const bad = { key: '10.244.1.0-24', way: 'pods', family: 'ipv4', verdict: 'out-lost', since: at } as const
  daemon.reports = [{ key: '10.244.2.0-24', node: 'two', at, asked: 2, bad: [bad] }]
  const reported = await daemon.weftctl('check', 'two')
  assert.match(reported.out, /^two \(reported\) +probe +-$/m)
  assert.equal(reported.exit, 1)
  daemon.reports = [{ key: '10.244.2.0-24', node: 'two', at, asked: 0, bad: [] }]
  const silent = await daemon.weftctl('check', 'two')
  assert.match(silent.out, /^two \(reported\) +\? +-$/m)
  assert.equal(silent.exit, 0)
  daemon.reports = [
    { ...{ key: '10.244.2.0-24', node: 'two', at, asked: 2, bad: [{ ...bad, key: '10.244.9.0-24' }], cut: true } }
  ]
  assert.match((await daemon.weftctl('check', 'two')).out, /^two \(reported\) +\? +-$/m)
})

test('what another node published about the way here', () => {
  const at = '2026-01-01T00:00:00Z'
  const bad = { way: 'pods', family: 'ipv4', verdict: 'out-lost', since: at } as const
  const report = {
    key: 'b',
    node: 'two',
    at,
    asked: 2,
    bad: [
      { ...bad, key: 'a' },
      { ...bad, key: 'c' }
    ]
  }
  assert.deepEqual(peerSaid([report], 'b', 'a'), {
    at,
    bad: [{ verdict: 'out-lost', text: `out-lost (ipv4) since ${at}` }]
  })
  assert.deepEqual(peerSaid([report], 'b', 'd'), { at, bad: [] })
  assert.equal(peerSaid([{ ...report, cut: true }], 'b', 'd'), undefined, 'there was no room for it')
  assert.equal(peerSaid([{ ...report, cut: true }], 'b', 'a')?.bad.length, 1)
  assert.equal(peerSaid([report], 'x', 'a'), undefined)
  assert.equal(peerSaid(undefined, 'b', 'a'), undefined)
})

test('of many nodes a sample of all parts of the network is tried', async (t) => {
  const daemon = await SmallDaemon.start(t)
  const followed = follow(daemon)
  await daemon.hold()
  const many = Array.from({ length: 160 }, (_, at) => {
    const VtepMAC = `0e:00:00:00:01:${at.toString(16).padStart(2, '0')}`
    return lease(at + 1, { backendData: { 4: { VNI: 1, VtepMAC } } })
  })
  await daemon.send({ kind: 'list', leases: many })
  const { exit, out } = await daemon.weftctl('check')
  assert.match(out, /^tried from one to a sample of 16 of 159 other nodes/)
  assert.equal(followed.length, 16)
  const subnets = followed.map(({ to }) => Number(formatIp(addressOf(to)).split('.')[2]))
  assert.ok(Math.min(...subnets) < 10 && Math.max(...subnets) > 140, subnets.join())
  assert.equal(exit, 0)
})

test('of what other nodes report peers prints 200 lines, and how many more there are', () => {
  const bad = Array.from({ length: 150 }, (_, n) => ({
    ...({ key: `k${n}`, way: 'pods', family: 'ipv4', verdict: 'lost', since: '2026-01-01T00:00:00Z' } as const)
  }))
  const reports = ['two', 'three'].map((node) => ({ key: node, node, at: '', asked: 150, bad }))
  const found = [{ key: 'b', node: '', publicIp: [], subnet: [], ways: [] }]
  const { text } = peers.read({ node: 'one', key: 'a', peers: found, reports }, [])
  assert.equal(text.match(/ reports k/g)?.length, 200)
  assert.match(text, /\nand 100 more reports; --json has all\n$/)
})
