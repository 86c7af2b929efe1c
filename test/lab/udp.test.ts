// The udp backend where the kernel has no FOU: a TUN device that a process of its own serves, beside weftd.
import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import manifest from '../../package.json' with { type: 'json' }
import { Cluster, linesOf, PREFIX, reachEachOther } from './cluster.ts'
import { become, conditions } from './probe-scene.ts'
import { until } from './run.ts'
import { carrying, proxyOf, sendTo, transfer, UDP, udpPacket } from './udp-scene.ts'

const skip = process.getuid?.() === 0 ? false : 'needs root'
const timeout = 180_000

test('pods of two nodes reach each other, whatever becomes of weftd and of its proxy', { skip, timeout }, async (t) => {
  await using cluster = await Cluster.start({ hosts: [3], start: false, network: UDP })
  const [here, there, stranger] = [cluster.node(1), cluster.node(2), cluster.node(3)]
  await Promise.all([cluster.join(here), cluster.join(there)])
  const residents = [await cluster.pod(here), await cluster.pod(there)] as const
  const [a, b] = residents
  await reachEachOther(residents)
  // While there is no proxy, it is so.
  cluster.announce('UNDERLAY_LOST')

  await t.test('packets of full size and TCP streams pass both ways, and the proxy says how many', async () => {
    const full = await a.pod.ping(b.address, { size: 1_444, mtuProbe: true, count: 3 })
    assert.equal(full.received, 3, full.text)
    await transfer(a, b, '-n', '40M')
    await transfer(a, b, '-n', '40M', '-R')
    const { counters, socket, peers } = (await proxyOf(here)) ?? assert.fail('no proxy')
    assert.deepEqual([socket?.device, socket?.port], ['flannel0', 8285])
    assert.deepEqual([...peers.values()], [there.address])
    assert.ok(counters.sentOctets > 40e6 && counters.receivedOctets > 40e6, JSON.stringify(counters))
  })

  await t.test('the device is flannel0 with the objects of weftd, and weftd says who carries the packets', async () => {
    const [link = ''] = await linesOf(here, 'ip', '-d', '-o', 'link', 'show', 'flannel0')
    for (const part of ['mtu 1472', 'qlen 1000', 'tun type tun', 'persist on']) assert.ok(link.includes(part), link)
    assert.match(
      (await linesOf(here, 'ip', 'route', 'show', 'dev', 'flannel0')).join(),
      /^10\.244\.\d+\.0\/24 proto 87/
    )
    assert.match(await conditions(cluster, 1), /\[notice\] UDP_PROXY /)
    await become(cluster, { '1 2': 'whole', '2 1': 'whole' })
  })

  await t.test('nothing is lost while weftd is killed and starts again, and the proxy is the same', async () => {
    const before = await carrying(here)
    const stream = transfer(b, a, '-b', '20M', '-t', '4')
    const { lost } = await a.pod.pingDuring(b.address, async () => {
      await cluster.daemon(1).restart('SIGKILL')
      await stream
    })
    assert.deepEqual(lost, [])
    assert.equal((await carrying(here)).pid, before.pid)
  })

  await t.test('a killed proxy is started again, and weftd says so meanwhile', async (t) => {
    const { pid } = await carrying(here)
    const { lost } = await a.pod.pingDuring(b.address, async () => {
      await here.exec('kill', ['-9', String(pid)])
      await carrying(here, pid)
    })
    t.diagnostic(`${lost.length * 5} ms without packets`)
    await reachEachOther(residents)
    const said = cluster.daemon(1).log.map(({ condition, msg }) => `${condition} ${msg}`)
    assert.ok(
      said.some((line) => line.startsWith('UDP_PROXY_AWAY weftd udp-proxy')),
      said.join('\n')
    )
    await until(async () => !(await conditions(cluster, 1)).includes('UDP_PROXY_AWAY'), {
      what: 'the condition to end'
    })
  })

  await t.test('a proxy of another version hands over to that of weftd', async (t) => {
    await cluster.daemon(1).stop()
    const { pid } = await carrying(here)
    const other = here.spawn(process.execPath, [fileURLToPath(new URL('./other-proxy.ts', import.meta.url))])
    const old = await carrying(here, pid)
    assert.equal(old.version, '0.0.0', other.text())
    const { lost } = await a.pod.pingDuring(b.address, async () => {
      cluster.daemon(1).launch()
      await cluster.daemon(1).ready()
      assert.equal((await carrying(here, old.pid)).version, manifest.version)
    })
    t.diagnostic(`${lost.length * 5} ms without packets`)
    await reachEachOther(residents)
  })

  await t.test('what pods send to nowhere, or with too few hops, is answered', async () => {
    const said = async (...args: readonly string[]) =>
      (await a.pod.exec('ping', ['-n', '-c', '1', '-W', '2', ...args], { check: false })).stdout
    assert.match(await said('10.244.199.9'), /Unreachable/)
    assert.match(await said('-t', '1', b.address), /From 10\.244\.\S+ .*Time to live exceeded/)
    const [gateway = ''] = b.address.split(/\.\d+$/)
    assert.match(await said('-t', '2', b.address), new RegExp(`From ${gateway}\\.\\d+ .*Time to live exceeded`))
  })

  await t.test('a packet is taken from a node only, and of a pod only from its own node', async () => {
    // Whoever gets there has no port (RFC 768), which the pod counts.
    const arrived = async () =>
      Number(/^Udp: \d+ (\d+)/m.exec((await a.pod.exec('cat', ['/proc/net/snmp'])).stdout)?.[1])
    const before = await arrived()
    await b.pod.exec('bash', ['--norc', '-c', `echo known >/dev/udp/${a.address}/7777`])
    await until(async () => (await arrived()) === before + 1, { what: 'a packet of the other pod' })
    await sendTo(stranger, here, udpPacket(b.address, a.address, 'stranger'))
    await sendTo(stranger, here, udpPacket('10.244.199.9', a.address, 'nobody'))
    const { foreignSender } = (await carrying(here)).counters
    // Past the firewall, which knows all nodes, but not whose pods are whose; weftd would put it back.
    await cluster.daemon(1).stop()
    await here.exec('nft', ['flush', 'chain', 'inet', 'weft', 'tunnel_entry'])
    await sendTo(stranger, here, udpPacket(b.address, a.address, 'stranger'))
    await until(async () => (await carrying(here)).counters.foreignSender > foreignSender, { what: 'its count' })
    cluster.daemon(1).launch()
    await cluster.daemon(1).ready()
    assert.equal(await arrived(), before + 1)
  })

  await t.test('another backend ends the proxy and removes the device', async () => {
    const network = { ...UDP, Backend: { Type: 'vxlan' } }
    await cluster.etcd.put(`${PREFIX}/config`, JSON.stringify(network))
    await Promise.all([1, 2].map((n) => cluster.daemon(n).restart()))
    await reachEachOther(residents)
    await until(async () => (await proxyOf(here)) === undefined, { what: 'the proxy to end' })
    assert.equal(existsSync(here.path('/proc/sys/net/ipv4/conf/flannel0')), false)
    assert.doesNotMatch(await conditions(cluster, 1), /UDP_PROXY/)
  })
})

test('where something else starts the proxy, weftd says that it is missing, and uses it', {
  skip,
  timeout
}, async () => {
  await using cluster = await Cluster.start({ hosts: [1], network: UDP, args: ['--udp-proxy=external'] })
  const host = cluster.node(1)
  await until(async () => (await conditions(cluster, 1)).includes('UDP_PROXY_AWAY'), { what: 'the condition' })
  assert.equal(await proxyOf(host), undefined)
  const main = fileURLToPath(new URL('../../daemon/main.ts', import.meta.url))
  host.spawn(process.execPath, [main, 'udp-proxy'])
  await carrying(host)
  await until(async () => !(await conditions(cluster, 1)).includes('UDP_PROXY_AWAY'), { what: 'the condition to end' })
  const second = await host.exec(process.execPath, [main, 'udp-proxy'], { check: false })
  assert.match(second.stderr, /UDP_PROXY_RUNNING/)
})

for (const network of [
  { Network: '172.20.0.0/16' },
  { network: '172.20.0.0/16' },
  {
    ...{ Network: '10.0.0.0/8', SubnetLen: 20, SubnetMin: '10.10.0.0', SubnetMax: '10.99.0.0' },
    Backend: { Type: 'UDP', Port: 7890 }
  }
])
  test(`${JSON.stringify(network)} brings up udp, and pods reach each other`, { skip, timeout }, async () => {
    await using cluster = await Cluster.start({ hosts: [2], network })
    await cluster.podOnEach()
    assert.ok((await carrying(cluster.node(1))).peers.size === 1)
  })
