// Objects that other programs change in the kernel are repaired, the program is named, and only our objects are
// touched.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Cluster, linesOf, logged, reachEachOther } from './cluster.ts'
import type { Host } from './host.ts'
import { until } from './run.ts'
import { sample } from './weftd.ts'

const skip = process.getuid?.() === 0 ? false : 'needs root'
const vxlanOnly = { Network: '10.244.0.0/16', Backend: { Type: 'vxlan', DirectRouting: false } }

/** The destination of a route through the tunnel, once there is one. */
const tunnelRoute = (node: Host): Promise<string> =>
  until(async () => (await linesOf(node, 'ip', 'route')).find((line) => line.includes('onlink'))?.split(' ')[0], {
    what: 'a route'
  })

const damages: readonly (readonly [string, string, string])[] = [
  ['a deleted route', 'ip route del $(ip route | grep onlink | head -1 | cut -d" " -f1)', 'route'],
  ['a flushed set of routes', 'ip route flush proto 87', 'route'],
  [
    'a deleted FDB entry',
    'bridge fdb del $(bridge fdb show dev weft.1 | grep dst | head -1 | cut -d" " -f1) dev weft.1',
    'fdb'
  ],
  [
    'a deleted neighbour',
    'ip neigh del $(ip neigh show nud permanent dev weft.1 | head -1 | cut -d" " -f1) dev weft.1',
    'neighbour'
  ],
  [
    'a route that points elsewhere',
    'ip route replace $(ip route | grep onlink | head -1 | cut -d" " -f1) via 192.168.10.1',
    'route'
  ],
  [
    'a route of ours behind another',
    'ip route prepend $(ip route | grep onlink | head -1 | cut -d" " -f1) via 192.168.10.1 proto static',
    'route'
  ],
  ['a changed VTEP MAC', 'ip link set weft.1 address 02:11:22:33:44:55', 'link'],
  ['a tunnel that is set down', 'ip link set weft.1 down', 'link'],
  ['a changed tunnel MTU', 'ip link set weft.1 mtu 1300', 'link'],
  ['a deleted tunnel', 'ip link del weft.1', 'link'],
  [
    'a tunnel with other parameters',
    'kill -STOP $WEFTD; ip link del weft.1; ip link add weft.1 type vxlan id 77 dstport 4789 dev eth0; kill -CONT $WEFTD',
    'link'
  ],
  ['a deleted tunnel address', 'ip addr flush dev weft.1', 'address']
]

test('every kind of damage is repaired within a second, logged in one line and counted', {
  skip,
  timeout: 300_000
}, async (t) => {
  await using cluster = await Cluster.start({ hosts: [3], network: vxlanOnly })
  const residents = await cluster.podOnEach()
  const [node, daemon] = [cluster.node(1), cluster.daemon(1)]
  const state = async () => ({
    routes: (await linesOf(node, 'ip', 'route')).filter((line) => line.includes('weft.1') || line.includes('10.244')),
    fdb: [...(await linesOf(node, 'bridge', 'fdb', 'show', 'dev', 'weft.1'))].sort(),
    neighbours: [...(await linesOf(node, 'ip', 'neigh', 'show', 'nud', 'permanent', 'dev', 'weft.1'))].sort(),
    link: /mtu \d+|ether [0-9a-f:]+|vxlan id \d+ .*dstport \d+/g[Symbol.match](
      (await node.exec('ip', ['-d', 'link', 'show', 'weft.1'])).stdout
    ),
    address: await linesOf(node, 'ip', '-4', '-o', 'addr', 'show', 'dev', 'weft.1')
  })
  const normal = (value: Awaited<ReturnType<typeof state>>) => ({
    ...value,
    address: value.address.map((line) => line.replace(/^\d+: /, '')),
    routes: [...value.routes].sort()
  })
  const good = normal(await state())
  for (const [what, script, kind] of damages) {
    await t.test(`${what} is back`, async () => {
      const before = daemon.log.length
      await node.sh(script, { env: { WEFTD: String(daemon.pidInside) } })
      await until(
        async () => {
          assert.deepEqual(normal(await state()), good)
          return true
        },
        // On a quick machine one route suffers more than five of these within ten seconds: we take that for a fight and
        // slow down.
        { what: `${what} to be put right` }
      )
      const repairs = await until(() => daemon.log.slice(before).filter((line) => line.repaired === kind), {
        what: `a log line about ${what}`
      })
      assert.ok(repairs.every((line) => typeof line.afterMs === 'number'))
      await reachEachOther(residents)
    })
  }
  assert.match(await daemon.metrics(), /weft_repairs_total\{[^}]*kind="route"/)
})

test('the bridge of pods is repaired, also by a weftd that did not make it', { skip, timeout: 300_000 }, async (t) => {
  await using cluster = await Cluster.start({ hosts: [2] })
  const residents = [await cluster.pod(cluster.node(1)), await cluster.pod(cluster.node(2))]
  await reachEachOther(residents)
  const gateway = (await linesOf(cluster.node(1), 'ip', '-4', '-o', 'addr', 'show', 'dev', 'cni0'))[0]?.split(/\s+/)[3]
  const route = (await linesOf(cluster.node(1), 'ip', 'route')).find((line) => line.includes('dev cni0')) ?? ''
  const own = route.split(' ')[0]
  const kept = (await linesOf(cluster.node(1), 'ip', 'route', 'show', own ?? ''))[0]
  for (const when of ['by the weftd that made it', 'after a restart']) {
    for (const [what, script] of [
      ['a flushed route of the bridge', 'ip route flush dev cni0'],
      ['the route of the bridge behind another', `ip route prepend ${own} via 192.168.10.1 proto static`],
      ['a deleted gateway', `ip addr del ${gateway} dev cni0`],
      ['a bridge set down', 'ip link set cni0 down'],
      ['a deleted bridge', 'ip link del cni0']
    ] as const) {
      await t.test(`${what} is back, ${when}`, async () => {
        await cluster.node(1).sh(script)
        await until(async () => (await linesOf(cluster.node(1), 'ip', 'route', 'show', own ?? ''))[0] === kept, {
          what: `the bridge's route after ${what}`
        })
        await reachEachOther(residents)
      })
    }
    await cluster.daemon(1).restart('SIGKILL')
  }
})

test('whoever deletes a route is named by process', { skip }, async () => {
  await using cluster = await Cluster.start({ hosts: [2], network: vxlanOnly })
  const [node, daemon] = [cluster.node(1), cluster.daemon(1)]
  const route = await tunnelRoute(node)
  // A program that stays for a moment after its change, as daemons do: /proc still knows it.
  await node.sh(
    `cp $(command -v ip) /run/netbreaker && printf 'route del ${route}\\nroute get 127.0.0.1\\n' > /run/batch && (cat /run/batch; sleep 1) | /run/netbreaker -batch -`
  )
  const line = await logged(
    daemon,
    (entry) => entry.repaired === 'route' && String(entry.by).includes('netbreaker'),
    'the culprit by name'
  )
  assert.match(String(line.by), /^netbreaker \(\d+\)$/)
})

test('routes, neighbours and links of others stay, at start and later', { skip }, async () => {
  await using cluster = await Cluster.start({ hosts: [2], start: false, network: vxlanOnly })
  const node = cluster.node(1)
  await node.sh(`
    ip route add 203.0.113.0/24 via 192.168.10.1 proto static
    ip route add 198.51.100.0/24 via 192.168.10.1
    ip link add foreign type bridge
    ip addr add 172.31.0.1/24 dev foreign
    ip link set foreign up
    ip neigh add 192.168.10.77 lladdr 02:00:00:00:00:77 dev eth0 nud permanent
    sysctl -qw net.ipv4.conf.foreign.rp_filter=1`)
  const theirs = async () => [
    ...(await linesOf(node, 'ip', 'route')).filter((line) => /^(203|198|172|default)/.test(line)),
    ...(await linesOf(node, 'ip', 'neigh', 'show', 'nud', 'permanent', 'dev', 'eth0')),
    ...(await linesOf(node, 'ip', '-4', '-o', 'addr', 'show', 'dev', 'foreign')),
    (await node.exec('cat', ['/proc/sys/net/ipv4/conf/foreign/rp_filter'])).stdout
  ]
  const before = await theirs()
  await Promise.all(cluster.nodes.map((host) => cluster.join(host)))
  await cluster.pod(node)
  await node.sh('ip link del weft.1')
  await until(async () => (await linesOf(node, 'ip', '-o', 'link')).some((line) => line.includes('weft.1')), {
    what: 'the tunnel to be back'
  })
  await cluster.daemon(1).restart('SIGKILL')
  assert.deepEqual(await theirs(), before)
})

test('stale routes, FDB and neighbour entries and a device with wrong parameters are repaired at start', {
  skip
}, async () => {
  await using cluster = await Cluster.start({ hosts: [3], start: false, network: vxlanOnly })
  const node = cluster.node(1)
  await node.sh(`
    ip link add weft.1 type vxlan id 1 dstport 4789 dev eth0 local 192.168.10.11
    ip link set weft.1 up
    ip addr add 10.9.9.9/32 dev weft.1
    ip neigh add 10.244.250.0 lladdr 02:00:00:00:02:50 dev weft.1 nud permanent
    bridge fdb add 02:00:00:00:02:50 dev weft.1 dst 192.168.10.250
    ip route add 10.244.250.0/24 via 10.244.250.0 dev weft.1 onlink proto 87
    ip route add 10.244.251.0/24 via 192.168.10.1 proto 87`)
  await Promise.all(cluster.nodes.map((host) => cluster.join(host)))
  await cluster.podOnEach()
  const all = async () => [
    ...(await linesOf(node, 'ip', 'route')),
    ...(await linesOf(node, 'bridge', 'fdb')),
    ...(await linesOf(node, 'ip', 'neigh', 'show', 'nud', 'permanent')),
    ...(await linesOf(node, 'ip', '-o', 'addr'))
  ]
  await until(async () => !(await all()).some((line) => /10\.244\.25[01]\.0|02:50|10\.9\.9\.9/.test(line)), {
    what: 'stale entries to go'
  })
  const tunnel = async () => (await node.exec('ip', ['-d', 'link', 'show', 'weft.1'])).stdout
  assert.match(await tunnel(), /dstport 8472/)

  // As after a restart with another Port: the device is made anew with all that is on it, and that is our own doing.
  const daemon = cluster.daemon(1)
  const addresses = async () => (await linesOf(node, 'ip', '-4', '-o', 'addr', 'show', 'dev', 'weft.1')).join()
  const address = /10\.[\d.]+\/32/.exec(await addresses())?.[0] ?? assert.fail('the tunnel has no address')
  // Until weftd is back, the other nodes send to a port that nobody listens on.
  cluster.announce('UNDERLAY_LOST')
  await daemon.kill('SIGKILL')
  await node.sh(`ip link del weft.1; ip link add weft.1 type vxlan id 1 dstport 4789 dev eth0 local ${node.address}
    ip link set weft.1 up; ip addr add ${address} dev weft.1`)
  daemon.launch()
  await daemon.ready()
  await until(async () => (await tunnel()).includes('dstport 8472') && (await addresses()).includes(address), {
    what: 'the tunnel with the configured port and its address'
  })
  await cluster.podOnEach()
  assert.deepEqual(
    daemon.log.filter((line) => line.repaired !== undefined),
    []
  )
  await noneIsLost(cluster)
})

/** Probes find all ways whole again. */
async function noneIsLost(cluster: Cluster): Promise<void> {
  for (const daemon of cluster.daemons)
    await until(async () => !(await daemon.readyz()).body.includes('UNDERLAY_LOST'), {
      what: 'the end of UNDERLAY_LOST',
      deadlineMs: 60_000
    })
}

test('the interface is deleted and created again with another index: the tunnel and all peers come back', {
  skip,
  timeout: 300_000
}, async () => {
  await using cluster = await Cluster.start({ hosts: [2, 1] })
  const residents = await cluster.podOnEach()
  // Packets are lost for as long as the interface is away, and where the others still know its MAC.
  cluster.announce('UNDERLAY_LOST')
  await cluster.node(1).replug()
  await reachEachOther(residents)
  await noneIsLost(cluster)
})

test('carrier down and up, and an address that is removed and added, leave everything working', {
  skip,
  timeout: 300_000
}, async () => {
  await using cluster = await Cluster.start({ hosts: [2, 1] })
  const residents = await cluster.podOnEach()
  const said = async () => (await cluster.daemon(1).readyz()).body
  cluster.announce('UNDERLAY_LOST')
  await cluster.node(1).cut()
  await until(async () => (await said()).includes('eth0 has no carrier'), { what: 'the condition LINK_DOWN' })
  await cluster.node(1).restore()
  await until(async () => !(await said()).includes('LINK_DOWN'), { what: 'the end of the condition' })
  await reachEachOther(residents)
  await cluster
    .node(1)
    .sh(
      'ip addr del 192.168.10.11/24 dev eth0; sleep 0.3; ip addr add 192.168.10.11/24 dev eth0; ip route add default via 192.168.10.1'
    )
  await reachEachOther(residents)
  await noneIsLost(cluster)
})

test('the MTU of the interface is followed, in the tunnel and in subnet.env', { skip }, async () => {
  await using cluster = await Cluster.start({ hosts: [2] })
  await cluster.node(1).setMtu(1400)
  await until(
    async () => (await cluster.node(1).exec('cat', ['/run/flannel/subnet.env'])).stdout.includes('FLANNEL_MTU=1350'),
    { what: 'subnet.env to follow' }
  )
  await until(async () => (await cluster.node(1).exec('ip', ['link', 'show', 'weft.1'])).stdout.includes('mtu 1350'), {
    what: 'the tunnel to follow'
  })
})

test('a program that keeps undoing our changes is named in a condition, and we slow down', {
  skip,
  timeout: 300_000
}, async () => {
  await using cluster = await Cluster.start({ hosts: [2], network: vxlanOnly })
  const [node, daemon] = [cluster.node(1), cluster.daemon(1)]
  const route = await tunnelRoute(node)
  await node.sh('cp $(command -v ip) /run/fighter')
  const fighter = node.spawn(
    'sh',
    ['-c', `while :; do echo "route del ${route}"; sleep 0.1; done | /run/fighter -force -batch -`],
    { name: 'fighter' }
  )
  const said = await until(
    async () => {
      const { body } = await daemon.readyz()
      return body.includes('UNDONE_REPEATEDLY') && body
    },
    { what: 'the condition' }
  )
  assert.match(said, /fighter/)
  await fighter.stop()
  await until(async () => (await linesOf(node, 'ip', 'route')).some((line) => line.startsWith(`${route} `)), {
    what: 'the route to be back'
  })
  // Of links the kernel does not say who changed them, and the condition says so instead of guessing.
  const shrinker = node.spawn('sh', ['-c', 'while :; do ip link set weft.1 mtu 1300; sleep 0.1; done'], { name: 'ip' })
  await until(
    async () =>
      /unknown program \(the kernel does not say who changes links\).*weft\.1/.test((await daemon.readyz()).body),
    { what: 'the condition to say why it names nobody' }
  )
  await shrinker.stop()
  assert.ok((sample(await daemon.metrics(), 'weft_process_resident_memory_bytes') ?? 0) > 0)
})
