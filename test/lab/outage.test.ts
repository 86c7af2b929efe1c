// The store is unreachable, compacted, loses a member, loses all data: traffic and pods are unaffected, and the daemon
// catches up.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Cluster, linesOf, logged, PREFIX, reachEachOther } from './cluster.ts'
import { until } from './run.ts'
import type { LogLine } from './weftd.ts'

const skip = process.getuid?.() === 0 ? false : 'needs root'
const conditions = async (cluster: Cluster, n: number) => (await cluster.daemon(n).readyz()).body

test('etcd is down for a minute: traffic flows, pods are served, and changes in the meantime are caught up', {
  skip,
  timeout: 300_000
}, async () => {
  await using cluster = await Cluster.start({ hosts: [2, 1] })
  const residents = await cluster.podOnEach()
  const [a, , c] = residents
  assert.ok(a && c)
  const during = await a.pod.pingDuring(c.address, async () => {
    await cluster.etcd.stop()
    const begun = Date.now()
    await until(async () => (await conditions(cluster, 1)).includes('STORE_UNREACHABLE'), {
      what: 'the condition'
    })
    residents.push(await cluster.pod(cluster.node(1)), await cluster.pod(cluster.node(3)))
    await until(() => Date.now() - begun > 60_000, { what: 'a minute to pass', deadlineMs: 70_000, everyMs: 500 })
    await cluster.etcd.restart()
  })
  assert.deepEqual(during.lost, [])
  await reachEachOther(residents)
  const late = await cluster.lab.addHost({ name: 'late' })
  await cluster.join(late)
  await reachEachOther([...residents, await cluster.pod(late)])
  await until(async () => !(await conditions(cluster, 1)).includes('STORE_UNREACHABLE'), {
    what: 'the condition to go'
  })
})

test('a compaction while the daemon is disconnected does not hide what happened before it', {
  skip,
  timeout: 300_000
}, async () => {
  await using cluster = await Cluster.start({ hosts: [2] })
  const node = cluster.node(1)
  await node.sh(`iptables -A OUTPUT -p tcp --dport 2379 -j DROP`)
  await until(async () => (await conditions(cluster, 1)).includes('STORE_UNREACHABLE'), {
    what: 'the condition'
  })
  await cluster.etcd.put(
    `${PREFIX}/subnets/10.244.200.0-24`,
    JSON.stringify({
      PublicIP: cluster.node(2).address.replace(/\d+$/, '77'),
      PublicIPv6: null,
      BackendType: 'vxlan',
      BackendData: { VNI: 1, VtepMAC: '02:00:00:00:00:77' }
    })
  )
  await cluster.etcd.put('/other', '1')
  await cluster.etcd.compact()
  await node.sh('iptables -D OUTPUT -p tcp --dport 2379 -j DROP')
  await until(async () => (await linesOf(node, 'ip', 'route')).some((line) => line.startsWith('10.244.200.0/24')), {
    what: 'the lease from before the compaction'
  })
})

test('one of three members is killed: leases continue', { skip, timeout: 300_000 }, async () => {
  await using cluster = await Cluster.start({ hosts: [2], etcd: { members: 3 } })
  await cluster.etcd.members[0]?.stop('SIGKILL')
  const late = await cluster.lab.addHost({ name: 'late' })
  await cluster.join(late, { deadlineMs: 60_000 })
  const residents = [await cluster.pod(cluster.node(1)), await cluster.pod(late)]
  await reachEachOther(residents)
})

test('an etcd that comes back empty removes nothing, and every node writes its lease again with the same subnet', {
  skip,
  timeout: 300_000
}, async () => {
  await using cluster = await Cluster.start({ hosts: [2, 1] })
  const residents = await cluster.podOnEach()
  const before = new Set((await cluster.etcd.list(`${PREFIX}/subnets/`)).keys())
  const [a, , c] = residents
  assert.ok(a && c)
  const during = await a.pod.pingDuring(c.address, async () => {
    await cluster.etcd.restart({ empty: true })
    await cluster.etcd.put(`${PREFIX}/config`, JSON.stringify({ Network: '10.244.0.0/16', Backend: { Type: 'vxlan' } }))
    await until(
      async () => {
        assert.deepEqual(new Set((await cluster.etcd.list(`${PREFIX}/subnets/`)).keys()), before)
        return true
      },
      { what: 'all leases to be written again' }
    )
  })
  assert.deepEqual(during.lost, [])
  await reachEachOther(residents)
})

test('a malformed lease, and younger ones of what another node holds, are reported and skipped', {
  skip,
  timeout: 300_000
}, async () => {
  await using cluster = await Cluster.start({ hosts: [2] })
  await cluster.etcd.put(`${PREFIX}/subnets/10.244.210.0-24`, '{"PublicIP":')
  await cluster.etcd.put(
    `${PREFIX}/subnets/10.244.211.0-24`,
    '{"PublicIP":"192.168.99.9","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"no"}}'
  )
  await until(async () => (await conditions(cluster, 1)).includes('10.244.21'), { what: 'the condition' })
  assert.match(await cluster.daemon(1).metrics(), /weft_lease_events_total\{[^}]*malformed[^}]*\} [1-9]/)
  const residents = await cluster.podOnEach()
  const held = [...(await cluster.etcd.list(`${PREFIX}/subnets/`))]
  const [key, value] = held.find(([, text]) => text.includes(cluster.node(2).address)) ?? assert.fail()
  const thief = (n: number, mac = `02:00:00:00:00:0${n}`) =>
    JSON.stringify({ PublicIP: `192.168.99.${n}`, BackendType: 'vxlan', BackendData: { VNI: 1, VtepMAC: mac } })
  await cluster.etcd.put(key.replace(/0-24$/, '128-25'), thief(1))
  await cluster.etcd.put(key.replace(/0-24$/, '0-25'), thief(2))
  await cluster.etcd.put(key.replace(/0-24$/, '7-24'), thief(5))
  await cluster.etcd.put(`${PREFIX}/subnets/${residents[1]?.address}-32`, thief(3))
  await cluster.etcd.put(`${PREFIX}/subnets/10.244.212.0-24`, thief(4, JSON.parse(value).BackendData.VtepMAC))
  const isTold = async () => {
    const text = await conditions(cluster, 1)
    return /SUBNET_CONFLICT.*the older one, lease [0-9.]+\.0-24, is used/.test(text) && /VTEP_MAC_CONFLICT/.test(text)
  }
  await until(isTold, { what: 'the conflicts' })
  await reachEachOther(residents)
  await cluster.daemon(1).restart('SIGKILL')
  await until(isTold, { what: 'the conflicts again' })
  await reachEachOther(residents)
  const routes = async () => (await linesOf(cluster.node(1), 'ip', 'route')).filter((line) => line.includes('proto 87'))
  assert.equal((await routes()).length, 1, (await routes()).join('\n'))
  // Public addresses that no other node has, as this host's kernel sees them; docker0's only while it is there.
  await cluster
    .node(1)
    .sh('ip link add docker0 type bridge; ip addr add 172.17.0.1/16 dev docker0; ip link set docker0 up')
  for (const [n, PublicIP] of ['172.17.0.1', '192.168.10.255', '169.254.7.7'].entries()) {
    const lease = { PublicIP, BackendType: 'vxlan', BackendData: { VNI: 1, VtepMAC: `02:00:00:00:01:0${n}` } }
    await cluster.etcd.put(`${PREFIX}/subnets/10.244.22${n}.0-24`, JSON.stringify(lease))
  }
  for (const n of [0, 1, 2]) {
    const isRefused = ({ lease, reason = '' }: LogLine) =>
      lease === `10.244.22${n}.0-24` && /publishes/.test(String(reason))
    await logged(cluster.daemon(1), isRefused, `10.244.22${n}.0-24 to be refused`)
  }
  assert.equal((await routes()).length, 1, (await routes()).join('\n'))
  await cluster.node(1).sh('ip link del docker0')
  await until(async () => (await routes()).some((line) => line.startsWith('10.244.220.0/24')), { what: 'the first' })
  assert.equal((await routes()).length, 2, (await routes()).join('\n'))
})

test('etcd with TLS, client certificates, user and password', { skip, timeout: 300_000 }, async () => {
  await using cluster = await Cluster.start({
    hosts: [2],
    start: false,
    etcd: { tls: true, auth: { password: 'p4ss' } }
  })
  const certificates = cluster.etcd.certificates ?? assert.fail('no certificates')
  const args = [
    `--etcd-cafile=${certificates.ca}`,
    `--etcd-certfile=${certificates.cert}`,
    `--etcd-keyfile=${certificates.key}`,
    '-etcd-username',
    'root'
  ]
  const wrong = await cluster.join(cluster.node(2), { args, env: { WEFTD_ETCD_PASSWORD: 'wrong' }, wait: false })
  await until(async () => (await wrong.readyz()).body.includes('STORE_DENIED'), {
    what: 'the refusal to be told'
  })
  await wrong.stop()
  cluster.daemons.splice(0)
  await Promise.all(cluster.nodes.map((node) => cluster.join(node, { args, env: { FLANNELD_ETCD_PASSWORD: 'p4ss' } })))
  await cluster.podOnEach()
})

test('a weftd that starts while etcd is down serves pods with its earlier lease, and all is in sync when etcd is back', {
  skip,
  timeout: 300_000
}, async () => {
  await using cluster = await Cluster.start({ hosts: [2, 1] })
  const residents = await cluster.podOnEach()
  const before = await cluster.etcd.list(`${PREFIX}/subnets/`)
  const [a, , c] = residents
  assert.ok(a && c)
  const during = await a.pod.pingDuring(c.address, async () => {
    await cluster.etcd.stop()
    await cluster.daemon(1).restart('SIGKILL')
    const answer = await cluster.daemon(1).readyz()
    assert.match(answer.body, /STORE_UNREACHABLE \(blocks nothing/)
    residents.push(await cluster.pod(cluster.node(1)), await cluster.pod(cluster.node(1), { mode: 'routed' }))
    await reachEachOther(residents)
    await cluster.etcd.restart()
    await logged(cluster.daemon(1), ({ msg }) => msg === 'lease renewed', 'the store to confirm the lease')
  })
  assert.deepEqual(during.lost, [])
  assert.deepEqual(await cluster.etcd.list(`${PREFIX}/subnets/`), before)
  const late = await cluster.lab.addHost({ name: 'late' })
  await cluster.join(late)
  await reachEachOther([...residents, await cluster.pod(late)])
  assert.equal((await cluster.daemon(1).readyz()).body, 'ready\n')
})

test('a weftd that starts while etcd is down learns afterwards that another node has its subnet', {
  skip,
  timeout: 300_000
}, async () => {
  await using cluster = await Cluster.start({ hosts: [1] })
  const daemon = cluster.daemon(1)
  await daemon.kill('SIGKILL')
  const [[key, value] = assert.fail('no lease')] = await cluster.etcd.list(`${PREFIX}/subnets/`)
  const publicIp = cluster.node(1).address.replace(/\d+$/, '99')
  const theirs = { ...(JSON.parse(value) as object), PublicIP: publicIp }
  await cluster.etcd.put(key, JSON.stringify({ ...theirs, BackendData: { VNI: 1, VtepMAC: '02:00:00:00:00:99' } }))
  await cluster.node(1).sh('iptables -A OUTPUT -p tcp --dport 2379 -j DROP')
  daemon.launch()
  await daemon.ready()
  await cluster.pod(cluster.node(1))
  await cluster.node(1).sh('iptables -D OUTPUT -p tcp --dport 2379 -j DROP')
  const readyz = async () => (await daemon.readyz()).body
  await until(async () => new RegExp(`LEASE_LOST .*leased to ${publicIp}`).test(await readyz()), {
    what: 'the condition LEASE_LOST'
  })
  assert.doesNotMatch(await readyz(), /LEASE_MALFORMED/)
})

test('a list that stays empty is believed after a while: routes to nodes that no longer exist are removed', {
  skip,
  timeout: 300_000
}, async () => {
  await using cluster = await Cluster.start({ hosts: [2] })
  const far = async () =>
    (await linesOf(cluster.node(1), 'ip', 'route')).filter((line) => line.includes(`via ${cluster.node(2).address} `))
  await until(async () => (await far()).length === 1, { what: 'the route to the other node' })
  await cluster.daemon(2).stop()
  await cluster.etcd.restart({ empty: true })
  await cluster.etcd.put(`${PREFIX}/config`, JSON.stringify({ Network: '10.244.0.0/16', Backend: { Type: 'vxlan' } }))
  await until(async () => (await conditions(cluster, 1)).includes('LIST_DOUBTED'), {
    what: 'the doubt'
  })
  assert.equal((await far()).length, 1)
  await until(async () => (await far()).length === 0, { what: 'the doubt to end', deadlineMs: 120_000 })
  assert.equal((await conditions(cluster, 1)).includes('LIST_DOUBTED'), false)
})

test('two nodes with one address: one restart each and an address of its own give each a subnet and a MAC', {
  skip,
  timeout: 300_000
}, async () => {
  await using cluster = await Cluster.start({ hosts: [2], start: false })
  const nodes = [cluster.node(1), cluster.node(2)]
  for (const node of nodes)
    await node.sh('ip link add nat0 type bridge; ip addr add 10.0.2.15/24 dev nat0; ip link set nat0 up')
  const leases = async () =>
    [...(await cluster.etcd.list(`${PREFIX}/subnets/`)).values()].map((text) => JSON.parse(text))
  const first = await cluster.join(cluster.node(1), { args: ['--iface=nat0'] })
  const second = await cluster.join(cluster.node(2), { args: ['--iface=nat0'] })
  await until(async () => /LEASE_LOST/.test((await first.readyz()).body), { what: 'the condition LEASE_LOST' })
  await first.restart()
  assert.equal((await leases()).length, 2, 'a restarted node leases a subnet of its own')
  assert.doesNotMatch((await second.readyz()).body, /LEASE_LOST/)
  for (const daemon of [first, second]) await daemon.stop()
  const own = await Promise.all(nodes.map((node) => cluster.join(node, { args: ['--iface=eth0'] })))
  const found = await leases()
  assert.deepEqual(found.map(({ PublicIP }) => PublicIP).sort(), nodes.map(({ address }) => address).sort())
  assert.equal(new Set(found.map(({ BackendData }) => BackendData.VtepMAC)).size, 2)
  await reachEachOther(await Promise.all(nodes.map((node) => cluster.pod(node))))
  for (const daemon of own)
    await until(async () => (await daemon.readyz()).body === 'ready\n', { what: 'no condition' })
})
