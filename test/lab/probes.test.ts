// Probes between real nodes: what each says of a way whose packets are dropped, too large, misled or not answered, and
// that all is whole again afterwards. The faults of one test are made at the same time, between different nodes.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { Cluster, PREFIX, reachEachOther } from './cluster.ts'
import { answer, become, conditions, wayTo } from './probe-scene.ts'
import { run, until } from './run.ts'
import { weftctl } from './weftctl.ts'
import { sample } from './weftd.ts'

const skip = process.getuid?.() === 0 ? false : 'needs root'

const PAIRS = ['1 2', '2 1', '1 3', '3 1', '2 3', '3 2']
const all = (verdict: string) => Object.fromEntries(PAIRS.map((pair) => [pair, verdict]))
// They mostly wait for answers that do not come: all at the same time.
describe('probes', { skip, concurrency: true }, () => {
  test('a dropped port, large packets lost on the path, an asymmetric route, and afterwards all is whole', async () => {
    await using cluster = await Cluster.start({
      hosts: [2, 1],
      network: { Network: '10.244.0.0/16', Backend: { Type: 'vxlan', DirectRouting: false } }
    })
    const [one, two, three] = [cluster.node(1), cluster.node(2), cluster.node(3)]
    const { router } = cluster.lab
    const nodes = Object.fromEntries(PAIRS.map((pair) => [`${pair} nodes`, 'whole']))
    const healthy = await become(cluster, { ...all('whole'), ...nodes })
    assert.match(healthy[0]?.text ?? '', /^10\.244\.\d+\.0 answers in [\d.]+ ms, at 84 and at 1450 bytes$/)
    assert.equal((await weftctl(one, ['peers'])).code, 0)
    assert.match((await weftctl(one, ['nodes'])).stdout, / {2}20\d\d-\S+Z\n/)
    cluster.announce('UNDERLAY_LOST', 'UNDERLAY_MTU')

    // So narrow that none of the sizes that are tried passes.
    const narrow = (from: number) =>
      `FORWARD -p udp --dport 8472 -s ${one.address} -d ${three.address} -m length --length ${from}: -j DROP`
    const faults: readonly (readonly [typeof router, string])[] = [
      [two, `INPUT -p udp --dport 8472 -s ${one.address} -j DROP`],
      [router, narrow(601)],
      [router, `FORWARD -s ${three.address} -d ${two.address} -j DROP`]
    ]
    for (const [place, rule] of faults) await place.exec('iptables', ['-w', '-I', ...rule.split(' ')])
    const said = await become(cluster, {
      ...{ '1 2': 'out-lost', '2 1': 'back-lost', '1 3': 'large-lost', '3 1': 'large-lost', '3 2': 'out-lost' }
    })
    const [out, back, largeOut, largeBack] = said.map(({ text }) => text)
    assert.match(out ?? '', new RegExp(`^UDP port 8472 from this node \\(${one.address}\\) to ${two.address} is lost`))
    assert.match(back ?? '', new RegExp(`^UDP port 8472 from ${one.address} to this node \\(${two.address}\\) is lost`))
    assert.match(largeOut ?? '', new RegExp(`^packets of 1450 bytes \\(1500 .* from this node .* to ${three.address} `))
    assert.match(largeBack ?? '', new RegExp(`^packets of 1450 bytes .* from ${one.address} to this node `))
    assert.match(said[0]?.cure ?? '', new RegExp(`^let UDP port 8472 pass from ${one.address} to ${two.address}: `))
    const first = await until(async () => /UNDERLAY_LOST.*/.exec(await conditions(cluster, 1))?.[0], { what: 'it' })
    assert.match(first, /UDP port 8472 from this node/)
    assert.match(await conditions(cluster, 1), /UNDERLAY_MTU.*1450 bytes/)
    const listed = await weftctl(one, ['nodes'])
    assert.match(listed.stdout, new RegExp(`^${two.address} .* out-lost$`, 'm'))
    assert.equal(listed.code, 1)
    const metrics = await cluster.daemon(1).metrics()
    assert.equal(sample(metrics, 'weft_peers{verdict="out-lost"}'), 1)
    assert.equal(sample(metrics, 'weft_peers{verdict="large-lost"}'), 1)
    assert.ok((sample(metrics, 'weft_probe_round_trip_seconds_count') ?? 0) > 0)

    // What only the other end knows, with its name; etcd has no names of nodes.
    const isTold = async () => {
      const { reports = [], peers } = await answer(cluster, 2)
      const report = reports.find(({ node }) => node === 'h3') ?? assert.fail(JSON.stringify(reports))
      assert.deepEqual(
        report.bad
          .filter(({ way }) => way === 'pods')
          .map(({ verdict }) => verdict)
          .sort(),
        ['large-lost', 'out-lost']
      )
      assert.equal(report.asked, 2)
      return peers.some(({ node, key }) => node === 'h3' && key === report.key)
    }
    await until(isTold, { what: 'the report of node 3', everyMs: 300 })

    // Of a path that carries some sizes, the largest is found, and pods are told: what node 1 sends to node 3 passes then,
    // its answers to the probes of node 3 as well, in fragments.
    await router.exec('iptables', ['-w', '-I', ...narrow(1401).split(' ')])
    await router.exec('iptables', ['-w', '-D', ...narrow(601).split(' ')])
    const [from, to] = [await cluster.pod(one), await cluster.pod(three)]
    const big = async () =>
      (await from.pod.sh(`ping -c 1 -W 1 -M do -s 1400 ${to.address} 2>&1`, { check: false })).stdout
    await until(async () => /mtu ?= ?1350/.test(await big()), { what: 'the size that passes', deadlineMs: 120_000 })
    await until(
      async () => /UNDERLAY_MTU.*weftd has lowered the MTU of .* to 1350/.test(await conditions(cluster, 1)),
      {
        what: 'the condition to say so'
      }
    )
    await from.pod.sh(`ping -c 1 -W 2 -M do -s 1322 ${to.address}`)
    await become(cluster, { '1 3': 'large-lost', '3 1': 'whole' })
    await router.exec('iptables', ['-w', '-D', ...narrow(1401).split(' ')])

    for (const [place, rule] of faults.filter(([, each]) => each !== narrow(601)))
      await place.exec('iptables', ['-w', '-D', ...rule.split(' ')])
    await become(cluster, all('whole'))
    for (const n of [1, 2, 3])
      await until(async () => !(await conditions(cluster, n)).includes('UNDERLAY'), { what: `node ${n} to be fine` })
    // A report goes with the lease of its node.
    assert.equal((await cluster.etcd.list(`${PREFIX}/weft/reports/`)).size, 3)
  })

  test('a firewall that drops echo, another machine with the address, NAT, a stopped daemon and a host that is gone', async () => {
    await using cluster = await Cluster.start({
      hosts: [2, 1],
      network: { Network: '10.244.0.0/16', Backend: { Type: 'vxlan', DirectRouting: false } }
    })
    const [one, two, three] = [cluster.node(1), cluster.node(2), cluster.node(3)]
    const { router } = cluster.lab
    await become(cluster, all('whole'))
    // Behind address translation the outer source is another one; a tunnel does not look at it.
    await router.sh(`iptables -w -t nat -A POSTROUTING -s ${three.address} -d ${one.address} -j MASQUERADE`)
    cluster.announce('UNDERLAY_LOST')
    await three.sh('iptables -w -I INPUT -i weft.1 -p icmp -j DROP')
    // The neighbour that another machine with this address leaves behind.
    const mac = JSON.parse((await cluster.lab.switch.exec('ip', ['-j', 'link', 'show', 'br0'])).stdout)[0].address
    await one.sh(`ip neigh replace ${two.address} lladdr ${mac} dev eth0 nud permanent`)
    const said = await become(cluster, {
      ...{ '1 3': 'host-firewall', '3 1': 'host-firewall', '2 3': 'host-firewall', '3 2': 'host-firewall' },
      ...{ '1 2': 'out-lost', '2 1': 'lost' }
    })
    assert.match(said[0]?.text ?? '', new RegExp(`the firewall of ${three.address} drops it`))
    assert.match(said[1]?.text ?? '', /the firewall of this node drops it/)
    // Packets of pods arrive: no condition.
    assert.doesNotMatch(await conditions(cluster, 3), /UNDERLAY/)
    await one.sh(`ip neigh del ${two.address} dev eth0`)
    await three.sh('iptables -w -D INPUT -i weft.1 -p icmp -j DROP')
    await become(cluster, all('whole'))

    await cluster.daemon(2).kill('SIGTERM')
    const stopped = new Date().toISOString()
    const isAnswered = async () => {
      const { verdict, answeredAt = '' } = wayTo(cluster, await answer(cluster, 1), 2)
      assert.equal(verdict, 'whole')
      return answeredAt > stopped
    }
    await until(isAnswered, { what: 'an answer without its daemon', everyMs: 300 })
    await two.cut({ silently: true })
    const [lost] = await become(cluster, { '1 2': 'lost', '1 2 nodes': 'lost', '1 3': 'whole', '3 1': 'whole' })
    assert.match(lost?.text ?? '', new RegExp(`${two.address} does not answer either$`))
  })

  test('host-gw and IPv6: nodes without a pod are asked and answer, by the plain route', async () => {
    const network = { Network: '10.244.0.0/16', EnableIPv6: true, IPv6Network: 'fd00:244::/56', IPv6SubnetLen: 64 }
    await using cluster = await Cluster.start({
      ...{ hosts: [2], ipv6: true },
      network: { ...network, Backend: { Type: 'host-gw' } }
    })
    const isWhole = async (n: number, to: number) => {
      const { peers } = await answer(cluster, n)
      const ways = peers.find(({ publicIp }) => publicIp.includes(cluster.node(to).address))?.ways ?? []
      assert.deepEqual(
        ways.map(({ family, way, verdict }) => [family, way, verdict]),
        ['ipv4', 'ipv6'].flatMap((family) => ['pods', 'nodes'].map((way) => [family, way, 'whole'])),
        JSON.stringify(ways)
      )
      return true
    }
    for (const [n, to] of [
      [1, 2],
      [2, 1]
    ] as const)
      await until(() => isWhole(n, to), { what: `${n} to reach ${to}`, everyMs: 300 })
    cluster.announce('UNDERLAY_LOST')
    // As a network does that checks source addresses.
    const rule = 'FORWARD -s 10.244.0.0/16 -j DROP'
    await cluster.node(2).sh(`iptables -w -I ${rule.replace('FORWARD', 'INPUT')}`)
    const [out] = await become(cluster, { '1 2': 'out-lost', '2 1': 'back-lost' })
    assert.match(out?.text ?? '', /^packets of pods on the plain route by eth0 from this node .* are lost/)
    assert.match(out?.cure ?? '', /^let packets with addresses of pods pass from /)
    await cluster.node(2).sh(`iptables -w -D ${rule.replace('FORWARD', 'INPUT')}`)
    await become(cluster, { '1 2': 'whole', '2 1': 'whole' })

    // One side alone: its link takes nothing larger, neither from nor for pods.
    cluster.announce('UNDERLAY_MTU')
    await cluster.node(2).exec('ip', ['link', 'set', 'eth0', 'mtu', '1400'])
    const [narrow] = await become(cluster, { '1 2': 'large-lost', '2 1': 'whole' })
    assert.match(narrow?.text ?? '', /^packets of 1500 bytes from this node \(.*\) to 192\.168\.10\.12 /)
    await until(
      async () => (await cluster.node(1).exec('ip', ['route', 'show', 'proto', '87'])).stdout.includes('mtu 1'),
      { what: 'a route with an MTU of its own', everyMs: 300 }
    )
    const lowered = Number(
      /mtu (\d+)/.exec((await cluster.node(1).exec('ip', ['route', 'show', 'proto', '87'])).stdout)?.[1]
    )
    assert.ok(lowered > 1_200 && lowered <= 1_400, String(lowered))
  })

  test('without DirectRouting a plain route is taken once proven, left when it carries nothing, and taken again', async () => {
    await using cluster = await Cluster.start({
      hosts: [2, 1],
      network: { Network: '10.244.0.0/16', Backend: { Type: 'vxlan' } }
    })
    const routes = async (n: number) => (await cluster.node(n).exec('ip', ['route', 'show', 'proto', '87'])).stdout
    const leadsTo = (n: number, how: RegExp) =>
      until(async () => how.test(await routes(n)), { what: `${how} on node ${n}`, everyMs: 300, deadlineMs: 120_000 })
    const plain = (to: number) => new RegExp(`^10\\.244\\.\\d+\\.0/24 via ${cluster.node(to).address} dev eth0`, 'm')
    const residents = await Promise.all(cluster.nodes.map((node) => cluster.pod(node)))
    await reachEachOther(residents)
    await Promise.all([leadsTo(1, plain(2)), leadsTo(2, plain(1))])
    // The trial's own route is gone, and a node behind a router keeps the tunnel.
    await until(async () => !(await routes(1)).includes('tos'), { what: 'the end of the trial' })
    assert.equal((await routes(1)).match(/dev weft\.1/g)?.length, 1)
    await reachEachOther(residents)

    const tunnelled = /^(?![\s\S]*via 192\.168\.10\.1[12] dev eth0)/
    // What pods send crosses FORWARD, where no probe shows that it is dropped: the node says so.
    const dropped = 'FORWARD -i eth0 -s 10.244.0.0/16 -j DROP'
    await cluster.node(2).sh(`iptables -w -I ${dropped}`)
    await Promise.all([leadsTo(1, tunnelled), leadsTo(2, tunnelled)])
    await reachEachOther(residents)
    // The refusal does not end with the plain route, and no packet of pods meets the rule then.
    await until(async () => !(await conditions(cluster, 2)).includes('FORWARD_DROPPED'), { what: 'no condition' })
    for (let looks = 0; looks < 3; looks++) {
      const refused = wayTo(cluster, await answer(cluster, 1), 2, 'plain')
      assert.match(refused.text, /is not tried: the firewall of 192\.168\.10\.12 would drop packets of pods$/)
      const here = wayTo(cluster, await answer(cluster, 2), 1, 'plain')
      assert.match(here.text, /the firewall of this node would drop packets of pods: .*"iifname "?eth0/)
      await new Promise((resolve) => setTimeout(resolve, 2_500))
    }
    await cluster.node(2).sh(`iptables -w -D ${dropped}`)
    await Promise.all([leadsTo(1, plain(2)), leadsTo(2, plain(1))])

    cluster.announce('UNDERLAY_LOST')
    const lost = 'INPUT -i eth0 -s 10.244.0.0/16 -j DROP'
    await cluster.node(2).sh(`iptables -w -I ${lost}`)
    // Node 2 may keep its own plain route: by it packets arrive, and answers come through the tunnel.
    await leadsTo(1, tunnelled)
    await reachEachOther(residents)
    await become(cluster, all('whole'))
    const left = wayTo(cluster, await answer(cluster, 1), 2, 'plain')
    assert.match(
      left.text,
      /^the plain route by eth0 to 192\.168\.10\.12 carries no packets of pods: the tunnel is used/
    )
    await cluster.node(2).sh(`iptables -w -D ${lost}`)
    await Promise.all([leadsTo(1, plain(2)), leadsTo(2, plain(1))])
    await reachEachOther(residents)
  })

  test('a flood of probes, or of forged answers, costs no answer, and of it only so many are read as nodes can send', async () => {
    const helper = new URL('probe-flood.ts', import.meta.url).pathname
    const { stdout } = await run('unshare', ['-n', 'sh', '-c', `ip link set lo up && ${process.execPath} ${helper}`])
    const once = { answer: 1, heard: 1 }
    const read = [{ answer: 2_000, heard: 1_024 }, once, once]
    assert.deepEqual(
      stdout
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line)),
      [read, read]
    )
  })
})
