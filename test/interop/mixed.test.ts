// One etcd and three hosts: two flanneld and one weftd, then one flanneld and two weftd, for each backend and stack that
// both have. Pods reach each other throughout, and no ping is lost while a node changes hands, but with udp;
// with both families it is handed back, too.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Cluster, type ClusterOptions, linesOf, type Resident } from '../lab/cluster.ts'
import { addressesOf, DUAL, leaseOf, leasesOf, reachInFamilies } from '../lab/families.ts'
import { flannelPod } from '../lab/flannel-pod.ts'
import { Flanneld } from '../lab/flanneld.ts'
import { missingPeer } from '../lab/peers.ts'
import { become } from '../lab/probe-scene.ts'

const skip = process.getuid?.() === 0 ? missingPeer('bin/flanneld') : 'needs root'

type Row = {
  readonly name: string
  readonly network: NonNullable<ClusterOptions['network']>
  /** On each segment of the underlay: the last host is the one that changes hands. */
  readonly hosts: readonly number[]
  readonly families: readonly (4 | 6)[]
  /** flanneld's device goes with it, and packets are lost until weftd has made its own. */
  readonly hasGap?: true
}
const IPV4 = { Network: DUAL.Network }
const vxlan = { Type: 'vxlan' }
const direct = { Type: 'vxlan', DirectRouting: true }
const hostGw = { Type: 'host-gw' }
const rows: readonly Row[] = [
  { name: 'vxlan', network: { ...IPV4, Backend: vxlan }, hosts: [2, 1], families: [4] },
  { name: 'vxlan with DirectRouting', network: { ...IPV4, Backend: direct }, hosts: [2, 1], families: [4] },
  { name: 'host-gw', network: { ...IPV4, Backend: hostGw }, hosts: [3], families: [4] },
  { name: 'udp', network: { ...IPV4, Backend: { Type: 'udp' } }, hosts: [2, 1], families: [4], hasGap: true },
  { name: 'dual-stack vxlan', network: { ...DUAL, Backend: vxlan }, hosts: [2, 1], families: [4, 6] },
  {
    name: 'dual-stack vxlan with DirectRouting',
    network: { ...DUAL, Backend: direct },
    hosts: [2, 1],
    families: [4, 6]
  },
  { name: 'dual-stack host-gw', network: { ...DUAL, Backend: hostGw }, hosts: [3], families: [4, 6] }
]

for (const { name, network, hosts, families, hasGap } of rows) {
  test(`${name}: pods of nodes with flanneld and of nodes with weftd reach each other, two to one and one to two`, {
    skip,
    timeout: 300_000
  }, async () => {
    await using cluster = await Cluster.start({ hosts, start: false, ipv6: families.includes(6), network })
    const [one, two, three] = [cluster.node(1), cluster.node(2), cluster.node(3)]
    const args = ['--ip-masq']
    await using _first = await Flanneld.start(one, { etcd: cluster.etcd })
    await using third = await Flanneld.start(three, { etcd: cluster.etcd })
    await cluster.join(two, { args })
    const [f1, w2, f3] = [await flannelPod(one, 'f1'), await cluster.pod(two), await flannelPod(three, 'f3')]
    await reachInFamilies([f1, w2, f3], families)
    // Its kernel answers, whoever set up its device. From behind the router: on one link a plain route is taken soon.
    if (name === 'vxlan') await become(cluster, { '2 3 translated': 'whole' })

    const before = { leases: await leasesOf(cluster), lease: await leaseOf(cluster, three) }
    const handOver = async () => {
      await third.stop()
      await cluster.join(three, { args })
      const young = await cluster.pod(three, { name: 'cbr0' })
      await reachInFamilies([f1, w2, f3, young], families)
    }
    await (hasGap ? handOver() : whileReached(w2, f3, handOver))
    assert.deepEqual(await leasesOf(cluster), before.leases)
    assert.equal(before.lease.subnets.length, families.length)
    if (!families.includes(6)) return
    // flanneld keeps a route of ours that is as it wants it, and replaces others.
    const destinations = async () =>
      (await linesOf(three, 'ip', '-6', 'route', 'show', 'root', 'fd00:244::/48')).map((line) => line.split(' ')[0])
    const routes = await destinations()
    await whileReached(w2, f3, async () => {
      await cluster.daemon(3).stop()
      third.launch()
      await third.ready()
      await reachInFamilies([f1, w2, f3, await flannelPod(three, 'again')], families)
    })
    assert.deepEqual(await destinations(), routes)
  })
}

/** No ping between the pods is lost meanwhile, in any family. */
async function whileReached(from: Resident, to: Resident, work: () => Promise<void>): Promise<void> {
  const ping = async ([address, ...others]: readonly string[]): Promise<void> => {
    if (address === undefined) return work()
    const { lost } = await from.pod.pingDuring(address, () => ping(others))
    assert.deepEqual(lost, [], `packets to ${address} lost`)
  }
  await ping(addressesOf(to))
}
