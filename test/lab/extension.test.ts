// The extension backend: pods of hosts whose commands come from the network configuration reach each other, also beside
// flanneld; a killed weftd undoes what has gone meanwhile, and nothing is run without the node's own flags.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Cluster, type ClusterOptions, linesOf, logged, PREFIX, reachEachOther } from './cluster.ts'
import { flannelPod } from './flannel-pod.ts'
import { Flanneld } from './flanneld.ts'
import { missingPeer } from './peers.ts'
import { until } from './run.ts'
import { weftdCommand } from './weftd.ts'

const skip = process.getuid?.() === 0 ? false : 'needs root'

/** host-gw by commands, without a shell. */
const DIRECT: ClusterOptions['network'] = {
  Network: '10.244.0.0/16',
  Backend: {
    Type: 'extension',
    PreStartupCommand: 'hostname',
    SubnetAddCommand: 'ip route add $SUBNET via $PUBLIC_IP',
    SubnetRemoveCommand: 'ip route del $SUBNET via $PUBLIC_IP'
  }
}

/** flannel's vxlan by commands of a shell; what one prints before its lease the others read. */
const TUNNEL: ClusterOptions['network'] = {
  Network: '10.244.0.0/16',
  Backend: {
    Type: 'extension',
    PreStartupCommand:
      'ip link del own-vx 2>/dev/null; ip link add own-vx type vxlan id 7 dstport 8472 nolearning && ip -o link show own-vx | grep -o "ether [^ ]*" | cut -d " " -f 2',
    PostStartupCommand: 'ip addr replace $(echo $SUBNET | cut -d/ -f1)/32 dev own-vx && ip link set own-vx up',
    SubnetAddCommand:
      'read MAC; IP=$(echo $SUBNET | cut -d/ -f1); ip neigh replace $IP lladdr $MAC dev own-vx && bridge fdb replace $MAC dev own-vx self dst $PUBLIC_IP && ip route replace $SUBNET via $IP dev own-vx onlink',
    SubnetRemoveCommand: 'ip route del $SUBNET dev own-vx',
    ShutdownCommand: 'ip link del own-vx'
  }
}

type Stored = { readonly PublicIP: string; readonly BackendType: string; readonly BackendData: string }

const leasesOf = async (cluster: Cluster): Promise<ReadonlyMap<string, Stored & { readonly key: string }>> =>
  new Map(
    [...(await cluster.etcd.list(`${PREFIX}/subnets/`))].map(([key, value]) => {
      const stored = JSON.parse(value) as Stored
      return [stored.PublicIP, { ...stored, key }]
    })
  )

const subnetIn = (key: string): string => key.slice(`${PREFIX}/subnets/`.length).replace('-', '/')

test('commands make direct routes; a killed weftd repeats nothing, and removes what has gone meanwhile', {
  skip,
  timeout: 300_000
}, async () => {
  await using cluster = await Cluster.start({ hosts: [3], network: DIRECT, args: ['--allow-extension'] })
  const [first, third] = [cluster.node(1), cluster.node(3)]
  const [a, b] = await cluster.podOnEach()
  assert.ok(a && b)
  const leases = await leasesOf(cluster)
  for (const node of cluster.nodes) {
    const { BackendType, BackendData } = leases.get(node.address) ?? assert.fail(node.name)
    assert.deepEqual({ BackendType, BackendData }, { BackendType: 'extension', BackendData: node.name })
  }
  const routes = () => linesOf(first, 'ip', 'route', 'show', 'proto', 'boot')
  const lost = await a.pod.pingDuring(b.address, () => cluster.daemon(1).restart('SIGKILL'))
  assert.deepEqual(lost.lost, [], 'packets lost while weftd was restarted')
  assert.equal(
    cluster.daemon(1).log.some(({ command }) => command !== undefined),
    false,
    cluster.daemon(1).text
  )

  await cluster.daemon(1).kill('SIGKILL')
  await cluster.daemon(3).kill('SIGTERM')
  const gone = leases.get(third.address)?.key ?? assert.fail('no lease of the third node')
  await cluster.etcd.ctl(['del', gone])
  assert.ok((await routes()).some((line) => line.startsWith(subnetIn(gone))))
  cluster.daemon(1).launch()
  await cluster.daemon(1).ready()
  await until(async () => !(await routes()).some((line) => line.startsWith(subnetIn(gone))), {
    what: 'its route to go'
  })
  assert.equal((await a.pod.ping(b.address)).received, 1)

  await cluster.daemon(1).kill('SIGTERM')
  const [program, ...args] = weftdCommand()
  const cleaned = await first.exec(program, [...args, 'clean', '--allow-extension'], {
    check: false,
    timeoutMs: 120_000
  })
  assert.equal(cleaned.code, 0, cleaned.stderr)
  assert.deepEqual(
    (await routes()).filter((line) => line.startsWith('10.244.')),
    []
  )
})

test('commands of a shell make a tunnel of their own, with what each node prints; it is gone at the end', {
  skip,
  timeout: 300_000
}, async () => {
  const args = ['--allow-extension', '--allow-extension-shell']
  await using cluster = await Cluster.start({ hosts: [1, 1], network: TUNNEL, args })
  const [a, b] = await cluster.podOnEach()
  assert.ok(a && b)
  const [route = ''] = await linesOf(cluster.node(1), 'ip', 'route', 'get', b.address)
  assert.match(route, /dev own-vx/)
  await cluster.daemon(1).kill('SIGTERM')
  assert.equal(
    (await linesOf(cluster.node(1), 'ip', '-o', 'link')).some((line) => line.includes('own-vx')),
    false
  )
  // The device has another MAC then, which the other node is told by the lease.
  await cluster.daemon(1).restart()
  await reachEachOther([a, b])
})

test('without its flags a node refuses the commands by name, and a command that fails is a condition', {
  skip,
  timeout: 300_000
}, async () => {
  const add = '[ ! -e /run/stop ] || { echo no way >&2; exit 4; }; ip route replace $SUBNET via $PUBLIC_IP'
  const network = { Network: '10.244.0.0/16', Backend: { Type: 'extension', SubnetAddCommand: add } }
  await using cluster = await Cluster.start({ hosts: [3], network, start: false })
  const shell = ['--allow-extension', '--allow-extension-shell']
  cluster.announce('UNDERLAY_LOST')
  const [off, words] = [
    await cluster.join(cluster.node(1), { wait: false }),
    await cluster.join(cluster.node(2), { wait: false, args: ['--allow-extension'] })
  ]
  const says = (daemon: typeof off, what: RegExp) =>
    until(async () => what.test((await daemon.readyz().catch(() => ({ body: '' }))).body), { what: String(what) })
  await says(off, /CONFIG_INVALID.*Backend\.SubnetAddCommand: this node does not run commands.*--allow-extension /s)
  await says(words, /CONFIG_INVALID.*needs a shell.*--allow-extension-shell/s)
  await Promise.all([off.stop(), words.stop()])

  await cluster.node(3).sh('touch /run/stop')
  const third = await cluster.join(cluster.node(3), { args: shell })
  const second = await cluster.join(cluster.node(2), { args: shell })
  await says(third, /COMMAND_FAILED.*ended with status 4, and said "no way"/s)
  await cluster.node(3).sh('rm /run/stop')
  await until(async () => !(await third.readyz()).body.includes('COMMAND_FAILED'), { what: 'its end' })
  await reachEachOther([await cluster.pod(cluster.node(3)), await cluster.pod(cluster.node(2))])
  await logged(second, ({ command }) => command === 'Backend.SubnetAddCommand', 'its line')
})

test('beside flanneld with the same configuration', {
  skip: skip || missingPeer('bin/flanneld'),
  timeout: 300_000
}, async () => {
  await using cluster = await Cluster.start({ hosts: [2], start: false, network: DIRECT })
  await using _flanneld = await Flanneld.start(cluster.node(1), { etcd: cluster.etcd })
  await cluster.join(cluster.node(2), { args: ['--allow-extension', '--ip-masq'] })
  await reachEachOther([await flannelPod(cluster.node(1), 'f1'), await cluster.pod(cluster.node(2))])
  const values = [...(await leasesOf(cluster)).values()]
  assert.deepEqual(
    values.map((value) => Object.keys(value)),
    [...Array(2)].map(() => ['PublicIP', 'PublicIPv6', 'BackendType', 'BackendData', 'key'])
  )
  assert.deepEqual(
    values.map(({ BackendData }) => BackendData).sort(),
    cluster.nodes.map(({ name }) => name)
  )
})
