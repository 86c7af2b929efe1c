// Networks with both families, and with IPv6 alone, for each backend that has them: keys, devices, routes, both addresses
// in one ADD without waiting, the largest packet, and a restart under traffic.
import assert from 'node:assert/strict'
import { isIPv6 } from 'node:net'
import { test } from 'node:test'
import { Cluster, linesOf, type Resident } from './cluster.ts'
import type { Json } from './cni.ts'
import { address6Of, addressesOf, DUAL, ipv6Of, leaseOf, leasesOf, ONLY_IPV6, reachInFamilies } from './families.ts'
import type { Host } from './host.ts'

const skip = process.getuid?.() === 0 ? false : 'needs root'

type Row = {
  readonly name: string
  readonly backend: Json
  /** Hosts on each segment of the underlay. */
  readonly hosts: readonly number[]
  readonly mtu: number
  /** Ways from node 1 to node 2, and where there is one to node 3. */
  readonly near: 'plain' | 'tunnel'
}
const rows: readonly Row[] = [
  { name: 'vxlan', backend: { Type: 'vxlan', DirectRouting: false }, hosts: [2, 1], mtu: 1430, near: 'tunnel' },
  {
    name: 'vxlan with DirectRouting',
    backend: { Type: 'vxlan', DirectRouting: true },
    hosts: [2, 1],
    mtu: 1430,
    near: 'plain'
  },
  { name: 'host-gw', backend: { Type: 'host-gw' }, hosts: [2], mtu: 1500, near: 'plain' }
]
const stacks = [
  { name: 'dual stack', conf: DUAL, families: [4, 6] },
  { name: 'IPv6 only', conf: ONLY_IPV6, families: [6] }
] as const

/** One pod in each mode on each node. */
const podsInBothModes = (cluster: Cluster): Promise<Resident[]> =>
  Promise.all(
    cluster.nodes.flatMap((node) => [cluster.pod(node, { mode: 'bridge' }), cluster.pod(node, { mode: 'routed' })])
  )

/** Addresses for which the kernel still looks for duplicates, or has found one. */
const undecided = async (place: { sh: Host['sh'] }): Promise<string> =>
  (await place.sh('ip -6 -o addr show scope global tentative; ip -6 -o addr show scope global dadfailed')).stdout

for (const row of rows) {
  for (const stack of stacks) {
    test(`${row.name}, ${stack.name}: pods in both modes reach each other everywhere, without a change after a restart`, {
      skip,
      timeout: 300_000
    }, async () => {
      const network = { ...stack.conf, Backend: row.backend }
      await using cluster = await Cluster.start({ hosts: row.hosts, ipv6: true, network })
      const residents = await podsInBothModes(cluster)
      for (const resident of residents) {
        assert.deepEqual(
          addressesOf(resident)
            .map((address) => (isIPv6(address) ? 6 : 4))
            .sort(),
          stack.families
        )
        assert.equal(await undecided(resident.pod), '', 'an address that can not be used yet')
      }
      await reachInFamilies(residents, stack.families)
      for (const node of cluster.nodes) assert.equal(await undecided(node), '')
      for (const node of cluster.nodes) await leaseIsAsFlannels(cluster, node, stack.families, row.backend)
      await isProgrammed(cluster, row, stack.families)
      const [first] = residents
      assert.ok(first)
      const { stdout: env } = await cluster.node(1).exec('cat', ['/run/flannel/subnet.env'])
      assert.match(env, new RegExp(`^FLANNEL_MTU=${row.mtu}$`, 'm'))
      assert.match(env, /^FLANNEL_IPV6_NETWORK=fd00:244::\/48$/m)
      assert.match(env, /^FLANNEL_IPV6_SUBNET=fd00:244:0:[\da-f]+::1\/64$/m)
      assert.equal(/^FLANNEL_NETWORK=/m.test(env), stack.families.length === 2)
      await largestPacketPasses(residents, row.mtu)
      await restartChangesNothing(cluster, residents)
    })
  }
}

/** Key and value, as flannel writes them. */
async function leaseIsAsFlannels(
  cluster: Cluster,
  node: Host,
  families: readonly number[],
  backend: Json
): Promise<void> {
  const { key, value } = await leaseOf(cluster, node)
  const has4 = families.includes(4)
  assert.match(key, has4 ? /^10\.244\.\d+\.0-24&fd00:244:0:[\da-f]+::-64$/ : /^fd00:244:0:[\da-f]+::-64$/)
  assert.equal(value.PublicIP, has4 ? node.address : '0.0.0.0')
  assert.equal(value.PublicIPv6, node.address6)
  assert.equal(value.BackendType, backend.Type)
  const isTunnel = backend.Type === 'vxlan'
  assert.equal(value.BackendData?.VNI, isTunnel && has4 ? 1 : undefined)
  assert.equal(value.BackendV6Data?.VNI, isTunnel ? 1 : undefined)
  if (isTunnel && has4) assert.notEqual(value.BackendData?.VtepMAC, value.BackendV6Data?.VtepMAC)
}

/** Routes of node 1 to the others and, through the tunnel, their neighbour and FDB entries, in each family. */
async function isProgrammed(cluster: Cluster, row: Row, families: readonly number[]): Promise<void> {
  const [one, ...others] = cluster.nodes
  assert.ok(one)
  for (const other of others) {
    const { subnets, value } = await leaseOf(cluster, other)
    assert.equal(subnets.length, families.length)
    for (const subnet of subnets) {
      const [ip = ''] = subnet.split('/')
      const to = isIPv6(ip) ? address6Of(other) : other.address
      if (row.near === 'plain' && other.segment === one.segment) await hasRoute(one, subnet, `via ${to} dev eth0`)
      else await hasTunnel(one, subnet, to, isIPv6(ip) ? value.BackendV6Data?.VtepMAC : value.BackendData?.VtepMAC)
    }
  }
}

/** One route, and this. */
async function hasRoute(host: Host, subnet: string, way: string): Promise<void> {
  const routes = await linesOf(host, 'ip', subnet.includes(':') ? '-6' : '-4', 'route', 'show', subnet)
  assert.ok(routes.length === 1 && routes[0]?.includes(way), `${subnet} ${way}: ${routes.join('\n')}`)
}

async function hasTunnel(host: Host, subnet: string, to: string, mac = ''): Promise<void> {
  const [device, hop] = subnet.includes(':') ? ['weft6.1', linkLocalOf(mac)] : ['weft.1', subnet.split('/')[0] ?? '']
  await hasRoute(host, subnet, `via ${hop} dev ${device}`)
  const neighbours = await linesOf(host, 'ip', 'neigh', 'show', 'dev', device, 'nud', 'permanent')
  assert.ok(neighbours.includes(`${hop} lladdr ${mac} PERMANENT`), neighbours.join('\n'))
  const fdb = await linesOf(host, 'bridge', 'fdb', 'show', 'dev', device)
  assert.ok(fdb.includes(`${mac} dst ${to} self permanent`), fdb.join('\n'))
}

/** By which IPv6 routes through the tunnel lead to the device with this MAC. */
function linkLocalOf(mac: string): string {
  const [first = '', ...rest] = mac.split(':')
  const octets = [(Number.parseInt(first, 16) ^ 2).toString(16), ...rest]
  const words = [octets[0], octets[1], octets[2], 'ff', 'fe', octets[3], octets[4], octets[5]]
  const groups = [0, 2, 4, 6].map((at) => Number.parseInt(`${words[at]}${words[at + 1]?.padStart(2, '0')}`, 16))
  return `fe80::${groups.map((group) => group.toString(16)).join(':')}`
}

/** From the first node to the last: whole up to the pods' MTU, and nothing larger. */
async function largestPacketPasses(residents: readonly Resident[], mtu: number): Promise<void> {
  const [from, to] = [residents[0], residents.at(-1)]
  assert.ok(from && to)
  const sized = async (size: number) => (await from.pod.ping(ipv6Of(to), { size: size - 48, mtuProbe: true })).received
  assert.equal(await sized(mtu), 1)
  assert.equal(await sized(mtu + 1), 0)
}

/** weftd is killed: pods go on, and the next one finds everything as it should be. */
async function restartChangesNothing(cluster: Cluster, residents: readonly Resident[]): Promise<void> {
  const [from, to] = [residents[0], residents.at(-1)]
  assert.ok(from && to)
  const before = await leasesOf(cluster)
  const { lost } = await from.pod.pingDuring(ipv6Of(to), async () => {
    await using monitor = cluster.node(1).spawn('ip', ['monitor', 'link', 'address', 'route', 'neigh'])
    await cluster.daemon(1).restart('SIGKILL')
    const removed = monitor
      .text()
      .split('\n')
      .filter((line) => /^Deleted (?!.*(FAILED|STALE|REACHABLE|DELAY|PROBE|INCOMPLETE|fe80|ff0))/.test(line))
    assert.deepEqual(removed, [])
  })
  assert.deepEqual(lost, [])
  assert.deepEqual(await leasesOf(cluster), before)
}
