// IPv6 on hosts as they are: temporary and deprecated addresses, flags that name IPv6, IPv6 switched off by default on
// hosts and in pods, a firewall that drops what is forwarded, routes that cover the pod network, and small subnets.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { Cluster, linesOf, type Resident } from './cluster.ts'
import { address6Of, DUAL, ipv6Of, leaseOf, ONLY_IPV6, reachInFamilies } from './families.ts'
import { until } from './run.ts'

const skip = process.getuid?.() === 0 ? false : 'needs root'
const hostGw = { Type: 'host-gw' }
const vxlan = { Type: 'vxlan', DirectRouting: false }

describe('IPv6 on hosts as they are', { skip, timeout: 300_000 }, () => {
  test('no temporary or deprecated address is published, not even when the kernel makes another one later', async () => {
    await using cluster = await Cluster.start({
      ...{ hosts: [2], ipv6: true, start: false },
      network: { ...DUAL, Backend: hostGw }
    })
    const [one, two] = [cluster.node(1), cluster.node(2)]
    // Before the lasting one, as SLAAC with privacy extensions has them: the kernel lists the newest first.
    await one.sh(`echo 2 > /proc/sys/net/ipv6/conf/eth0/use_tempaddr
      ip -6 addr add fd00:10::a:1/64 dev eth0 nodad preferred_lft 0 valid_lft 9999
      ip -6 addr add fd00:10::1:2:3:4/64 dev eth0 mngtmpaddr nodad preferred_lft 8000 valid_lft 9000`)
    const temporary = () => linesOf(one, 'ip', '-6', '-o', 'addr', 'show', 'dev', 'eth0', 'temporary')
    await until(temporary, { what: 'a temporary address' })
    await Promise.all([cluster.join(one), cluster.join(two)])
    const residents = await cluster.podOnEach()
    const { value } = await leaseOf(cluster, one)
    assert.equal(value.PublicIPv6, one.address6)
    await one.sh('ip -6 addr add fd00:10::5:6:7:8/64 dev eth0 mngtmpaddr nodad preferred_lft 8000 valid_lft 9000')
    await until(async () => (await temporary()).length === 2, { what: 'another one' })
    await cluster.daemon(1).restart('SIGKILL')
    await reachInFamilies(residents, [4, 6])
    assert.deepEqual((await leaseOf(cluster, one)).value, value)
    const routes = await linesOf(two, 'ip', '-6', 'route', 'show', 'proto', '87')
    assert.ok(
      routes.some((line) => line.includes(`via ${one.address6} dev eth0`)),
      routes.join('\n')
    )
  })

  test('--iface, --iface-regex, --iface-can-reach and --public-ipv6 take IPv6, also in a network with both families', async () => {
    for (const [stack, flags, publicIpv6] of [
      [DUAL, ['--iface=fd00:10::77'], 'fd00:10::77'],
      [DUAL, ['--iface-regex=^fd00:10::7'], 'fd00:10::77'],
      [ONLY_IPV6, ['--iface-can-reach=fd00:10::1'], undefined],
      [DUAL, ['--iface-can-reach=fd00:10::1'], undefined],
      [DUAL, ['--public-ipv6=fd00:99::1'], 'fd00:99::1']
    ] as const) {
      await using cluster = await Cluster.start({
        ...{ hosts: [1], ipv6: true, start: false },
        network: { ...stack, Backend: vxlan }
      })
      const node = cluster.node(1)
      await node.sh(`ip -6 addr add fd00:10::77/64 dev eth0 nodad
        ip link add other type bridge; ip link set other up; ip -6 addr add fd00:55::1/64 dev other nodad`)
      const daemon = await cluster.join(node, { args: flags })
      assert.equal(daemon.log.find(({ msg }) => msg === 'interface chosen')?.device, 'eth0', flags.join(' '))
      const published = [...(await cluster.etcd.list('/coreos.com/network/subnets/')).values()].map(
        (text) => JSON.parse(text).PublicIPv6
      )
      assert.deepEqual(published, [publicIpv6 ?? published[0]], flags.join(' '))
      assert.match(String(published[0]), /^fd00:(10|99)::/)
    }
  })

  test('where IPv6 is switched off by default, on hosts and in pods, what Weft makes has it', async () => {
    await using cluster = await Cluster.start({
      ...{ hosts: [2], ipv6: true, start: false },
      network: { ...DUAL, Backend: vxlan }
    })
    for (const node of cluster.nodes) await node.sh('echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6')
    await Promise.all(cluster.nodes.map((node) => cluster.join(node)))
    const residents: Resident[] = []
    for (const node of cluster.nodes) {
      for (const mode of ['bridge', 'routed']) {
        const pod = await node.pod(`off-${mode}`)
        await pod.sh('for each in all default; do echo 1 > /proc/sys/net/ipv6/conf/$each/disable_ipv6; done')
        const { result } = await cluster.call(node, 'ADD', pod.name, pod.netns, { mode })
        residents.push({ host: node, pod, id: pod.name, address: '', result: result ?? {} })
      }
    }
    await reachInFamilies(residents, [4, 6])
    assert.equal(new Set(residents.map(ipv6Of)).size, 4)
  })

  test('a FORWARD policy DROP of ip6tables stops no pod, and a route that covers the pod network takes nothing', async () => {
    await using cluster = await Cluster.start({
      ...{ hosts: [2, 1], ipv6: true, start: false, args: ['--ip-masq'] },
      network: { ...DUAL, Backend: { Type: 'vxlan', DirectRouting: true } }
    })
    for (const node of cluster.nodes) await node.sh('ip6tables -w -P FORWARD DROP; iptables -w -P FORWARD DROP')
    for (const node of cluster.nodes)
      await node.sh(`ip -6 route add fd00::/16 via ${node.segment === 0 ? 'fd00:10::1' : 'fd00:11::1'}`)
    await Promise.all(cluster.nodes.map((node) => cluster.join(node)))
    const residents = await cluster.podOnEach()
    await reachInFamilies(residents, [4, 6])
    // A reload of the host's rules: they are back, without Weft's accept.
    await cluster.node(1).sh('ip6tables -w -F FORWARD')
    await reachInFamilies(residents, [6])
    for (const node of cluster.nodes)
      assert.equal((await linesOf(node, 'ip', '-6', 'route', 'show', 'fd00::/16')).length, 1)
  })

  test('links that go down lose their IPv6 addresses and routes, and forwarding is switched off: all is back', async () => {
    await using cluster = await Cluster.start({
      ...{ hosts: [2, 1], ipv6: true },
      network: { ...DUAL, Backend: { Type: 'vxlan', DirectRouting: true } }
    })
    // While a link is down, or has no address yet.
    cluster.announce('UNDERLAY_LOST')
    const [one, two] = [cluster.node(1), cluster.node(2)]
    const residents = [
      await cluster.pod(one, { mode: 'routed' }),
      ...(await Promise.all(cluster.nodes.map((node) => cluster.pod(node, { mode: 'bridge' }))))
    ]
    await reachInFamilies(residents, [4, 6])
    const uplink = `ip -6 addr add ${one.address6}/64 dev eth0 nodad; ip -6 route add default via fd00:10::1
      ip route replace default via 192.168.10.1`
    for (const damage of [
      'ip link set cni0 down; ip link set cni0 up',
      'for each in $(ip -o link show type veth | cut -d" " -f2 | cut -d@ -f1 | grep -v eth0); do ip link set $each down; done',
      'echo 0 > /proc/sys/net/ipv6/conf/all/forwarding',
      'ip -6 route flush proto 87; ip -6 neigh flush dev weft6.1 nud permanent',
      `ip link set eth0 down; ip link set eth0 up; ${uplink}`
    ]) {
      await one.sh(damage)
      await reachInFamilies(residents, [6, 4])
    }
    await two.replug()
    await reachInFamilies(residents, [6, 4])
  })

  test('subnets of 120 bits in a network of 112, given out to the last', async () => {
    const network = { EnableIPv4: false, EnableIPv6: true, IPv6Network: 'fd00:244::1:0/118', IPv6SubnetLen: 120 }
    await using cluster = await Cluster.start({
      ...{ hosts: [4], ipv6: true, start: false },
      network: { ...network, Backend: hostGw }
    })
    const [one, two, three, four] = cluster.nodes
    assert.ok(one && two && three && four)
    await Promise.all([one, two, three].map((node) => cluster.join(node)))
    const keys = await Promise.all([one, two, three].map(async (node) => (await leaseOf(cluster, node)).key))
    assert.deepEqual(keys.sort(), ['fd00:244::1:100-120', 'fd00:244::1:200-120', 'fd00:244::1:300-120'])
    const late = await cluster.join(four, { wait: false })
    await until(async () => (await late.readyz()).body.includes('SUBNETS_EXHAUSTED'), { what: 'the condition' })
    const residents = await Promise.all([one, two, three].map((node) => cluster.pod(node)))
    await reachInFamilies(residents, [6])
    assert.ok(address6Of(one).length > 0)
  })
})
