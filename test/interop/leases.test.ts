// flanneld and weftd honour each other's leases: renewals, expiry, reservations, restarts, changed MACs and public
// addresses, and leases that somebody deletes. With etcd's own leases, of seconds where they are to end.
import assert from 'node:assert/strict'
import { rmSync } from 'node:fs'
import { describe, test } from 'node:test'
import { Cluster, linesOf, PREFIX, type Resident, reachEachOther } from '../lab/cluster.ts'
import { leaseOf, leasesOf, type StoredLease } from '../lab/families.ts'
import { flannelPod } from '../lab/flannel-pod.ts'
import { Flanneld } from '../lab/flanneld.ts'
import type { Host } from '../lab/host.ts'
import { missingPeer } from '../lab/peers.ts'
import { until } from '../lab/run.ts'

const skip = process.getuid?.() === 0 ? missingPeer('bin/flanneld') : 'needs root'
const network = { Network: '10.244.0.0/16', Backend: { Type: 'vxlan', DirectRouting: false } }
const args = ['--ip-masq']

/** flanneld on node 1 and weftd on node 2, with a pod each. */
class Pair implements AsyncDisposable {
  readonly cluster: Cluster
  readonly flanneld: Flanneld
  readonly theirs: Resident
  readonly ours: Resident

  private constructor(cluster: Cluster, flanneld: Flanneld, theirs: Resident, ours: Resident) {
    this.cluster = cluster
    this.flanneld = flanneld
    this.theirs = theirs
    this.ours = ours
  }

  static async start(): Promise<Pair> {
    const cluster = await Cluster.start({ hosts: [2], start: false, network })
    try {
      const flanneld = await Flanneld.start(cluster.node(1), { etcd: cluster.etcd })
      await cluster.join(cluster.node(2), { args })
      const [theirs, ours] = [await flannelPod(cluster.node(1), 'theirs'), await cluster.pod(cluster.node(2))]
      await reachEachOther([theirs, ours])
      return new Pair(cluster, flanneld, theirs, ours)
    } catch (error) {
      await cluster[Symbol.asyncDispose]()
      throw error
    }
  }

  get here(): Host {
    return this.cluster.node(2)
  }

  get there(): Host {
    return this.cluster.node(1)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.cluster[Symbol.asyncDispose]()
  }
}

/** The etcd lease that a key is attached to, in decimal; 0 for none, undefined without the key. */
async function etcdLeaseOf({ etcd }: Cluster, key: string): Promise<bigint | undefined> {
  const { stdout } = await etcd.ctl(['get', `${PREFIX}/subnets/${key}`, '-w', 'json'])
  // Larger than a number of JavaScript holds exactly.
  const lease = /"lease":(\d+)/.exec(stdout)?.[1]
  return stdout.includes('"key":') ? BigInt(lease ?? 0) : undefined
}

const secondsLeft = async ({ etcd }: Cluster, lease: bigint): Promise<number> => {
  const { stdout } = await etcd.ctl(['lease', 'timetolive', lease.toString(16)])
  return Number(/remaining\((\d+)s\)/.exec(stdout)?.[1] ?? -1)
}

/** Attaches a key to a new etcd lease of this many seconds. */
async function endsIn({ etcd }: Cluster, { key, value }: StoredLease, seconds: number): Promise<bigint> {
  const { stdout } = await etcd.ctl(['lease', 'grant', String(seconds)])
  const id = /lease ([\da-f]+) granted/.exec(stdout)?.[1] ?? assert.fail(stdout)
  await etcd.ctl(['put', `--lease=${id}`, `${PREFIX}/subnets/${key}`], { input: JSON.stringify(value) })
  return BigInt(`0x${id}`)
}

/** Routes, neighbour and FDB entries on `host` that lead to the holder of this lease. */
async function wayTo(host: Host, { subnets: [subnet = ''], value }: StoredLease): Promise<readonly string[]> {
  const mac = value.BackendData?.VtepMAC ?? assert.fail('no MAC')
  const found = await host.sh(`ip route show ${subnet}; ip neigh show nud permanent; bridge fdb show`)
  const [held = ''] = subnet.split('/')
  return found.stdout
    .split('\n')
    .filter(
      (line) =>
        line.startsWith(`${held} `) || line.startsWith(subnet) || (line.startsWith(mac) && line.includes(' dst '))
    )
}

/** Gives eth0 another address. */
const readdress = (host: Host, address: string) =>
  host.sh(`ip addr del ${host.address}/24 dev eth0; ip addr add ${address}/24 dev eth0
    ip route replace default via 192.168.10.1`)

describe('flanneld and weftd beside each other', { skip, timeout: 600_000 }, () => {
  test('renew their leases before they end, and nothing on the way is touched; one that ends takes the way along', async () => {
    await using pair = await Pair.start()
    const { cluster, here, there, theirs, ours } = pair
    const [their, our] = [await leaseOf(cluster, there), await leaseOf(cluster, here)]
    const [wayThere, wayHere] = [await wayTo(here, their), await wayTo(there, our)]
    assert.ok(wayThere.length === 3 && wayHere.length === 3, [...wayThere, ...wayHere].join('\n'))

    const { lost } = await ours.pod.pingDuring(theirs.address, async () => {
      const given = await Promise.all([endsIn(cluster, their, 6), endsIn(cluster, our, 6)])
      const ended = Date.now() + 8_000
      // flanneld takes a new lease of etcd's, weftd renews the one it finds.
      await until(async () => (await etcdLeaseOf(cluster, their.key)) !== given[0], { what: 'flanneld to renew' })
      await until(() => Date.now() > ended, { what: 'the end of both' })
      assert.ok((await secondsLeft(cluster, given[1])) > 0)
      assert.equal(await etcdLeaseOf(cluster, our.key), given[1])
      assert.ok((await secondsLeft(cluster, (await etcdLeaseOf(cluster, their.key)) ?? 0n)) > 80_000)
    })
    assert.deepEqual(lost, [])
    assert.deepEqual([await wayTo(here, their), await wayTo(there, our)], [wayThere, wayHere])

    pair.flanneld.kill('SIGKILL')
    await endsIn(cluster, their, 2)
    await until(async () => (await wayTo(here, their)).length === 0, { what: 'the way to the dead node to go' })
    assert.equal((await leasesOf(cluster)).length, 1)
    pair.flanneld.launch()
    await pair.flanneld.ready()
    await there.sh('ip link del cni0')
    const young = await flannelPod(there, 'young')
    await reachEachOther([young, ours])
    const second = await leaseOf(cluster, there)

    await cluster.daemon(2).kill('SIGKILL')
    await endsIn(cluster, our, 2)
    await until(async () => (await wayTo(there, our)).length === 0, { what: 'flanneld to remove the way' })
    cluster.daemon(2).launch()
    await cluster.daemon(2).ready()
    assert.equal((await leaseOf(cluster, here)).key, our.key, 'the same subnet again')
    await reachEachOther([young, ours])
    assert.equal((await wayTo(here, second)).length, 3)
  })

  test('keep reservations: each takes its own, neither another’s, and who finds none free waits', async () => {
    const small = { ...network, Network: '10.244.0.0/22', SubnetLen: 24 }
    await using cluster = await Cluster.start({ hosts: [3], start: false, network: small })
    const [one, two, three] = [cluster.node(1), cluster.node(2), cluster.node(3)]
    const reserve = (n: number, PublicIP: string) =>
      cluster.etcd.put(`${PREFIX}/subnets/10.244.${n}.0-24`, JSON.stringify({ PublicIP }))
    await reserve(1, one.address)
    await reserve(2, two.address)
    await reserve(3, '192.168.10.200')
    await using _flanneld = await Flanneld.start(one, { etcd: cluster.etcd })
    await cluster.join(two, { args })
    const late = await cluster.join(three, { args, wait: false })
    assert.equal((await leaseOf(cluster, one)).key, '10.244.1.0-24')
    assert.equal((await leaseOf(cluster, two)).key, '10.244.2.0-24')
    // weftd leaves a reservation what it is; flanneld gives its own a day.
    assert.equal(await etcdLeaseOf(cluster, '10.244.2.0-24'), 0n)
    await reachEachOther([await flannelPod(one, 'theirs'), await cluster.pod(two)])
    await until(async () => (await late.readyz()).body.includes('SUBNETS_EXHAUSTED'), { what: 'the condition' })
    for (const host of [one, two]) assert.deepEqual(await linesOf(host, 'ip', 'route', 'show', '10.244.3.0/24'), [])
    await cluster.etcd.ctl(['del', `${PREFIX}/subnets/10.244.3.0-24`])
    await late.ready()
    const residents = [await flannelPod(one, 'young'), await cluster.pod(two), await cluster.pod(three)]
    await reachEachOther(residents)
  })

  test('are restarted under ping without a loss; a new MAC of either is followed, and so is a lease that was deleted', async () => {
    await using pair = await Pair.start()
    const { cluster, here, there, theirs, ours, flanneld } = pair
    const daemon = cluster.daemon(2)
    const before = await leasesOf(cluster)
    const { lost } = await ours.pod.pingDuring(theirs.address, async () => {
      await flanneld.stop()
      flanneld.launch()
      await flanneld.ready()
      await daemon.restart('SIGKILL')
    })
    assert.deepEqual(lost, [])
    assert.deepEqual(await leasesOf(cluster), before)

    // flanneld takes a random MAC for a device that it has to make.
    const [their, our] = [await leaseOf(cluster, there), await leaseOf(cluster, here)]
    await flanneld.stop()
    await there.sh('ip link del flannel.1')
    flanneld.launch()
    await flanneld.ready()
    await reachEachOther([theirs, ours])
    const renewed = await leaseOf(cluster, there)
    assert.equal(renewed.key, their.key)
    assert.notEqual(renewed.value.BackendData?.VtepMAC, their.value.BackendData?.VtepMAC)
    await until(
      async () =>
        (await linesOf(here, 'bridge', 'fdb', 'show', 'dev', 'weft.1')).filter((line) => line.includes(' dst '))
          .length === 1,
      { what: 'the entry of the old MAC to go' }
    )

    // weftd keeps the MAC that its lease publishes, whoever has written it.
    await daemon.kill('SIGKILL')
    const BackendData = { VNI: 1, VtepMAC: '02:aa:bb:cc:dd:ee' }
    await cluster.etcd.put(`${PREFIX}/subnets/${our.key}`, JSON.stringify({ ...our.value, BackendData }))
    await here.sh('ip link del weft.1; rm -f /run/weft/lease*')
    daemon.launch()
    await daemon.ready()
    assert.deepEqual((await leaseOf(cluster, here)).value.BackendData, BackendData)
    await reachEachOther([theirs, ours])

    await cluster.etcd.ctl(['del', `${PREFIX}/subnets/${our.key}`])
    await until(async () => (await leaseOf(cluster, here)).key === our.key, { what: 'weftd to write its lease again' })
    await reachEachOther([theirs, ours])
    // flanneld ends with its lease; the other way stays as it is until it has another.
    await cluster.etcd.ctl(['del', `${PREFIX}/subnets/${their.key}`])
    await until(async () => (await wayTo(here, renewed)).length === 0, { what: 'the way to go' })
    await flanneld.stop()
    flanneld.launch()
    await flanneld.ready()
    await there.sh('ip link del cni0')
    await reachEachOther([await flannelPod(there, 'young'), ours])
  })

  test('follow each other’s public address', async () => {
    await using pair = await Pair.start()
    const { cluster, here, there, theirs, ours, flanneld } = pair
    const our = await leaseOf(cluster, here)
    await readdress(here, '192.168.10.99')
    const moved = async () => (await leasesOf(cluster)).find(({ key }) => key === our.key)?.value.PublicIP
    await until(async () => (await moved()) === '192.168.10.99', { what: 'the lease to tell the new address' })
    await reachEachOther([theirs, ours])

    // flanneld has to be restarted, and takes another subnet, whether or not subnet.env is there.
    await flanneld.stop()
    await readdress(there, '192.168.10.98')
    rmSync(there.path('/run/flannel/subnet.env'), { force: true })
    flanneld.launch()
    await flanneld.ready()
    await until(async () => (await leasesOf(cluster)).some(({ value }) => value.PublicIP === '192.168.10.98'), {
      what: 'the second lease'
    })
    await there.sh('ip link del cni0')
    await reachEachOther([await flannelPod(there, 'young'), ours])
  })
})
