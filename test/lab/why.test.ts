// weftctl why and check on real nodes: faults made for real, each of which ends with the right first fault.
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import type { WayAnswer } from '../../daemon/api/path-answers.ts'
import { run as weftctlHere } from '../../daemon/ctl/run.ts'
import { Cluster, type Resident } from './cluster.ts'
import type { Host } from './host.ts'
import { type Background, run, until } from './run.ts'
import { weftctl } from './weftctl.ts'

const skip = process.getuid?.() === 0 ? false : 'needs root'
const hasLegacy = (await run('iptables-legacy', ['--version'], { check: false }).catch(() => ({ code: 1 }))).code === 0

describe('weftctl why and check on two nodes with VXLAN', { skip }, () => {
  let cluster: Cluster
  let here: Host
  let a: Resident
  let b: Resident
  let beside: Resident
  before(async () => {
    cluster = await Cluster.start({
      hosts: [2],
      network: { Network: '10.244.0.0/16', Backend: { Type: 'vxlan', DirectRouting: false } }
    })
    cluster.announce('UNDERLAY_LOST')
    here = cluster.node(1)
    ;[a, b] = (await cluster.podOnEach()) as [Resident, Resident]
    beside = await cluster.pod(here)
  })
  after(() => cluster[Symbol.asyncDispose]())

  const why = async (...words: readonly string[]): Promise<WayAnswer & { readonly code: number }> => {
    // In this process, which is faster than one more for each question.
    let [out, complaints] = ['', '']
    const code = await weftctlHere(['why', ...words, '--json', `--socket=${here.path('/run/weft/weftd.sock')}`], {
      ...{ env: {}, version: '' },
      out(text) {
        out += text
      },
      complain(text) {
        complaints += text
      }
    })
    assert.equal(complaints, '', out)
    return { ...JSON.parse(out).way, code }
  }
  const toB = () => ['pod', `lab/${a.id}`, 'to', 'address', b.address]
  /** weftd puts many faults right within milliseconds: whoever asks must meet one. */
  const firstIs = async (at: string | RegExp, words: readonly string[], text: RegExp): Promise<WayAnswer> => {
    let last: WayAnswer | undefined
    const found = await until(
      async () => {
        const { code, ...way } = await why(...words)
        last = way
        const isMeant = typeof at === 'string' ? way.first?.at === at : at.test(way.first?.at ?? '')
        return isMeant && code === 1 ? way : undefined
      },
      { what: `the first fault to be ${at}`, deadlineMs: 60_000 }
    ).catch((error) => assert.fail(`${error}\n${JSON.stringify(last, null, 1)}`))
    assert.match(found.first?.text ?? '', text)
    assert.ok((found.first?.cure ?? '').length > 10, JSON.stringify(found.first))
    return found
  }
  /** The fault is there while `ask` runs. */
  const during = async (host: Host, script: string, undo: string, ask: () => Promise<unknown>): Promise<void> => {
    await host.sh(script)
    try {
      await ask()
    } finally {
      await host.sh(undo)
    }
  }
  /** The fault is made again and again, as by a program that fights with weftd. */
  const fighting = async (script: string, ask: () => Promise<unknown>): Promise<void> => {
    const program: Background = here.spawn('sh', ['-c', `while :; do ${script}; done 2>/dev/null`])
    try {
      await ask()
    } finally {
      await program.stop()
    }
  }
  const vtep = async (): Promise<readonly [mac: string, ip: string]> => {
    const { stdout } = await here.exec('bridge', ['fdb', 'show', 'dev', 'weft.1'])
    const [, mac = '', ip = ''] = /^(\S+) dst (\S+) self permanent/m.exec(stdout) ?? []
    return [mac, ip]
  }
  const subnetOf = ({ address }: Resident): string => address.replace(/\d+$/, '0')

  test('a whole way: from pod to pod, to the node, from the host to a pod, between pods of one node', async () => {
    const there = await why(...toB())
    assert.equal(there.first, undefined, JSON.stringify(there, null, 1))
    assert.equal(there.code, 0)
    assert.ok((there.answeredUs ?? 0) > 0)
    // Probes and reports may not have come yet.
    const doubted = there.hops.filter(({ at, state }) => state !== 'whole' && at !== 'probe' && at !== 'peer')
    assert.deepEqual(doubted, [], JSON.stringify(there.hops, null, 1))
    assert.deepEqual([there.from.name, there.to.address], [`lab/${a.id}`, b.address])
    for (const words of [
      ['node', b.address],
      ['pod', `lab/${a.id}`],
      ['address', beside.address],
      ['pod', `lab/${a.id}`, 'to', 'pod', `lab/${beside.id}`],
      ['address', here.address]
    ]) {
      const way = await why(...words)
      assert.deepEqual([way.first, way.code], [undefined, 0], `${words.join(' ')}\n${JSON.stringify(way, null, 1)}`)
      assert.ok((way.answeredUs ?? 0) > 0, `${words.join(' ')}\n${JSON.stringify(way, null, 1)}`)
    }
    const { stdout } = await weftctl(here, ['why', ...toB()])
    assert.match(stdout, /^path from pod lab\/\S+ \(10\.\S+\) to node 192\.\S+ \(10\.\S+\):\n {4}ends +10\./)
    assert.match(stdout, /^ {4}forwarding-entry +weft\.1 sends frames for /m)
    assert.match(stdout, /^whole: an answer came after [\d.]+ ms\n$/m)
    const matrix = await weftctl(here, ['check'])
    assert.match(matrix.stdout, /to all 1 other node; .*\n\nFROM .*\nh1 .*ok\n/)
    assert.equal(matrix.code, 0)
    assert.doesNotMatch((await here.exec('nft', ['list', 'tables'])).stdout, /trace/)
  })

  test('a firewall: nftables, iptables-nft, of the tunnel, and at the other node', async () => {
    const drop = `table inet admin { chain pods { type filter hook forward priority 10; ip saddr { ${a.address}, 192.0.2.1 } drop; }; }`
    await during(here, `nft '${drop}'`, 'nft delete table inet admin', () =>
      firstIs(
        'firewall',
        toB(),
        new RegExp(`^the rule "ip saddr { .*${a.address}.* } drop" of chain inet admin pods dropped the packet$`)
      )
    )
    const rule = `FORWARD -s ${b.address} -m comment --comment none -j DROP`
    await during(here, `iptables -I ${rule}`, `iptables -D ${rule}`, async () => {
      const found = await firstIs('firewall', toB(), /of chain ip filter FORWARD dropped the answer$/)
      assert.match(found.first?.cure ?? '', /iptables -t filter -S FORWARD/)
    })
    const tunnel = 'OUTPUT -p udp --dport 8472 -j DROP'
    await during(here, `iptables -I ${tunnel}`, `iptables -D ${tunnel}`, async () => {
      await firstIs('firewall', toB(), /of chain ip filter OUTPUT dropped the encapsulated packet$/)
      const { code, stdout } = await weftctl(here, ['check'])
      assert.match(stdout, /\nh1 .*firewall\n[\s\S]*\nh1 to \S+: the rule .*\n {2}cure: /)
      assert.equal(code, 1)
    })
    const input = 'INPUT -p udp --dport 8472 -j DROP'
    await during(here, `iptables -I ${input}`, `iptables -D ${input}`, () =>
      firstIs('firewall', toB(), /of chain ip filter INPUT dropped the encapsulated answer$/)
    )
    await during(cluster.node(2), `iptables -I ${input}`, `iptables -D ${input}`, () =>
      // Until probes have found out.
      firstIs(/answer|probe|peer/, toB(), /did not answer .* nothing wrong was found on this node$|lost|firewall/)
    )
    assert.equal((await why(...toB())).code, 0)
  })

  test('a firewall of iptables-legacy, which no trace shows', { skip: !hasLegacy }, async () => {
    const rule = `FORWARD -s ${a.address} -d ${b.address} -j DROP`
    await during(here, `iptables-legacy -I ${rule}`, `iptables-legacy -D ${rule}`, () =>
      firstIs(
        'firewall',
        toB(),
        /dropped at hook forward; .* a rule of iptables-legacy did \(tables with rules: filter\)$/
      )
    )
  })

  test('routing: a blackhole rule, a route of another table, the reverse path filter, forwarding that is off', async () => {
    const net = `${subnetOf(b)}/24`
    await during(here, `ip rule add to ${net} blackhole pref 77`, 'ip rule del pref 77', () =>
      firstIs('route', toB(), new RegExp(`^the policy rule "77: from all to ${net} blackhole" refuses packets to `))
    )
    await during(
      here,
      `ip rule add to ${net} lookup 99 pref 77; ip route add default via ${cluster.node(2).address} table 99`,
      'ip rule del pref 77; ip route flush table 99',
      () => firstIs('route', toB(), /^the kernel takes the route "default via .* table 99.*" instead of weftd's "10/)
    )
    await during(
      here,
      `ip link add name other type bridge; ip link set other up; ip route add ${a.address} dev other table 99
       ip rule add to ${a.address} lookup 99 pref 77; sysctl -qw net.ipv4.conf.all.rp_filter=1`,
      'ip rule del pref 77; ip link del other; sysctl -qw net.ipv4.conf.all.rp_filter=0',
      () =>
        firstIs(
          'route',
          toB(),
          /^the reverse path filter drops packets from .* on \S+ \(net\.ipv4\.conf\.all\.rp_filter=1/
        )
    )
    await fighting('echo 0 > /proc/sys/net/ipv4/ip_forward', () =>
      firstIs('settings', toB(), /^forwarding is off: net\.ipv4\./)
    )
  })

  test('the tunnel: a missing FDB entry, a wrong neighbour, the link to the other nodes', async () => {
    const [mac, ip] = await vtep()
    await fighting(`bridge fdb del ${mac} dev weft.1`, () =>
      firstIs(
        'forwarding-entry',
        toB(),
        new RegExp(`^the FDB entry for ${mac} on weft.1 is missing; it should lead to ${ip}$`)
      )
    )
    const next = subnetOf(b)
    await fighting(`ip neigh replace ${next} lladdr 02:00:00:00:00:99 nud permanent dev weft.1`, () =>
      firstIs(
        'neighbour',
        toB(),
        new RegExp(`^the neighbour entry for ${next} on weft.1 is 02:00:00:00:00:99; the lease says ${mac}$`)
      )
    )
    await here.cut()
    try {
      await firstIs('tunnel-link', toB(), /^eth0 has no carrier$/)
    } finally {
      await here.restore()
    }
    await until(async () => (await why(...toB())).code === 0, { what: 'the way to be whole again' })
  })

  test('the pod: its interface is down, it has no default route', async () => {
    const broken = await cluster.pod(here)
    const words = ['pod', `lab/${broken.id}`, 'to', 'address', b.address]
    await broken.pod.exec('ip', ['route', 'del', 'default'])
    await firstIs('pod', words, /has no route to .* \(ENETUNREACH\)$/)
    await broken.pod.exec('ip', ['link', 'set', 'eth0', 'down'])
    await firstIs('pod', words, /^eth0 in lab\/.* is down$/)
  })

  test('addresses: of no lease, of no pod, outside of all networks; ends that are not here', async () => {
    await firstIs(
      'ends',
      ['address', '10.244.250.7'],
      /^10\.244\.250\.7 is in the pod network .*, but in no node's lease$/
    )
    const unused = beside.address.replace(/\d+$/, '250')
    await firstIs('ends', ['address', unused], /is in this node's own subnet, but no pod here has it$/)
    const nobody = here.address.replace(/\d+$/, '199')
    const outside = await firstIs(
      'neighbour',
      ['address', nobody],
      /^nobody answers for \S+ on eth0 \(neighbour \w+\)$/
    )
    assert.match(outside.hops[0]?.text ?? '', /outside of the pod network \(10\.244\.0\.0\/16\)/)
    for (const [words, code, error] of [
      [['pod', 'lab/nobody', 'to', 'address', b.address], 3, /^weftctl: this node has no pod lab\/nobody/],
      [['address', 'nonsense'], 3, /^weftctl: "nonsense" is no IPv4 or IPv6 address/],
      [['pod', 'x', 'to', 'address'], 2, /^weftctl: why needs NAME/],
      [['pod', 'x', 'from'], 2, /^weftctl: why has no "from"/]
    ] as const) {
      const refused = await weftctl(here, ['why', ...words])
      assert.match(refused.stderr, error)
      assert.equal(refused.code, code)
    }
  })

  test('a weftd that stops answers questions that wait for their turn, and no trace is left; nor if it is killed', async () => {
    // Nobody answers, so that each trace lasts its second.
    const unused = beside.address.replace(/\d+$/, '250')
    const tables = async () => (await here.exec('nft', ['list', 'tables'])).stdout
    const tracing = () => until(async () => /trace/.test(await tables()), { what: 'the trace', everyMs: 5 })
    const socket = `--socket=${here.path('/run/weft/weftd.sock')}`
    const refusal = async (): Promise<string> => {
      let complaint = ''
      await weftctlHere(['why', 'address', unused, socket], {
        ...{ env: {}, version: '', out: () => undefined },
        complain(text) {
          complaint += text
        }
      })
      return complaint
    }
    const waiting = Array.from({ length: 10 }, refusal)
    await tracing()
    await cluster.daemon(1).stop()
    assert.doesNotMatch(await tables(), /trace/)
    const stopping = (await Promise.all(waiting)).filter((text) => text.includes('weftd is stopping'))
    assert.ok(stopping.length >= 8, `${stopping.length} of 10`)
    cluster.daemon(1).launch()
    await cluster.daemon(1).ready()

    const lost = weftctl(here, ['why', 'address', unused])
    await tracing()
    await cluster.daemon(1).kill('SIGKILL')
    await lost
    assert.doesNotMatch(await tables(), /trace/)
    // As a kernel that knows no owners keeps it: the next weftd removes it.
    await here.exec('nft', ['add', 'table', 'inet', 'weft-trace'])
    cluster.daemon(1).launch()
    await cluster.daemon(1).ready()
    assert.doesNotMatch(await tables(), /trace/)
  })
})
