// IPv6 beside pods' own packets: masquerade, host ports, repairs, weftctl; underlays with one family; nodes whose second
// family comes late, and networks that get one.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Cluster, linesOf, logged, PREFIX, type Resident } from './cluster.ts'
import {
  address6Of,
  addressesOf,
  DUAL,
  ipv6Of,
  leaseOf,
  leasesOf,
  ONLY_IPV6,
  reachInFamilies,
  sourceSeenBy
} from './families.ts'
import type { Place } from './lab-scene.ts'
import { answer } from './probe-scene.ts'
import { until } from './run.ts'
import { weftctl } from './weftctl.ts'

const skip = process.getuid?.() === 0 ? false : 'needs root'
const vxlan = { Type: 'vxlan', DirectRouting: false }
const script = (name: string) => fileURLToPath(new URL(name, import.meta.url))

async function ask(place: Place, protocol: string, address: string, port: number): Promise<string> {
  const args = [script('echo-client.ts'), protocol, address, String(port)]
  return (await place.exec(process.execPath, args, { check: false })).stdout.trim()
}

describe('a network with IPv6 only', { skip }, () => {
  test('with --ip-masq others see the host’s address and pods each other’s; without it, the pod’s', async () => {
    await using cluster = await Cluster.start({
      ...{ hosts: [2, 1], ipv6: true, args: ['--ip-masq'] },
      network: { ...ONLY_IPV6, Backend: vxlan }
    })
    const residents = await cluster.podOnEach()
    const [a, b, c] = residents
    assert.ok(a && b && c)
    assert.equal(await sourceSeenBy(cluster.lab.router, a.pod, 'fd00:10::1'), cluster.node(1).address6)
    for (const other of [b, c]) assert.equal(await sourceSeenBy(other.pod, a.pod, other.address), a.address)
    // Multicast of pods is left alone, as flannel leaves it.
    const { stdout } = await cluster.node(1).exec('nft', ['list', 'chain', 'inet', 'weft', 'postrouting'])
    assert.match(stdout, /ip6 saddr fd00:244::\/48 ip6 daddr != ff00::\/8 masquerade/)
    assert.doesNotMatch(stdout, /ip saddr/)
  })

  test('host ports are reached from other hosts, their pods, this host and the pod itself, in each mode', async () => {
    await using cluster = await Cluster.start({
      ...{ hosts: [2], ipv6: true, args: ['--ip-masq'] },
      network: { ...ONLY_IPV6, Backend: { Type: 'host-gw' } }
    })
    const [here, there] = [cluster.node(1), cluster.node(2)]
    const far = await cluster.pod(there)
    for (const [at, mode] of ['bridge', 'routed'].entries()) {
      const hostPort = 8080 + at
      const portMappings = ['tcp', 'udp'].map((protocol) => ({ hostPort, containerPort: 80, protocol }))
      const server = await cluster.pod(here, { mode, runtimeConfig: { portMappings } })
      const program = server.pod.spawn(process.execPath, [script('echo-server.ts'), mode, '80'])
      await until(() => program.text().includes('listening'), { what: 'the server in the pod' })
      for (const protocol of ['tcp', 'udp']) {
        assert.equal(await ask(there, protocol, address6Of(here), hostPort), `${mode} sees ${there.address6}`)
        for (const place of [far.pod, here, server.pod])
          assert.match(await ask(place, protocol, address6Of(here), hostPort), new RegExp(`^${mode} sees`), place.name)
      }
      // A port of an IPv6 pod is none of the host's IPv4 addresses.
      assert.match(await ask(there, 'tcp', here.address, hostPort), /ECONNREFUSED/)
      await cluster.call(here, 'DEL', server.id, server.pod.netns)
      assert.match(await ask(there, 'tcp', address6Of(here), hostPort), /ECONNREFUSED/)
    }
  })

  test('hosts without any IPv4 address, etcd included', async () => {
    await using cluster = await Cluster.start({
      ...{ hosts: [2, 1], ipv6: true, start: false },
      network: { ...ONLY_IPV6, Backend: { Type: 'vxlan', DirectRouting: true } }
    })
    for (const node of cluster.nodes) await node.sh('ip -4 addr flush dev eth0')
    const args = [`--etcd-endpoints=${cluster.etcd.endpointList6}`]
    await Promise.all(cluster.nodes.map((node) => cluster.join(node, { args })))
    const residents = await cluster.podOnEach()
    for (const node of cluster.nodes)
      assert.equal((await node.exec('ip', ['-4', '-o', 'addr', 'show', 'scope', 'global'])).stdout, '')
    const { stdout } = await weftctl(cluster.node(1), ['peers', '--json'])
    for (const node of [cluster.node(2), cluster.node(3)]) assert.ok(stdout.includes(address6Of(node)), stdout)
    await reachInFamilies(residents, [6])
  })
})

describe('a network with both families', { skip }, () => {
  test('what others change in IPv6 is repaired, and weftctl speaks of both addresses', async () => {
    await using cluster = await Cluster.start({ hosts: [2], ipv6: true, network: { ...DUAL, Backend: vxlan } })
    const [a, b] = (await cluster.podOnEach()) as [Resident, Resident]
    const [node, other] = [cluster.node(1), cluster.node(2)]
    const { subnets, value } = await leaseOf(cluster, other)
    const subnet = subnets[1] ?? assert.fail('no IPv6 subnet')
    for (const damage of [
      `ip -6 route del ${subnet}`,
      'ip -6 neigh del $(ip -6 neigh show nud permanent dev weft6.1 | head -1 | cut -d" " -f1) dev weft6.1',
      `bridge fdb del ${value.BackendV6Data?.VtepMAC} dev weft6.1`,
      'ip -6 addr flush dev weft6.1 scope global',
      'ip link set weft6.1 address 02:11:22:33:44:55',
      'ip link set weft6.1 down',
      'sysctl -qw net.ipv6.conf.weft6/1.disable_ipv6=1',
      'ip link del weft6.1'
    ]) {
      const before = cluster.daemon(1).log.length
      await node.sh(damage)
      await until(
        () =>
          cluster
            .daemon(1)
            .log.slice(before)
            .some(({ msg }) => /back|again|repair/.test(msg)),
        {
          what: `a repair after: ${damage}`
        }
      )
      await reachInFamilies([a, b], [6, 4])
    }
    assert.equal((await node.sh('ip -6 -o addr show tentative scope global')).stdout, '')

    const { pods } = JSON.parse((await weftctl(node, ['pods', '--json'])).stdout)
    assert.deepEqual(pods[0].addresses, addressesOf(a))
    const rows = (await weftctl(node, ['nodes'])).stdout
    for (const text of [other.address, address6Of(other), ...subnets]) assert.ok(rows.includes(text), rows)
    const proven = async () => {
      const { peers } = await answer(cluster, 1)
      const ways = (peers[0]?.ways ?? []).filter(({ way }) => way === 'pods')
      assert.deepEqual(
        ways.map(({ family, verdict }) => [family, verdict]),
        [
          ['ipv4', 'whole'],
          ['ipv6', 'whole']
        ]
      )
      return true
    }
    await until(proven, { what: 'both families to be proven', everyMs: 300, deadlineMs: 120_000 })
    for (const address of addressesOf(b)) {
      const { code, stdout } = await weftctl(node, ['why', 'pod', `lab/${a.id}`, 'to', 'address', address])
      assert.equal(code, 0, stdout)
      assert.match(stdout, address.includes(':') ? /weft6\.1/ : /weft\.1/)
    }
    const { code, stdout } = await weftctl(node, ['diff'])
    assert.equal(code, 0, stdout)
  })

  test('a host whose IPv6 address comes late waits with the reason, then joins with both; one that changes is followed', async () => {
    await using cluster = await Cluster.start({
      ...{ hosts: [2], ipv6: true, start: false },
      network: { ...DUAL, Backend: vxlan }
    })
    const [one, two] = [cluster.node(1), cluster.node(2)]
    await cluster.join(one)
    await two.sh(`ip -6 addr del ${two.address6}/64 dev eth0`)
    const late = await cluster.join(two, { wait: false })
    const told = await until(async () => /NO_INTERFACE.*/.exec((await late.readyz()).body)?.[0], {
      what: 'the condition'
    })
    assert.match(told, /eth0.*has no global IPv6 address/)
    await two.sh(`ip -6 addr add ${two.address6}/64 dev eth0 nodad`)
    await late.ready()
    const residents = await cluster.podOnEach()
    await reachInFamilies(residents, [4, 6])
    const before = await leaseOf(cluster, two)
    await two.sh(`ip -6 addr add fd00:10::99/64 dev eth0 nodad; ip -6 addr del ${two.address6}/64 dev eth0`)
    await until(async () => (await leaseOf(cluster, two)).value.PublicIPv6 === 'fd00:10::99', {
      what: 'the lease to have the new address'
    })
    assert.equal((await leaseOf(cluster, two)).key, before.key)
    await reachInFamilies(residents, [4, 6])
    const fdb = await linesOf(one, 'bridge', 'fdb', 'show', 'dev', 'weft6.1')
    assert.deepEqual(
      fdb.filter((line) => line.includes('dst')),
      [`${before.value.BackendV6Data?.VtepMAC} dst fd00:10::99 self permanent`]
    )
  })

  test('gets its second family node by node: IPv4 goes on between nodes that have it and those that do not yet', async () => {
    await using cluster = await Cluster.start({
      ...{ hosts: [2], ipv6: true },
      network: { Network: DUAL.Network, Backend: vxlan }
    })
    const old = (await cluster.podOnEach()) as [Resident, Resident]
    const before = await leasesOf(cluster)
    await cluster.etcd.put(`${PREFIX}/config`, JSON.stringify({ ...DUAL, Backend: vxlan }))
    const { lost } = await old[0].pod.pingDuring(old[1].address, async () => {
      for (const daemon of cluster.daemons) {
        await daemon.restart()
        await reachInFamilies(old, [4])
      }
    })
    assert.deepEqual(lost, [])
    const after = await leasesOf(cluster)
    assert.deepEqual(
      after.map(({ subnets }) => subnets[0]).sort(),
      before.map(({ subnets }) => subnets[0]).sort(),
      'each node keeps its IPv4 subnet'
    )
    assert.ok(after.every(({ subnets }) => subnets.length === 2))
    const young = await cluster.podOnEach()
    await reachInFamilies(young, [4, 6])
    await reachInFamilies([...old, ...young], [4])
    await logged(cluster.daemon(1), ({ msg }) => msg.includes('leased'), 'the lease')
    assert.ok(young.every((resident) => ipv6Of(resident).startsWith('fd00:244:')))
  })
})
