// Nodes join, leave, change address and restart; fifty start at once.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Cluster, linesOf, PREFIX, reachEachOther } from './cluster.ts'
import type { Host } from './host.ts'
import type { PingDuring } from './ping.ts'
import { until } from './run.ts'
import type { Weftd } from './weftd.ts'

const skip = process.getuid?.() === 0 ? false : 'needs root'
const vxlanOnly = { Network: '10.244.0.0/16', Backend: { Type: 'vxlan', DirectRouting: false } }

test('a node joins and is reachable; it leaves and nothing of it remains', { skip, timeout: 300_000 }, async () => {
  await using cluster = await Cluster.start({ hosts: [2], network: vxlanOnly })
  const a = await cluster.pod(cluster.node(1))
  const host = await cluster.lab.addHost({ name: 'late' })
  const late = await cluster.join(host, { args: ['-v', '1'] })
  const isDetailed = (daemon: Weftd) =>
    daemon.log.some(({ level, msg }) => level === 20 && msg === 'lease held in etcd')
  assert.deepEqual([cluster.daemon(1), late].map(isDetailed), [false, true], 'details are told with -v and not without')
  const b = await cluster.pod(host)
  await reachEachOther([a, b])
  const leases = await cluster.etcd.list(`${PREFIX}/subnets/`)
  const [key] =
    [...leases].find(([, value]) => value.includes(host.address)) ?? assert.fail('no lease of the late node')
  await late.stop()
  await cluster.etcd.ctl(['del', key])
  const subnet = key.slice(`${PREFIX}/subnets/`.length).replace('-24', '')
  await until(
    async () => {
      const node = cluster.node(1)
      const all = [
        ...(await linesOf(node, 'ip', 'route')),
        ...(await linesOf(node, 'bridge', 'fdb', 'show', 'dev', 'weft.1')),
        ...(await linesOf(node, 'ip', 'neigh', 'show', 'dev', 'weft.1', 'nud', 'permanent'))
      ]
      return !all.some((line) => line.includes(subnet) || line.includes(host.address))
    },
    { what: 'everything of the node that left to go' }
  )
})

const OTHER_ADDRESS = '192.168.10.200'
/** Gives a node that address in place of its own. */
const readdress = (node: Host) =>
  node.sh(`ip addr add ${OTHER_ADDRESS}/24 dev eth0
    ip addr del ${node.address}/24 dev eth0
    ip addr show dev eth0 | grep -q ${OTHER_ADDRESS} || ip addr add ${OTHER_ADDRESS}/24 dev eth0
    ip route replace default via 192.168.10.1`)

test('a node gets the address of one that is gone and whose lease is still there: it keeps its subnet and the others follow', {
  skip,
  timeout: 300_000
}, async () => {
  // The network contains the addresses of the nodes, as it may.
  const network = { Network: '192.168.0.0/16', Backend: { Type: 'vxlan', DirectRouting: true } }
  await using cluster = await Cluster.start({ hosts: [2, 1], network, start: false })
  const gone = { PublicIP: OTHER_ADDRESS, BackendType: 'vxlan', BackendData: { VNI: 1, VtepMAC: '02:00:00:00:00:99' } }
  await cluster.etcd.put(`${PREFIX}/subnets/192.168.200.0-24`, JSON.stringify(gone))
  await Promise.all(cluster.nodes.map((node) => cluster.join(node)))
  const residents = await cluster.podOnEach()
  await readdress(cluster.node(2))
  const withAddress = (values: Iterable<string>) => [...values].filter((value) => value.includes(OTHER_ADDRESS))
  await until(async () => withAddress((await cluster.etcd.list(`${PREFIX}/subnets/`)).values()).length === 2, {
    what: 'the lease to tell the new address'
  })
  assert.equal((await cluster.etcd.list(`${PREFIX}/subnets/`)).size, 4)
  await reachEachOther(residents)
  const told = (await cluster.daemon(1).readyz()).body
  assert.match(told, new RegExp(`PUBLIC_IP_CONFLICT .*${OTHER_ADDRESS} is published by .*192\\.168\\.200\\.0-24`))
  // A virtual address is never published in its place, not even while it is gone.
  const before = await cluster.etcd.list(`${PREFIX}/subnets/`)
  const node = cluster.node(2)
  const isLost = async () => (await cluster.daemon(2).readyz()).body.includes('LINK_DOWN')
  await node.sh(`ip addr add 192.168.10.222/32 dev eth0; ip addr del ${OTHER_ADDRESS}/24 dev eth0`)
  await until(isLost, { what: 'the loss of the address to be noticed' })
  await node.sh(`ip addr add ${OTHER_ADDRESS}/24 dev eth0; ip route replace default via 192.168.10.1`)
  await until(async () => !(await isLost()), { what: 'its return to be noticed' })
  await cluster.daemon(2).restart('SIGTERM')
  await reachEachOther(residents)
  assert.deepEqual(await cluster.etcd.list(`${PREFIX}/subnets/`), before)
})

test('a node gets another public address while its weftd is stopped: it keeps its subnet and the others follow', {
  skip,
  timeout: 300_000
}, async () => {
  await using cluster = await Cluster.start({ hosts: [2, 1] })
  const residents = await cluster.podOnEach()
  const daemon = cluster.daemon(2)
  const before = [...(await cluster.etcd.list(`${PREFIX}/subnets/`)).keys()].sort()
  await daemon.kill('SIGKILL')
  await readdress(cluster.node(2))
  daemon.launch()
  await daemon.ready()
  assert.deepEqual([...(await cluster.etcd.list(`${PREFIX}/subnets/`)).keys()].sort(), before)
  await reachEachOther(residents)
})

test('the daemon is killed and restarted under ping without a lost packet, and keeps subnet and VTEP MAC', {
  skip,
  timeout: 300_000
}, async () => {
  await using cluster = await Cluster.start({ hosts: [2, 1] })
  const residents = await cluster.podOnEach()
  const [a, b, c] = residents
  assert.ok(a && b && c)
  const before = await cluster.etcd.list(`${PREFIX}/subnets/`)
  for (const to of [b, c]) {
    const ping: PingDuring<void> = await a.pod.pingDuring(to.address, async () => {
      for (const daemon of cluster.daemons) {
        await daemon.restart('SIGKILL')
        await daemon.restart('SIGTERM')
      }
    })
    assert.deepEqual(ping.lost, [], `${ping.received} of ${ping.sent} answered`)
  }
  assert.deepEqual(await cluster.etcd.list(`${PREFIX}/subnets/`), before)
  const d = await cluster.pod(cluster.node(1))
  assert.notEqual(d.address, a.address)
  await reachEachOther([...residents, d])
})

test('pods that vanish while the daemon is stopped do not stop it, and DEL cleans up after them', {
  skip
}, async () => {
  await using cluster = await Cluster.start({ hosts: [1] })
  const resident = await cluster.pod(cluster.node(1))
  await cluster.daemon(1).kill('SIGKILL')
  await resident.pod[Symbol.asyncDispose]()
  cluster.daemon(1).launch()
  await cluster.daemon(1).ready()
  await cluster.call(cluster.node(1), 'DEL', resident.id, '')
  assert.equal((await linesOf(cluster.node(1), 'ls', '/var/lib/cni/networks/lab')).includes(resident.address), false)
  assert.deepEqual(
    (await linesOf(cluster.node(1), 'ip', '-o', 'link')).filter(
      (line) => line.includes('veth') && !line.includes('eth0')
    ),
    []
  )
})

test('fifty daemons start at once and each gets a subnet of its own', { skip, timeout: 300_000 }, async () => {
  await using cluster = await Cluster.start({
    hosts: [50],
    start: false,
    network: { Network: '10.244.0.0/16', Backend: { Type: 'host-gw' } }
  })
  await Promise.all(cluster.nodes.map((node) => cluster.join(node, { wait: false })))
  await Promise.all(cluster.daemons.map((daemon) => daemon.ready(200_000)))
  const leases = await cluster.etcd.list(`${PREFIX}/subnets/`)
  assert.equal(leases.size, 50)
  assert.equal(new Set([...leases.values()].map((value) => JSON.parse(value).PublicIP)).size, 50)
  await until(
    async () =>
      (await linesOf(cluster.node(1), 'ip', 'route')).filter((line) => line.includes('proto 87')).length === 49,
    { what: '49 routes on node 1' }
  )
})
