// The way of a packet, judged from facts: for each fault the hop that is named first, its evidence and its cure.
import assert from 'node:assert/strict'
import test from 'node:test'
import type { Dropped, EchoOutcome, Passed, RouteNow } from '../../../daemon/state/inspection.ts'
import type { Route } from '../../../daemon/state/object.ts'
import { firstFault, judgeWay } from '../../../daemon/underlay/judge-way.ts'
import type { LocalPod, Remote, WayFacts } from '../../../daemon/underlay/way-facts.ts'
import { parseIp, parsePrefix } from '../../../ipam/address.ts'

const ip = (text: string) => parseIp(text) ?? assert.fail(text)
const prefix = (text: string) => parsePrefix(text) ?? assert.fail(text)
const mac = '0e:00:00:00:00:02' as never

const pod: LocalPod = { name: 'shop/web', address: ip('10.244.1.5'), ifname: 'eth0', link: 'veth1' }
const remote: Remote = { key: '10.244.2.0-24', node: 'two', address: ip('10.244.2.7') }
const wanted: Route = {
  ...{ kind: 'route', table: 254, destination: prefix('10.244.2.0/24'), metric: 0, type: 'unicast', protocol: 87 },
  ...{ device: 'weft.1', gateway: ip('10.244.2.0'), onlink: true }
}
const found = (route: Partial<Route> = {}): RouteNow => {
  const entry = { ...wanted, ...route }
  return { kind: 'found', entry, ...(entry.device && { device: entry.device }) }
}
const direct = found({ destination: prefix('192.0.2.0/24'), device: 'eth0', protocol: 2 })
const up = { kind: 'link', up: true, carrier: true } as const
const neighbour = { kind: 'neighbour', device: 'weft.1', ip: ip('10.244.2.0'), mac } as const
const answered: EchoOutcome = { answeredUs: 420, passed: [], dropped: [] }
const lost: EchoOutcome = { passed: [], dropped: [] }

const whole: WayFacts = {
  from: { kind: 'pod', pod },
  to: { kind: 'remote', remote },
  mtu: 1450,
  inside: { link: up, addresses: [pod.address], route: found({ device: 'eth0' }) },
  podLinks: [
    { name: 'veth1', now: { ...up, name: 'veth1', mtu: 1450 } },
    { name: 'cni0', now: { ...up, name: 'cni0', mtu: 1450 } }
  ],
  toLinks: [],
  cameBy: 'cni0',
  forwarding: [{ path: 'net/ipv4/ip_forward', value: '1' }],
  route: found(),
  wantedRoute: wanted,
  isBridged: false,
  out: { name: 'weft.1', now: { ...up, name: 'weft.1', mtu: 1450 } },
  neighbour: { device: 'weft.1', ip: ip('10.244.2.0'), now: { state: 'permanent', mac }, wanted: neighbour },
  entry: { wanted: { kind: 'fdb', device: 'weft.1', mac, destination: ip('192.0.2.2') }, now: ip('192.0.2.2') },
  underlay: {
    ...{ publicIp: ip('192.0.2.2'), port: 8472, overhead: 50, route: direct },
    link: { name: 'eth0', now: { ...up, name: 'eth0', mtu: 1500 } },
    neighbour: { device: 'eth0', ip: ip('192.0.2.2'), now: { state: 'reachable', mac } }
  },
  back: found({ device: 'cni0', destination: prefix('10.244.1.0/24') }),
  echo: answered,
  legacy: [],
  conditions: []
}

const underlay = whole.underlay ?? assert.fail()
const refused = (errno: string): RouteNow => ({ kind: 'refused', errno })
const refusal = {
  ...{ source: pod.address, device: 'cni0', own: found(), reverse: found({ device: 'cni0' }) },
  filter: [
    { path: 'net/ipv4/conf/all/rp_filter', value: '0' },
    { path: 'net/ipv4/conf/cni0/rp_filter', value: '1' }
  ]
}
const passed = (...steps: readonly string[]): EchoOutcome => ({
  dropped: [],
  passed: steps.map((step) => {
    const [leg, hook, side, device] = step.split(' ')
    return { leg, hook, side, ...(device && { device }) } as Passed
  })
})
const forwarded = ['out prerouting before', 'out prerouting after', 'out forward before', 'out forward after']
const gone = [...forwarded, 'out postrouting before', 'out postrouting after weft.1']
const drop = (over: Partial<Dropped> = {}): EchoOutcome => ({
  passed: [],
  dropped: [{ leg: 'out', family: 'inet', table: 'admin', chain: 'pods', verdict: 'drop', ...over }]
})

test('of a whole way no hop is wrong, and each says what was found', () => {
  const hops = judgeWay(whole)
  assert.equal(firstFault(hops), undefined)
  assert.deepEqual(
    hops.map(({ at, state }) => (state === 'whole' ? at : `${at}?`)),
    [
      ...['ends', 'pod', 'pod-link', 'settings', 'route', 'out-link', 'neighbour', 'forwarding-entry', 'tunnel-link'],
      ...['tunnel-route', 'tunnel-neighbour', 'firewall', 'back-route', 'probe?', 'peer?', 'answer']
    ]
  )
  assert.equal(hops.at(-1)?.text, '10.244.2.7 answered one ICMP echo request in 0.4 ms')
})

const FAULTS: readonly (readonly [name: string, at: string, text: RegExp, facts: Partial<WayFacts>])[] = [
  [
    'a lease that is not used',
    'ends',
    /is not used: its backend is udp$/,
    { to: { kind: 'remote', remote: { ...remote, skipped: 'its backend is udp' } } }
  ],
  [
    'an address of no lease',
    'ends',
    /in the pod network 10\.244\.0\.0\/16, but in no node's lease$/,
    { to: { kind: 'elsewhere', address: ip('10.244.9.1'), network: '10.244.0.0/16', networks: '' } }
  ],
  [
    'an address of no pod',
    'ends',
    /in this node's own subnet, but no pod here has it$/,
    { to: { kind: 'elsewhere', address: ip('10.244.1.9'), network: '10.244.0.0/16', isOurs: true, networks: '' } }
  ],
  ['a pod without its interface', 'pod', /no interface eth0 any more$/, { inside: { addresses: [], route: found() } }],
  [
    'a pod whose interface is down',
    'pod',
    /^eth0 in shop\/web is down$/,
    { inside: { link: { up: false }, addresses: [pod.address], route: found() } }
  ],
  ['a pod without its address', 'pod', /lost its address/, { inside: { link: up, addresses: [], route: found() } }],
  [
    'a pod without a default route',
    'pod',
    /has no route to 10\.244\.2\.7 \(ENETUNREACH\)$/,
    { inside: { link: up, addresses: [pod.address], route: refused('ENETUNREACH') } }
  ],
  ['a link that is gone', 'pod-link', /^there is no link veth1$/, { podLinks: [{ name: 'veth1', now: undefined }] }],
  [
    'forwarding that is off',
    'settings',
    /^forwarding is off: net\.ipv4\.ip_forward=0$/,
    { forwarding: [{ path: 'net/ipv4/ip_forward', value: '0' }] }
  ],
  [
    'a blackhole rule',
    'route',
    /^the policy rule "77: .* blackhole" refuses packets to 10\.244\.2\.7$/,
    {
      route: refused('EINVAL'),
      refusal: {
        ...refusal,
        rule: { priority: 77, action: 'blackhole', text: '77: from all to 10.244.2.0/24 blackhole', marked: false }
      }
    }
  ],
  [
    'the reverse path filter, strict',
    'route',
    /drops packets from 10\.244\.1\.5 on cni0 \(net\.ipv4\.conf\.cni0\.rp_filter=1\): the route ".* dev other .*" leads to 10\.244\.1\.5 elsewhere$/,
    { route: refused('EINVAL'), refusal: { ...refusal, reverse: found({ device: 'other' }) } }
  ],
  [
    'no route',
    'route',
    /^this host has no route to 10\.244\.2\.7$/,
    { route: refused('EINVAL'), refusal: { ...refusal, own: refused('ENETUNREACH') } }
  ],
  [
    'a blackhole route',
    'route',
    /\(EINVAL\), as by a blackhole/,
    { route: refused('EINVAL'), refusal: { ...refusal, own: refused('EINVAL') } }
  ],
  [
    'a packet that the host would send, but not forward',
    'route',
    /that come by cni0 from 10\.244\.1\.5 \(EINVAL\), but not its own$/,
    { route: refused('EINVAL'), refusal }
  ],
  [
    "another route than weftd's",
    'route',
    /^the kernel takes the route "default via \S+ dev eth0 table 52 .*" instead of weftd's "10\.244\.2\.0\/24 via /,
    { route: found({ table: 52, destination: prefix('0.0.0.0/0'), device: 'eth0' }) }
  ],
  [
    'a device that is too narrow',
    'out-link',
    /^weft\.1 has MTU 1400, but pods send packets that need 1450$/,
    { out: { name: 'weft.1', now: { ...up, name: 'weft.1', mtu: 1400 } } }
  ],
  [
    'a neighbour that is missing',
    'neighbour',
    /is missing; it should be 0e:00:00:00:00:02$/,
    { neighbour: { device: 'weft.1', ip: ip('10.244.2.0'), now: undefined, wanted: neighbour } }
  ],
  [
    'another MAC',
    'neighbour',
    /is 02:02:02:02:02:02; the lease says 0e:00:00:00:00:02$/,
    {
      neighbour: {
        ...{ device: 'weft.1', ip: ip('10.244.2.0'), wanted: neighbour },
        now: { state: 'permanent', mac: '02:02:02:02:02:02' }
      }
    }
  ],
  [
    'an FDB entry that is missing',
    'forwarding-entry',
    /is missing; it should lead to 192\.0\.2\.2$/,
    { entry: { ...(whole.entry ?? assert.fail()), now: undefined } }
  ],
  [
    'an FDB entry that leads elsewhere',
    'forwarding-entry',
    /leads to 192\.0\.2\.9; the lease says 192\.0\.2\.2$/,
    { entry: { ...(whole.entry ?? assert.fail()), now: ip('192.0.2.9') } }
  ],
  [
    'an underlay link without carrier, before the route that went with it',
    'tunnel-link',
    /^eth0 has no carrier$/,
    {
      underlay: {
        ...underlay,
        route: refused('ENETUNREACH'),
        link: { name: 'eth0', now: { ...up, name: 'eth0', carrier: false } }
      }
    }
  ],
  [
    'an underlay without a route',
    'tunnel-route',
    /no route to the other node's address 192\.0\.2\.2/,
    { underlay: { ...underlay, route: refused('ENETUNREACH') } }
  ],
  [
    'a node whose link does not answer',
    'tunnel-neighbour',
    /^nobody answers for 192\.0\.2\.2 on eth0 \(neighbour failed\)$/,
    { underlay: { ...underlay, neighbour: { device: 'eth0', ip: ip('192.0.2.2'), now: { state: 'failed' } } } }
  ],
  [
    "a rule of somebody's table",
    'firewall',
    /^the rule "ip saddr 10\.244\.1\.5 drop" of chain inet admin pods dropped the packet$/,
    { echo: drop({ rule: 'ip saddr 10.244.1.5 drop' }) }
  ],
  [
    'a policy of iptables, for the answer',
    'firewall',
    /^the policy of chain ip filter FORWARD dropped the answer$/,
    { echo: drop({ leg: 'back', family: 'ip', table: 'filter', chain: 'FORWARD' }) }
  ],
  [
    'a rule of iptables-legacy',
    'firewall',
    /at hook forward; .* iptables-legacy did \(tables with rules: filter\)$/,
    { echo: passed(...forwarded.slice(0, 3)), legacy: ['filter'] }
  ],
  [
    'a kernel that does not route it',
    'firewall',
    /between prerouting and forward/,
    { echo: passed(...forwarded.slice(0, 2)) }
  ],
  [
    'an answer that would be sent elsewhere',
    'back-route',
    /^answers to 10\.244\.1\.5 that come by weft\.1 take the route ".*" instead of cni0$/,
    { back: found({ device: 'other' }), echo: passed(...gone, 'outer postrouting after eth0') }
  ],
  [
    'what probes found',
    'probe',
    /^UDP 8472 from two is lost$/,
    { probes: [{ way: 'pods', family: 4, verdict: 'back-lost', text: 'UDP 8472 from two is lost' }], echo: lost }
  ],
  [
    'what the other node reports of large packets, although this small one was answered',
    'peer',
    /^two reports: large since then$/,
    { peer: { at: '', bad: [{ verdict: 'large-lost', text: 'large since then' }] } }
  ],
  [
    'an ICMP error',
    'answer',
    /^192\.0\.2\.2 answered for 10\.244\.2\.7: host unreachable$/,
    { echo: { ...lost, refusal: { from: ip('192.0.2.2'), text: 'host unreachable' } } }
  ],
  [
    'silence',
    'answer',
    /did not answer .* nothing wrong was found on this node$/,
    { echo: passed(...gone, 'outer postrouting after eth0') }
  ],
  ['a firewall in the pod', 'answer', /send: EPERM/, { echo: { ...lost, unsent: 'send: EPERM' } }]
]

test('the cure of a rule that drops the tunnel names the port and the other node, not the pod network', () => {
  const cureOf = (over: Partial<Dropped>) => firstFault(judgeWay({ ...whole, echo: drop(over) }))?.cure ?? ''
  const rule = 'udp dport 8472 drop'
  assert.match(cureOf({ leg: 'outer-back', rule }), /or accept UDP port 8472 from 192\.0\.2\.2 before it, in/)
  assert.match(cureOf({ leg: 'outer' }), /^accept UDP port 8472 to 192\.0\.2\.2 before the end of that chain, in/)
  assert.match(cureOf({ leg: 'back', rule }), /or accept the pod network before it, in/)
})

test('the missing answer is no proof of an innocent node where a fault was found on it', () => {
  const answer = judgeWay({ ...whole, echo: drop({ rule: 'drop' }) }).at(-1)
  assert.match(answer?.text ?? '', /did not answer an ICMP echo request within a second$/)
})

for (const [name, at, text, facts] of FAULTS) {
  test(`the first fault: ${name}`, () => {
    const first = firstFault(judgeWay({ ...whole, ...facts }))
    assert.equal(first?.at, at, JSON.stringify(first))
    assert.match(first?.text ?? '', text)
    assert.ok((first?.cure ?? '') !== '')
  })
}

test('what is not known is no fault: another kernel, another namespace, no trace, silence of an address elsewhere', () => {
  const { inside: _, ...unseen } = whole
  const hops = judgeWay({
    ...unseen,
    to: { kind: 'elsewhere', address: ip('203.0.113.9'), networks: '10.244.0.0/16' },
    neighbour: { device: 'eth0', ip: ip('192.0.2.1'), now: 'unknown' },
    echo: { ...lost, untraced: 'no nf_tables' },
    conditions: ['Docker drops it']
  })
  assert.equal(firstFault(hops), undefined)
  const said = new Map(hops.map(({ at, state, text }) => [at, `${state}: ${text}`]))
  assert.match(said.get('firewall') ?? '', /^unknown: the packet was not traced \(no nf_tables\); Docker drops it$/)
  assert.match(said.get('answer') ?? '', /^unknown: .* it may answer none, or have no route back/)
  assert.match(said.get('pod') ?? '', /^unknown: the network namespace of shop\/web was not found/)
})

test('a verdict of probes is no fault once the packet is answered, unless it is about large packets', () => {
  const lostProbe = { way: 'pods', family: 4, verdict: 'out-lost', text: 'UDP 8472 is lost' } as const
  const peer = { at: '', bad: [{ verdict: 'back-lost', text: 'lost since then' }] }
  const hops = judgeWay({ ...whole, probes: [lostProbe], peer })
  assert.equal(firstFault(hops), undefined)
  assert.match(hops.find(({ at }) => at === 'probe')?.text ?? '', /^UDP 8472 is lost; but this packet has just been/)
  const large = { ...lostProbe, verdict: 'large-lost' }
  assert.equal(firstFault(judgeWay({ ...whole, probes: [large] }))?.at, 'probe')
  assert.equal(firstFault(judgeWay({ ...whole, echo: lost, peer }))?.at, 'peer')
})

test('translated packets that are lost are a fault although an echo is answered; of one that was not asked nothing is said', () => {
  const probe = {
    way: 'translated',
    family: 4,
    verdict: 'lost',
    text: 'translated ones are lost',
    cure: 'tx off'
  } as const
  const said = (verdict: string) =>
    judgeWay({ ...whole, probes: [{ ...probe, verdict }] }).flatMap(({ at, state }) =>
      at === 'translated' ? state : []
    )
  assert.deepEqual(['lost', 'whole', 'not-asked'].map(said), [['wrong'], ['whole'], []])
  assert.equal(firstFault(judgeWay({ ...whole, probes: [probe] }))?.cure, 'tx off')
})

test('an address that the other node need not have is no fault when it is silent', () => {
  const hops = judgeWay({
    ...whole,
    to: { kind: 'remote', remote: { ...remote, isGuess: true } },
    echo: passed(...gone)
  })
  assert.equal(firstFault(hops), undefined)
  assert.match(hops.at(-1)?.text ?? '', /two has it only with pods on its bridge/)
})

test('a packet that left is said to have left, and by which device', () => {
  const hops = judgeWay({ ...whole, echo: passed(...gone, 'outer output after', 'outer postrouting after eth0') })
  assert.match(hops.find(({ at }) => at === 'firewall')?.text ?? '', /dropped the packet; it left by eth0$/)
  const silent = judgeWay({ ...whole, echo: passed(...gone) })
  assert.match(
    silent.find(({ at }) => at === 'firewall')?.text ?? '',
    /no encapsulated packet \(UDP 8472\) was seen to leave$/
  )
})
