// Our executables called in CRI-O's order: what disappears when VERSION is wrong, and fails pods when CHECK is late,
// would show here.
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { supportedVersions } from '../../plugins/cni/version.ts'
import { pluginTypes } from '../../plugins/types/registry.ts'
import { BIN, Cluster } from '../lab/cluster.ts'
import { cni } from '../lab/cni.ts'
import { addressesOf } from '../lab/cnitool.ts'
import { Crio } from '../lab/crio.ts'
import type { Pod } from '../lab/pod.ts'
import { podTraces } from '../lab/traces.ts'

const skip = process.getuid?.() === 0 ? false : 'needs root'
const plugins = [
  { type: 'weft', capabilities: { bandwidth: true, ips: true, mac: true, 'io.kubernetes.cri.pod-annotations': true } }
]
const capabilities = {
  cgroupPath: '/lab',
  'io.kubernetes.cri.pod-annotations': { 'kubernetes.io/config.source': 'api' }
}

describe("CRI-O's order of calls", { skip, timeout: 600_000 }, () => {
  const up = new AsyncDisposableStack()
  let cluster: Cluster

  before(
    async () => {
      cluster = up.use(await Cluster.start({ hosts: [2] }))
    },
    { timeout: 120_000 }
  )
  after(() => up.disposeAsync(), { timeout: 120_000 })

  async function leavingNothing(story: () => Promise<void>): Promise<void> {
    const earlier = await podTraces(cluster.node(1))
    await story()
    assert.deepEqual(await podTraces(cluster.node(1)), earlier)
  }

  for (const type of pluginTypes) {
    test(`VERSION of ${type} lists every version from 0.4.0 on`, async () => {
      const { result } = await cni(cluster.node(1), {
        verb: 'VERSION',
        config: { cniVersion: '1.1.0', type },
        binDir: BIN
      })
      const announced = result?.supportedVersions as readonly string[]
      assert.deepEqual(
        supportedVersions.filter((version) => version >= '0.4.0' && !announced.includes(version)),
        []
      )
    })
  }

  for (const cniVersion of ['0.3.1', '0.4.0', '1.0.0', '1.1.0']) {
    test(`a list of version ${cniVersion} is loaded, CHECK passes at once after ADD, DEL frees all`, () =>
      leavingNothing(async () => {
        const crio = await Crio.start(cluster.node(1), { cniVersion, name: 'lab', plugins })
        await using pod = await cluster.node(1).pod(`crio${cniVersion}`)
        await crio.setUp(pod.name, pod.netns, capabilities)
        assert.equal((await pod.ping(cluster.node(2).address)).received, 1)
        await crio.tearDown(pod.name)
      }))
  }

  const ipam = {
    type: 'host-local',
    ranges: [[{ subnet: '10.79.0.0/24' }], [{ subnet: 'fd00:79::/64' }]],
    routes: [{ dst: '0.0.0.0/0' }, { dst: '::/0' }]
  }
  for (const [about, plugin] of [
    ['bridge with two families', { type: 'bridge', bridge: 'crio0', isGateway: true, ipMasq: true, ipam }],
    [
      'bridge with a default gateway',
      { type: 'bridge', bridge: 'crio0', isDefaultGateway: true, ipam: { ...ipam, routes: [] } }
    ],
    ['ptp with two families', { type: 'ptp', ipMasq: true, ipam }],
    ['macvlan with two families', { type: 'macvlan', master: 'eth0', ipam }]
  ] as const) {
    test(`CHECK passes at once after ADD of ${about}`, () =>
      leavingNothing(async () => {
        const crio = await Crio.start(cluster.node(1), { cniVersion: '1.1.0', name: 'crio', plugins: [plugin] })
        await using pod = await cluster.node(1).pod(about.replaceAll(' ', '-'))
        await crio.setUp(pod.name, pod.netns)
        for (const gateway of plugin.type === 'macvlan' ? [] : ['10.79.0.1', 'fd00:79::1']) {
          const ping = await pod.ping(gateway)
          assert.equal(ping.received, 1, ping.text)
        }
        await crio.tearDown(pod.name)
      }))
  }

  test('CHECK passes at once after ADD of weft, portmap, bandwidth, tuning and firewall in one chain', () =>
    leavingNothing(async () => {
      const portmap = { type: 'portmap', capabilities: { portMappings: true } }
      const bandwidth = { type: 'bandwidth', ingressRate: 8e6, ingressBurst: 8e5, egressRate: 8e6, egressBurst: 8e5 }
      const tuning = { type: 'tuning', mtu: 1300, sysctl: { 'net.ipv4.conf.IFNAME.arp_filter': '1' } }
      const firewall = { type: 'firewall', backend: 'iptables' }
      const chain = [{ type: 'weft' }, portmap, bandwidth, tuning, firewall]
      const list = { cniVersion: '1.1.0', name: 'lab', plugins: chain }
      const crio = await Crio.start(cluster.node(1), list)
      await using pod = await cluster.node(1).pod('chain')
      const portMappings = [{ hostPort: 8095, containerPort: 80, protocol: 'tcp' }]
      await crio.setUp(pod.name, pod.netns, { portMappings })
      const [link] = (await pod.ip('link', 'show', 'eth0')) as readonly { readonly mtu: number }[]
      assert.equal(link?.mtu, 1300)
      assert.equal((await pod.ping(cluster.node(2).address)).received, 1)
      await crio.tearDown(pod.name)
    }))

  test('twenty pods at once pass CHECK, and are deleted in any order', () =>
    leavingNothing(async () => {
      const crio = await Crio.start(cluster.node(1), { cniVersion: '1.1.0', name: 'lab', plugins })
      await using stack = new AsyncDisposableStack()
      const pods: readonly Pod[] = await Promise.all(
        Array.from({ length: 20 }, async (_, n) => stack.use(await cluster.node(1).pod(`many${n}`)))
      )
      const results = await Promise.all(pods.map((pod) => crio.setUp(pod.name, pod.netns, capabilities)))
      assert.equal(new Set(results.flatMap(addressesOf)).size, pods.length)
      await Promise.all(pods.toReversed().map((pod) => crio.tearDown(pod.name)))
    }))

  test('GC with a null list at start frees leftovers of a crash; listed pods survive the next GC', () =>
    leavingNothing(async () => {
      const list = { cniVersion: '1.1.0', name: 'lab', plugins }
      const crashed = await Crio.start(cluster.node(1), list)
      {
        await using lost = await cluster.node(1).pod('lost')
        await crashed.setUp(lost.name, lost.netns)
      }
      const crio = await Crio.start(cluster.node(1), list)
      assert.deepEqual(await podTraces(cluster.node(1)), [])
      await using kept = await cluster.node(1).pod('kept')
      await crio.setUp(kept.name, kept.netns)
      await crio.gc([{ containerID: kept.name, ifname: 'eth0' }])
      assert.equal((await kept.ping(cluster.node(2).address)).received, 1)
      await crio.tearDown(kept.name)
    }))

  test('DEL with the configuration of ADD frees a pod after the list on disk has changed, and without a namespace', () =>
    leavingNothing(async () => {
      const dataDir = '/var/lib/cni/networks'
      const crio = await Crio.start(cluster.node(1), { cniVersion: '1.0.0', name: 'lab', plugins })
      await using pod = await cluster.node(1).pod('changed')
      await crio.setUp(pod.name, pod.netns)
      crio.list = {
        cniVersion: '1.1.0',
        name: 'other',
        plugins: [{ type: 'weft', ipam: { dataDir: `${dataDir}/elsewhere` } }]
      }
      await crio.tearDown(pod.name, '')
    }))
})
