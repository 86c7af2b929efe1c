// The udp backend beside flanneld's: mixed nodes reach each other, and a node is taken over and handed back on the same
// port.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Cluster, linesOf, PREFIX, reachEachOther } from '../lab/cluster.ts'
import { flannelPod } from '../lab/flannel-pod.ts'
import { Flanneld } from '../lab/flanneld.ts'
import { missingPeer } from '../lab/peers.ts'
import { proxyOf, transfer, UDP } from '../lab/udp-scene.ts'

const skip = process.getuid?.() === 0 ? missingPeer('bin/flanneld') : 'needs root'
const timeout = 300_000
const main = fileURLToPath(new URL('../../daemon/main.ts', import.meta.url))

test('udp: pods of nodes with flanneld and of nodes with weftd reach each other, by ping and TCP', {
  skip,
  timeout
}, async () => {
  await using cluster = await Cluster.start({ hosts: [3], start: false, network: UDP })
  await using _flanneld = await Flanneld.start(cluster.node(1), { etcd: cluster.etcd })
  await Promise.all([cluster.join(cluster.node(2)), cluster.join(cluster.node(3))])
  const [theirs, ours] = [await flannelPod(cluster.node(1), 'f1'), await cluster.pod(cluster.node(2))]
  await reachEachOther([theirs, ours, await cluster.pod(cluster.node(3))])
  const full = await ours.pod.ping(theirs.address, { size: 1_444, mtuProbe: true, count: 3 })
  assert.equal(full.received, 3, full.text)
  await transfer(ours, theirs, '-n', '20M')
  await transfer(ours, theirs, '-n', '20M', '-R')
  // flanneld's and weftd's alike, to the byte.
  assert.deepEqual(
    [...(await cluster.etcd.list(`${PREFIX}/subnets/`)).values()].sort(),
    cluster.nodes.map(({ address }) => `{"PublicIP":"${address}","PublicIPv6":null}`).sort()
  )
})

test('udp: weftd takes over from flanneld and hands back, on the same port and with the same device name', {
  skip,
  timeout
}, async (t) => {
  await using cluster = await Cluster.start({ hosts: [2], start: false, network: UDP })
  const [first, second] = [cluster.node(1), cluster.node(2)]
  const flanneld = await Flanneld.start(first, { etcd: cluster.etcd })
  await cluster.join(second)
  cluster.announce('UNDERLAY_LOST', 'UNDERLAY_MTU')
  const [old, far] = [await flannelPod(first, 'old'), await cluster.pod(second)]
  await reachEachOther([old, far])
  const leases = await cluster.etcd.list(`${PREFIX}/subnets/`)

  const takeOver = await far.pod.pingDuring(old.address, async () => {
    await flanneld.stop()
    await cluster.join(first)
    await reachEachOther([old, await cluster.pod(first, { name: 'cbr0' }), far])
  })
  t.diagnostic(`${takeOver.longestGapMs} ms without packets, its device and route being gone with flanneld`)
  assert.deepEqual(await cluster.etcd.list(`${PREFIX}/subnets/`), leases)

  const giveBack = await far.pod.pingDuring(old.address, async () => {
    await cluster.daemon(1).stop()
    await first.exec(process.execPath, [main, 'clean'], { timeoutMs: 60_000 })
    assert.equal(await proxyOf(first), undefined)
    assert.deepEqual(await linesOf(first, 'ip', 'route', 'show', 'proto', '87'), [])
    flanneld.launch()
    await flanneld.ready()
    await reachEachOther([old, far])
  })
  t.diagnostic(`${giveBack.longestGapMs} ms without packets`)
  const [link = ''] = await linesOf(first, 'ip', '-d', '-o', 'link', 'show', 'flannel0')
  assert.match(link, /tun type tun pi off vnet_hdr off persist off/)
})
