// Pods of three hosts reach each other: over direct routes on one link, over VXLAN behind a router, with host-gw; and
// the kernel's state.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Cluster, linesOf, PREFIX, type Resident, reachEachOther } from './cluster.ts'
import type { Json } from './cni.ts'
import { until } from './run.ts'
import { sample } from './weftd.ts'

const skip = process.getuid?.() === 0 ? false : 'needs root'

for (const directRouting of [true, false]) {
  test(`vxlan: pods of hosts on one link and behind a router reach each other, DirectRouting ${directRouting}`, {
    skip
  }, async () => {
    await using cluster = await Cluster.start({
      hosts: [2, 1],
      network: { Network: '10.244.0.0/16', Backend: { Type: 'vxlan', DirectRouting: directRouting } }
    })
    const residents = await Promise.all(cluster.nodes.flatMap((node) => [cluster.pod(node), cluster.pod(node)]))
    await reachEachOther(residents)

    const leases = await cluster.etcd.list(`${PREFIX}/subnets/`)
    assert.equal(leases.size, 3)
    const second =
      [...leases].find(([, value]) => value.includes(cluster.node(2).address)) ?? assert.fail('no lease of node 2')
    const third =
      [...leases].find(([, value]) => value.includes(cluster.node(3).address)) ?? assert.fail('no lease of node 3')
    const value = JSON.parse(third[1])
    assert.deepEqual(Object.keys(value), ['PublicIP', 'PublicIPv6', 'BackendType', 'BackendData'])
    assert.equal(value.PublicIP, cluster.node(3).address)
    assert.equal(value.BackendType, 'vxlan')
    assert.equal(value.BackendData.VNI, 1)
    const subnet = third[0].slice(`${PREFIX}/subnets/`.length).replace('-24', '')
    const near = second[0].slice(`${PREFIX}/subnets/`.length).replace('-24', '')

    const routes = await linesOf(cluster.node(1), 'ip', 'route')
    assert.ok(
      routes.some((line) => line.startsWith(`${subnet}/24 via ${subnet} dev weft.1`) && line.includes('onlink')),
      routes.join('\n')
    )
    const direct = `${near}/24 via ${cluster.node(2).address} dev eth0`
    assert.equal(
      routes.some((line) => line.startsWith(direct)),
      directRouting,
      routes.join('\n')
    )
    const metrics = await cluster.daemon(1).metrics()
    for (const channel of ['netlink', 'sysctl', 'firewall'])
      assert.ok((sample(metrics, `weft_kernel_run_seconds_count{channel="${channel}"}`) ?? 0) > 0, channel)
    const fdb = await linesOf(cluster.node(1), 'bridge', 'fdb', 'show', 'dev', 'weft.1')
    assert.ok(
      fdb.some((line) => line === `${value.BackendData.VtepMAC} dst ${cluster.node(3).address} self permanent`),
      fdb.join('\n')
    )
    const neighbours = await linesOf(cluster.node(1), 'ip', 'neigh', 'show', 'dev', 'weft.1')
    assert.ok(
      neighbours.some((line) => line === `${subnet} lladdr ${value.BackendData.VtepMAC} PERMANENT`),
      neighbours.join('\n')
    )
    if (directRouting) await followsTheRoutes(cluster, near, residents)
  })
}

test('host-gw: direct routes, the MTU of the link, and nothing else in the kernel', { skip }, async () => {
  await using cluster = await Cluster.start({
    hosts: [3],
    network: { Network: '10.244.0.0/16', Backend: { Type: 'host-gw' } }
  })
  await cluster.podOnEach()
  assert.match((await cluster.node(1).exec('cat', ['/run/flannel/subnet.env'])).stdout, /^FLANNEL_MTU=1500$/m)
  assert.equal(
    (await linesOf(cluster.node(1), 'ip', '-o', 'link')).some((line) => line.includes('weft.')),
    false
  )
  const routes = await linesOf(cluster.node(1), 'ip', 'route')
  for (const n of [2, 3])
    assert.ok(
      routes.some((line) => line.includes(` via ${cluster.node(n).address} dev eth0 proto 87`)),
      routes.join('\n')
    )
})

test('pods can not speak to a tunnel, and no host port is the tunnel’s or weftd’s own, now or after a change', {
  skip
}, async () => {
  await using cluster = await Cluster.start({ hosts: [2] })
  const [a, b] = await cluster.podOnEach()
  assert.ok(a && b)
  const script = fileURLToPath(new URL('forge.ts', import.meta.url))
  const ipam = { type: 'host-local', subnet: '172.30.0.0/24', routes: [{ dst: '0.0.0.0/0' }] }
  const other = { name: 'other', type: 'bridge', bridge: 'br-other', isGateway: true, ipam }
  const outsider = await cluster.pod(cluster.node(1), other)
  const senders = () => cluster.node(1).exec('nft', ['list', 'set', 'inet', 'weft', 'tunnel_senders'])
  await until(async () => (await senders()).stdout.includes('"br-other"'), { what: 'the other bridge to be guarded' })
  const vtep = async (n: number) =>
    String(((await cluster.node(n).ip('link', 'show', 'weft.1')) as readonly Json[])[0]?.address)
  const listener = `import('node:dgram').then(({ createSocket }) => {
    const socket = createSocket('udp4', (text) => console.log('got ' + text))
    socket.bind(7777, () => console.log('listening'))
  })`
  for (const [target, victim, source] of [
    [2, b, a],
    [1, a, b]
  ] as const) {
    const heard = victim.pod.spawn(process.execPath, ['-e', listener])
    await until(() => heard.text().includes('listening'), { what: 'the pod to listen' })
    const frame = [cluster.node(target).address, '8472', await vtep(target), source.address, victim.address]
    // A pod of either node, and one of another network, to its own node and to the other one; then the other node
    // itself, as a tunnel does.
    for (const pod of [a.pod, b.pod, outsider.pod]) await pod.exec(process.execPath, [script, ...frame, 'forged'])
    const node = cluster.node(3 - target)
    await node.exec(process.execPath, [script, ...frame, 'from-node'])
    await until(() => heard.text().includes('from-node'), { what: 'what the node sent' })
    assert.doesNotMatch(heard.text(), /forged/)
  }

  const call = (hostPort: number, protocol: string, check = false) => {
    const runtimeConfig = { portMappings: [{ hostPort, containerPort: 80, protocol }] }
    return cluster.call(cluster.node(1), 'ADD', pod.name, pod.netns, { runtimeConfig }, { check })
  }
  const pod = await cluster.node(1).pod(`port${process.pid}`)
  for (const [port, protocol, words] of [
    [8472, 'udp', /8472\/udp is taken by the tunnel to the other nodes \(Backend\.Port\)/],
    [8471, 'tcp', /8471\/tcp is taken by weftd's \/healthz \(--healthz-port\)/]
  ] as const)
    assert.match(JSON.stringify(await call(port, protocol)), words)
  await call(9472, 'udp', true)
  // A change that collides with it: not taken, and not applied by a restart either, until the pod is gone.
  const changed = { Network: '10.244.0.0/16', Backend: { Type: 'vxlan', Port: 9472 } }
  await cluster.etcd.put(`${PREFIX}/config`, JSON.stringify(changed))
  await until(async () => /CONFIG_CHANGED.*needs port 9472\/udp/.test((await cluster.daemon(1).readyz()).body), {
    what: 'the refusal'
  })
  await cluster.daemon(1).kill('SIGTERM')
  cluster.daemon(1).launch()
  const said = async () => (await cluster.daemon(1).readyz()).body
  const words = new RegExp(`Backend\\.Port\\) needs port 9472/udp, which is a host port of .*${pod.name}`)
  await until(async () => words.test(await said()), { what: 'the pod to be named' })
  await cluster.call(cluster.node(1), 'DEL', pod.name, pod.netns)
  await cluster.daemon(1).ready()
  assert.match((await cluster.node(1).exec('ip', ['-d', 'link', 'show', 'type', 'vxlan'])).stdout, /dstport 9472/)
})

test('the largest packet of the pod MTU crosses the tunnel whole', { skip }, async () => {
  await using cluster = await Cluster.start({ hosts: [1, 1] })
  const [a, b] = [await cluster.pod(cluster.node(1)), await cluster.pod(cluster.node(2))]
  await reachEachOther([a, b])
  assert.equal((await a.pod.ping(b.address, { size: 1450 - 28, mtuProbe: true })).received, 1)
  assert.equal((await a.pod.ping(b.address, { size: 1451 - 28, mtuProbe: true })).received, 0)
})

test('pods on one node in bridge and in routed mode reach each other, their node and other nodes', {
  skip
}, async () => {
  await using cluster = await Cluster.start({ hosts: [2] })
  const residents = [
    await cluster.pod(cluster.node(1), { mode: 'bridge' }),
    await cluster.pod(cluster.node(1), { mode: 'routed' }),
    await cluster.pod(cluster.node(1), { mode: 'routed' }),
    await cluster.pod(cluster.node(2), { mode: 'routed' })
  ]
  await reachEachOther(residents)
  for (const resident of residents) assert.equal((await resident.host.ping(resident.address)).received, 1)
})

test('with --ip-masq other hosts see the host’s address, and pods see each other’s', { skip }, async () => {
  await using cluster = await Cluster.start({ hosts: [2], args: ['--ip-masq'] })
  const [a, b] = [await cluster.pod(cluster.node(1)), await cluster.pod(cluster.node(2))]
  await reachEachOther([a, b])
  const seenBy = async (place: { spawn: Cluster['lab']['router']['spawn'] }, address: string) => {
    const capture = place.spawn('tcpdump', ['-n', '-l', '-c', '1', '-i', 'any', 'icmp[icmptype] == icmp-echo'])
    await until(() => capture.text().includes('listening'), { what: 'tcpdump to listen' })
    await until(
      async () => {
        await a.pod.ping(address)
        return capture.ended
      },
      { what: 'a packet' }
    )
    return /IP ([\d.]+) > /.exec(capture.text())?.[1]
  }
  assert.equal(await seenBy(cluster.lab.router, '192.168.10.1'), cluster.node(1).address)
  assert.equal(await seenBy(b.pod, b.address), a.address)
})

/** The route to the second node's pods, as other programs change how the first node reaches it. */
async function followsTheRoutes(cluster: Cluster, near: string, residents: readonly Resident[]): Promise<void> {
  const [node, other] = [cluster.node(1), cluster.node(2).address]
  const leadsTo = (how: string) =>
    until(async () => (await linesOf(node, 'ip', 'route', 'show', `${near}/24`)).some((line) => line.includes(how)), {
      what: `a route ${how}`
    })
  await node.sh(`ip route add ${other}/32 via 192.168.10.1`)
  await leadsTo('dev weft.1')
  await reachEachOther(residents)
  await node.sh(`ip route del ${other}/32`)
  await leadsTo(`via ${other} dev eth0`)
  // The route stays what it is, but a rule before the main table takes the packets.
  const active = async () => (await cluster.daemon(1).readyz()).body
  await node.sh(`ip rule add pref 5270 lookup 52; ip route add ${near}/24 via 192.168.10.1 table 52`)
  const condition = await until(async () => /ROUTE_SHADOWED.*/.exec(await active())?.[0], { what: 'the condition' })
  assert.match(condition, /table 52 .*\(rule 5270: from all lookup 52\)/)
  await node.sh('ip rule del pref 5270')
  const ended = () => until(async () => !(await active()).includes('ROUTE_SHADOWED'), { what: 'its end' })
  await ended()
  // A route to half of the subnet: the cure's command removes it, and leaves weftd's own route where it is.
  await node.sh(`ip route add ${near}/25 via 192.168.10.1`)
  const cure = await until(async () => /ip route del [^;]*/.exec(await active())?.[0], { what: 'the cure' })
  await node.sh(cure)
  await ended()
  await leadsTo(`via ${other} dev eth0`)
}
