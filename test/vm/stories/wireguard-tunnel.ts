// Pods of two nodes reach each other through the kernel's own WireGuard, whose module is loaded; with WEFT_LONG=1 also
// those of a node with flanneld, which is taken over and handed back.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Cluster, linesOf, PREFIX, reachEachOther } from '../../lab/cluster.ts'
import { flannelPod } from '../../lab/flannel-pod.ts'
import { Flanneld } from '../../lab/flanneld.ts'
import type { Host } from '../../lab/host.ts'
import { missingPeer } from '../../lab/peers.ts'
import { until } from '../../lab/run.ts'
import { TwoNodes } from './two-nodes.ts'

/** The guest is emulated. */
const READY_MS = 240_000
const MINUTES = { timeout: 1_500_000 }
const wg = async (host: Host, ...words: readonly string[]) => (await linesOf(host, 'wg', ...words)).join('\n')

test(
  'pods reach each other through the kernel’s WireGuard; weftd’s end and a removed peer do no harm',
  MINUTES,
  async () => {
    await using nodes = await TwoNodes.start({
      ...{ iface: 'eth0', underlay: async () => undefined },
      backend: { Type: 'wireguard', PersistentKeepaliveInterval: 25 }
    })
    const [first, second] = nodes.pods
    const [daemon] = nodes.daemons
    assert.ok(first && second && daemon)
    for (const { announced } of nodes.daemons) announced.add('UNDERLAY_LOST')
    const { host } = first
    assert.match((await host.exec('ip', ['-d', 'link', 'show', 'weft-wg'])).stdout, /^\s+wireguard /m, 'of the kernel')
    await nodes.reach()
    await nodes.carriesFullSize()
    assert.match(await wg(host, 'show', 'weft-wg', 'transfer'), /\t[1-9]\d+\t[1-9]\d+$/)
    const before = [await wg(host, 'show', 'weft-wg', 'public-key'), await wg(host, 'show', 'weft-wg', 'allowed-ips')]
    const ping = await first.pod.pingDuring(second.address, () => daemon.restart('SIGKILL'))
    assert.deepEqual(ping.lost, [], `${ping.received} of ${ping.sent} answered`)
    const peer = await wg(host, 'show', 'weft-wg', 'peers')
    await host.exec('wg', ['set', 'weft-wg', 'peer', peer, 'remove'])
    const now = async () => [
      await wg(host, 'show', 'weft-wg', 'public-key'),
      await wg(host, 'show', 'weft-wg', 'allowed-ips')
    ]
    await until(async () => (await now()).join() === before.join(), {
      what: 'the peer to be back',
      deadlineMs: READY_MS
    })
    await nodes.reach()
  }
)

const skip = process.env.WEFT_LONG === '1' ? missingPeer('bin/flanneld') : 'takes minutes more: WEFT_LONG=1'

test('flanneld and weftd share a network; flanneld’s device and key are taken over and handed back', {
  ...MINUTES,
  skip
}, async () => {
  const network = { Network: '10.244.0.0/16', Backend: { Type: 'wireguard' } }
  await using cluster = await Cluster.start({ hosts: [2], start: false, network })
  const [first, second] = [cluster.node(1), cluster.node(2)]
  const flanneld = await Flanneld.start(first, { etcd: cluster.etcd, wait: false })
  await flanneld.ready(READY_MS)
  await cluster.join(second, { deadlineMs: READY_MS })
  const [old, far] = [await flannelPod(first, 'old'), await cluster.pod(second)]
  await reachEachOther([old, far])
  const key = await wg(first, 'show', 'flannel-wg', 'public-key')
  const leases = await cluster.etcd.list(`${PREFIX}/subnets/`)

  // Its end takes the device along; the key is in its file.
  cluster.announce('UNDERLAY_LOST')
  await flanneld.stop()
  assert.deepEqual(
    (await linesOf(first, 'ip', '-o', 'link', 'show')).filter((line) => line.includes('-wg')),
    []
  )
  await cluster.join(first, { deadlineMs: READY_MS })
  cluster.announce('UNDERLAY_LOST')
  assert.equal(await wg(first, 'show', 'weft-wg', 'public-key'), key)
  assert.deepEqual([...(await cluster.etcd.list(`${PREFIX}/subnets/`)).keys()], [...leases.keys()])
  await reachEachOther([old, far])

  // What flanneld leaves when it is killed is adopted under its name, without a lost packet.
  await cluster.daemon(1).stop()
  await first.exec('ip', ['link', 'del', 'weft-wg'])
  flanneld.launch()
  await flanneld.ready(READY_MS)
  await reachEachOther([old, far])
  const ping = await far.pod.pingDuring(old.address, async () => {
    flanneld.kill('SIGKILL')
    cluster.daemon(1).launch()
    await cluster.daemon(1).ready(READY_MS)
  })
  assert.deepEqual(ping.lost, [], `${ping.received} of ${ping.sent} answered`)
  assert.equal(await wg(first, 'show', 'flannel-wg', 'public-key'), key)
  assert.match((await linesOf(first, 'ip', 'route')).join('\n'), /^10\.244\.\d+\.0\/24 dev flannel-wg proto 87/m)

  // Handed back: flanneld makes its device anew, with the same key.
  await cluster.daemon(1).stop()
  flanneld.launch()
  await flanneld.ready(READY_MS)
  await reachEachOther([old, far])
  assert.equal(await wg(first, 'show', 'flannel-wg', 'public-key'), key)
})
