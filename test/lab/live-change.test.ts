// The network configuration changes while pods run: no packet between pods is lost, whichever node changes first,
// whatever is killed meanwhile, and beside a flanneld, which changes only when it is restarted.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Cluster, linesOf, logged, PREFIX, type Resident, reachEachOther } from './cluster.ts'
import { cni, type Json } from './cni.ts'
import { Flanneld } from './flanneld.ts'
import type { Host } from './host.ts'
import { missingPeer, peersDirectory } from './peers.ts'
import { pingWhile } from './ping.ts'
import { until } from './run.ts'

const skip = process.getuid?.() === 0 ? false : 'needs root'
const VXLAN = { Type: 'vxlan', DirectRouting: false }
const HOST_GW = { Type: 'host-gw' }
const conf = (backend: Json, network = '10.244.0.0/16') => ({ Network: network, Backend: backend })

type Published = {
  readonly BackendType: string
  readonly BackendData?: { readonly VNI?: number; readonly Port?: number }
}

const leasesOf = async (cluster: Cluster): Promise<readonly Published[]> =>
  [...(await cluster.etcd.list(`${PREFIX}/subnets/`)).values()].map((text) => JSON.parse(text))

/** Writes the configuration; resolves when `count` leases publish what `is` accepts. */
async function change(
  cluster: Cluster,
  next: Json,
  is: (lease: Published) => boolean = () => true,
  count = cluster.nodes.length
): Promise<void> {
  await cluster.etcd.put(`${PREFIX}/config`, JSON.stringify(next))
  await until(async () => (await leasesOf(cluster)).filter(is).length === count, {
    what: `${count} leases that follow ${JSON.stringify(next)}`
  })
}

const isVxlan =
  (vni: number, port = 8472) =>
  ({ BackendType, BackendData }: Published) =>
    BackendType === 'vxlan' && BackendData?.VNI === vni && (BackendData.Port ?? 8472) === port
const isHostGw = ({ BackendType }: Published) => BackendType === 'host-gw'

/** Backends' devices on a host. */
const devices = async (host: Host): Promise<readonly string[]> =>
  (await linesOf(host, 'ip', '-o', 'link')).flatMap((line) => /^\d+: (weft[^:@]*)/.exec(line)?.[1] ?? []).sort()

const only = async (cluster: Cluster, ...names: readonly string[]): Promise<void> => {
  for (const node of cluster.nodes)
    await until(async () => String(await devices(node)) === String(names), { what: `${names} alone on ${node.name}` })
}

/** Of each change how many of the packets between two pods, 200 a second, were lost. */
async function lossOf(
  [from, to]: readonly Resident[],
  changes: readonly (readonly [what: string, () => Promise<void>])[],
  say: (text: string) => void
): Promise<Readonly<Record<string, number>>> {
  const lost: Record<string, number> = {}
  for (const [what, run] of changes) {
    assert.ok(from && to)
    const found = await pingWhile(from.pod, to.address, run)
    say(`${what}: ${found.lost.length} of ${found.sent} packets lost`)
    lost[what] = found.lost.length
  }
  return lost
}

test('no packet is lost over changes of VNI, port, backend, MTU, DirectRouting and Network, and back', {
  skip,
  timeout: 600_000
}, async (t) => {
  await using cluster = await Cluster.start({ hosts: [3], network: conf(VXLAN) })
  const residents = await cluster.podOnEach()
  const to = (backend: Json, is?: (lease: Published) => boolean) => () => change(cluster, conf(backend), is)
  const loss = await lossOf(
    residents,
    [
      ['VNI', to({ ...VXLAN, VNI: 7, Port: 4789 }, isVxlan(7, 4789))],
      ['Port', to({ ...VXLAN, VNI: 7, Port: 4790 }, isVxlan(7, 4790))],
      ['vxlan to host-gw', to(HOST_GW, isHostGw)],
      [
        'host-gw to vxlan, and the old devices end',
        async () => {
          await to(VXLAN, isVxlan(1))()
          await only(cluster, 'weft.1')
        }
      ],
      [
        'DirectRouting',
        async () => {
          await to({ ...VXLAN, DirectRouting: true }, isVxlan(1))()
          for (const node of cluster.nodes)
            await until(async () => (await linesOf(node, 'ip', 'route')).every((line) => !line.includes('weft.1')), {
              what: `plain routes on ${node.name}`
            })
        }
      ],
      [
        'a larger Network',
        async () => {
          await change(cluster, conf({ ...VXLAN, DirectRouting: true }, '10.244.0.0/15'))
          for (const daemon of cluster.daemons)
            await until(
              async () => (await daemon.host.exec('cat', ['/run/flannel/subnet.env'])).stdout.includes('/15'),
              {
                what: `the larger network on ${daemon.host.name}`
              }
            )
        }
      ],
      [
        'away and back at once',
        async () => {
          await cluster.etcd.put(`${PREFIX}/config`, JSON.stringify(conf(HOST_GW, '10.244.0.0/15')))
          await change(cluster, conf({ ...VXLAN, VNI: 9 }, '10.244.0.0/15'), isVxlan(9))
          await only(cluster, 'weft.9')
        }
      ]
    ],
    (text) => t.diagnostic(text)
  )
  assert.deepEqual(new Set(Object.values(loss)), new Set([0]), JSON.stringify(loss))
  const daemon = cluster.daemon(1)
  await logged(daemon, ({ msg }) => msg === 'plan: make weft.7 beside weft.1', 'the plan')
  assert.ok(daemon.log.some(({ msg }) => /^plan: .*route, forward and masquerade for 10\.244\.0\.0\/15/.test(msg)))
  for (const each of cluster.daemons) assert.equal((await each.readyz()).status, 200)
  assert.doesNotMatch((await daemon.readyz()).body, /CONFIG_/)
  await reachEachOther([...residents, await cluster.pod(cluster.node(1))])
})

test('the MTU changes for new pods, running ones keep theirs; what would cut pods off is refused', {
  skip,
  timeout: 300_000
}, async () => {
  await using cluster = await Cluster.start({ hosts: [2], network: conf(VXLAN) })
  const [first] = await cluster.podOnEach()
  assert.ok(first)
  await change(cluster, conf({ ...VXLAN, MTU: 1400 }))
  const mtuOf = async ({ pod }: Resident) =>
    /mtu (\d+)/.exec((await pod.exec('ip', ['link', 'show', 'eth0'])).stdout)?.[1]
  await until(
    async () => (await linesOf(cluster.node(1), 'ip', 'link', 'show', 'weft.1')).join().includes('mtu 1350'),
    {
      what: 'the MTU of the device'
    }
  )
  const later = await until(
    async () => {
      const pod = await cluster.pod(cluster.node(1))
      return (await mtuOf(pod)) === '1350' && pod
    },
    { what: 'a pod with the new MTU' }
  )
  assert.equal(await mtuOf(first), '1450')
  await reachEachOther([first, later])
  await cluster.etcd.put(`${PREFIX}/config`, JSON.stringify(conf(VXLAN, '10.99.0.0/16')))
  const daemon = cluster.daemon(1)
  const said = await logged(daemon, ({ condition }) => condition === 'CONFIG_CHANGED', 'the refusal')
  assert.match(String(said.detail), /this node's subnet .* would not fit any more, and 2 pods would be cut off/)
  assert.equal((await daemon.readyz()).status, 200)
  await reachEachOther([first, later])
})

/** Where a weftd is killed: once this line is in its log, or this is so. */
const moments: readonly (readonly [string, (cluster: Cluster) => Promise<unknown>])[] = [
  ['when it has made its plan', (cluster) => logged(cluster.daemon(1), ({ msg }) => /^plan: /.test(msg), 'the plan')],
  [
    'when it has the new device',
    (cluster) =>
      until(async () => (await devices(cluster.node(1))).includes('weft-gw'), { what: 'the device', everyMs: 2 })
  ],
  [
    'when its lease says so',
    (cluster) => until(async () => (await leasesOf(cluster)).some(isHostGw), { what: 'the lease', everyMs: 5 })
  ],
  [
    'when all have changed',
    (cluster) => until(async () => (await leasesOf(cluster)).every(isHostGw), { what: 'the leases' })
  ]
]

test('a weftd that is killed at any step and starts again ends the change; pods lose nothing', {
  skip,
  timeout: 600_000
}, async (t) => {
  await using cluster = await Cluster.start({ hosts: [3], network: conf(VXLAN) })
  const residents = await cluster.podOnEach()
  const changes = moments.map(([what, moment]): readonly [string, () => Promise<void>] => [
    what,
    async () => {
      await cluster.etcd.put(`${PREFIX}/config`, JSON.stringify(conf(HOST_GW)))
      await moment(cluster)
      await cluster.daemon(1).restart('SIGKILL')
      await change(cluster, conf(HOST_GW), isHostGw)
      await only(cluster, 'weft-gw')
      await change(cluster, conf(VXLAN), isVxlan(1))
      await only(cluster, 'weft.1')
      await cluster.daemon(1).restart()
    }
  ])
  const loss = await lossOf(residents, changes, (text) => t.diagnostic(text))
  assert.deepEqual(new Set(Object.values(loss)), new Set([0]), JSON.stringify(loss))
})

test('a flanneld keeps the old backend until it is restarted, and is reached all the time', {
  skip: skip || missingPeer('bin/flanneld'),
  timeout: 300_000
}, async (t) => {
  await using cluster = await Cluster.start({ hosts: [3], network: conf(VXLAN), start: false })
  const [one, two, three] = [cluster.node(1), cluster.node(2), cluster.node(3)]
  const daemon = await cluster.join(one)
  await cluster.join(two)
  const flanneld = await Flanneld.start(three, { etcd: cluster.etcd })
  cluster.announce('UNDERLAY_LOST')
  const id = 'flannels'
  const pod = await three.pod(id)
  const config = {
    name: 'cbr0',
    cniVersion: '0.3.1',
    plugins: [{ type: 'flannel', delegate: { isDefaultGateway: true } }]
  }

  const call = { config, binDir: `${peersDirectory()}/cni`, containerId: id, netns: pod.netns }
  const { result } = await cni(three, { verb: 'ADD', ...call })
  const [ip] = (result?.ips ?? []) as readonly { readonly address: string }[]
  const theirs = { host: three, pod, id, result: result ?? {}, address: String(ip?.address.split('/')[0]) }
  const ours = await cluster.pod(one)
  await reachEachOther([ours, theirs])
  const { lost, sent } = await pingWhile(ours.pod, theirs.address, async () => {
    await change(cluster, conf(HOST_GW), isHostGw, 2)
    const said = await logged(daemon, ({ condition }) => condition === 'CONFIG_MIXED', 'the node that has not changed')
    assert.match(String(said.detail), new RegExp(`^${three.address.replaceAll('.', '\\.')}: reached as before`))
    assert.deepEqual(await devices(one), ['weft-gw', 'weft.1'])
  })
  t.diagnostic(`while flanneld has not changed: ${lost.length} of ${sent} packets lost`)
  assert.deepEqual(lost, [])
  await flanneld.stop()
  flanneld.launch()
  await flanneld.ready()
  await until(async () => String(await devices(one)) === 'weft-gw', { what: 'the end of vxlan' })
  await reachEachOther([ours, theirs])
  assert.doesNotMatch((await daemon.readyz()).body, /CONFIG_MIXED/)
})
