// The wireguard backend on this machine's kernel: with wireguard-go where it has no WireGuard of its own.
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { existsSync, readFileSync, statSync } from 'node:fs'
import { test } from 'node:test'
import { Cluster, linesOf, logged, PREFIX, type Resident, reachEachOther } from './cluster.ts'
import type { Host } from './host.ts'
import { until } from './run.ts'
import { weftctl } from './weftctl.ts'

const executable = '/usr/bin/wireguard-go'
const skip =
  process.getuid?.() !== 0
    ? 'needs root'
    : !existsSync(executable) && 'needs the Debian packages wireguard-go and wireguard-tools'
const args = [`--wireguard-go=${executable}`]
const network = { Network: '10.244.0.0/16', Backend: { Type: 'wireguard' } }
const wg = (host: Host, ...words: readonly string[]) => linesOf(host, 'wg', ...words)

/** Sends 8 MB over TCP from one pod to another, and returns how many octets had arrived when all was sent. */
async function transferred(from: Resident, to: Resident): Promise<number> {
  const server = to.pod.spawn('iperf3', ['-s', '-1', '-B', to.address])
  const client = () => from.pod.exec('iperf3', ['-c', to.address, '-n', '8M', '-J'], { check: false })
  const answer = await until(
    async () => {
      const { stdout } = await client()
      const { end } = JSON.parse(stdout) as { readonly end?: { readonly sum_received?: { readonly bytes: number } } }
      return end?.sum_received?.bytes
    },
    { what: 'the transfer' }
  )
  await server.exited()
  return answer
}

/** What leaves a host on its link while `during` runs, in tcpdump's words. */
async function leaving(host: Host, filter: string, during: () => Promise<unknown>): Promise<string> {
  const dump = host.spawn('tcpdump', ['-nli', 'eth0', filter])
  await until(() => dump.text().includes('listening on'), { what: 'tcpdump to listen' })
  await during()
  await dump.stop(2_000)
  return dump.text()
}

test('pods of two nodes reach each other through WireGuard only; a killed weftd loses nothing and keeps its key', {
  skip,
  timeout: 300_000
}, async () => {
  const psk = randomBytes(32).toString('base64')
  const Backend = { Type: 'wireguard', PSK: psk, PersistentKeepaliveInterval: 25 }
  await using cluster = await Cluster.start({ hosts: [2], args, network: { ...network, Backend } })
  const residents = await cluster.podOnEach()
  const [a, b] = residents
  assert.ok(a && b)
  const node = cluster.node(1)
  assert.equal((await a.pod.ping(b.address, { size: 1392, mtuProbe: true })).received > 0, true, 'MTU 1420')
  const clear = await leaving(node, `not udp port 51820 and (net 10.244.0.0/16)`, async () =>
    assert.ok((await transferred(a, b)) > 1 << 20)
  )
  assert.doesNotMatch(clear, /10\.244\./, 'nothing left in clear')

  const leases = [...(await cluster.etcd.list(`${PREFIX}/subnets/`)).values()].map((value) => JSON.parse(value))
  for (const lease of leases) {
    assert.equal(lease.BackendType, 'wireguard')
    assert.match(lease.BackendData.PublicKey, /^[A-Za-z0-9+/]{43}=$/)
    assert.equal(lease.BackendData.Port, 51820)
  }
  const [key] = await wg(node, 'show', 'weft-wg', 'public-key')
  assert.equal(statSync(node.path('/var/lib/weft/wgkey')).mode & 0o777, 0o600)
  const ping = await a.pod.pingDuring(b.address, async () => {
    for (const daemon of cluster.daemons) await daemon.restart('SIGKILL')
  })
  assert.deepEqual(ping.lost, [], `${ping.received} of ${ping.sent} answered`)
  assert.deepEqual(await wg(node, 'show', 'weft-wg', 'public-key'), [key])

  const privateKey = readFileSync(node.path('/var/lib/weft/wgkey'), 'utf8').trim()
  const printed = await Promise.all([['diff'], ['changes'], ['status']].map((words) => weftctl(node, words)))
  const texts = printed.map(({ stdout, stderr }) => stdout + stderr)
  for (const text of [cluster.daemon(1).text, ...texts, (await cluster.daemon(1).readyz()).body])
    for (const hidden of [psk, privateKey]) assert.equal(text.includes(hidden), false, 'a secret is shown')
})

test('what others change on the device is put back: a peer, its addresses, the port, the device itself', {
  skip,
  timeout: 300_000
}, async () => {
  await using cluster = await Cluster.start({ hosts: [2], args, network })
  const [a, b] = await cluster.podOnEach()
  assert.ok(a && b)
  cluster.announce('UNDERLAY_LOST')
  const node = cluster.node(1)
  const peers = () => wg(node, 'show', 'weft-wg', 'allowed-ips')
  const before = await peers()
  const [peer = ''] = await wg(node, 'show', 'weft-wg', 'peers')
  await node.exec('wg', ['set', 'weft-wg', 'peer', peer, 'remove'])
  await until(async () => (await peers()).join() === before.join(), { what: 'the peer to be back', deadlineMs: 90_000 })
  await logged(
    cluster.daemon(1),
    ({ object }) => String(object).includes(`wg weft-wg peer ${peer}`),
    'the repair to be logged'
  )
  await reachEachOther([a, b])
  // Its end takes the device along.
  await node.exec('ip', ['link', 'del', 'weft-wg'])
  await until(async () => (await linesOf(node, 'wg', 'show', 'interfaces')).includes('weft-wg'), {
    what: 'the device to be back'
  })
  await reachEachOther([a, b])
  assert.deepEqual(await peers(), before)
})

test('without a route nothing leaves in clear, and nothing in clear is taken', { skip, timeout: 300_000 }, async () => {
  await using cluster = await Cluster.start({ hosts: [2], args, network })
  const [a, b] = await cluster.podOnEach()
  assert.ok(a && b)
  const [node, other] = [cluster.node(1), cluster.node(2)]
  cluster.announce('UNDERLAY_LOST')
  await cluster.daemon(1).kill('SIGKILL')
  const subnet = `${b.address.split('.').slice(0, 3).join('.')}.0/24`
  await node.exec('ip', ['route', 'replace', subnet, 'via', other.address])
  const clear = await leaving(node, `net ${subnet}`, async () => {
    assert.equal((await a.pod.ping(b.address, { count: 3 })).received, 0)
    assert.equal((await node.ping(b.address, { count: 3 })).received, 0)
  })
  assert.doesNotMatch(clear, new RegExp(b.address.replaceAll('.', '\\.')))
  // The other host takes no packet of the pod network that is not encrypted.
  await node.exec('nft', ['delete', 'table', 'inet', 'weft'])
  const sent = await leaving(node, `net ${subnet}`, async () =>
    assert.equal((await a.pod.ping(b.address, { count: 3 })).received, 0)
  )
  assert.match(sent, new RegExp(b.address.replaceAll('.', '\\.')), 'the packets left, and were not taken')
})

for (const Mode of ['separate', 'auto', 'ipv4', 'ipv6'] as const)
  test(`both families of pods reach each other in mode ${Mode}`, { skip, timeout: 300_000 }, async () => {
    const dual = {
      ...{ Network: '10.244.0.0/16', EnableIPv6: true, IPv6Network: 'fd00:244::/48', IPv6SubnetLen: 64 },
      Backend: { Type: 'wireguard', Mode }
    }
    await using cluster = await Cluster.start({ hosts: [2], ipv6: true, args, network: dual })
    const residents = await cluster.podOnEach()
    const addresses = ({ result }: Resident) =>
      (result.ips as readonly { readonly address: string }[]).map(({ address }) => String(address.split('/')[0]))
    const [a, b] = residents
    assert.ok(a && b)
    for (const address of addresses(b))
      await until(async () => (await a.pod.ping(address)).received > 0, { what: `${address} to answer` })
    const devices = (await linesOf(cluster.node(1), 'wg', 'show', 'interfaces')).join(' ').split(/\s+/).sort()
    assert.deepEqual(devices, Mode === 'separate' ? ['weft-wg', 'weft-wg-v6'] : ['weft-wg'])
    const outer = await leaving(cluster.node(1), 'udp', async () => {
      for (const address of addresses(b)) await a.pod.ping(address, { count: 3 })
    })
    assert.equal(/IP6 .*5182/.test(outer), Mode === 'separate' || Mode === 'ipv6', 'outer packets over IPv6')
    assert.equal(/IP \d.*5182/.test(outer), Mode !== 'ipv6', 'outer packets over IPv4')
  })

test('a kernel without WireGuard is named with the module and the flag, and serves no pods', {
  skip,
  timeout: 300_000
}, async (t) => {
  await using cluster = await Cluster.start({ hosts: [1], start: false, network })
  const node = cluster.node(1)
  const { code } = await node.exec('ip', ['link', 'add', 'try', 'type', 'wireguard'], { check: false })
  if (code === 0) return t.skip('this kernel has WireGuard')
  const daemon = await cluster.join(node, { wait: false })
  const said = await until(
    async () => (await daemon.readyz().catch(() => undefined))?.body.match(/KERNEL_FEATURE.*/)?.[0],
    { what: 'the condition' }
  )
  assert.match(said, /this kernel can't make a wireguard .*modprobe wireguard.*--wireguard-go/)
})

test('a node that does not answer by WireGuard is named with its port', {
  skip: skip || (process.env.WEFT_LONG !== '1' && 'takes five minutes: WEFT_LONG=1'),
  timeout: 600_000
}, async () => {
  await using cluster = await Cluster.start({ hosts: [2], args, network, start: false })
  const [node, other] = [cluster.node(1), cluster.node(2)]
  await other.sh(`nft add table inet block
nft add chain inet block in '{ type filter hook input priority -10; }'
nft add rule inet block in udp dport 51820 drop`)
  await Promise.all(cluster.nodes.map((each) => cluster.join(each)))
  cluster.announce('UNDERLAY_LOST')
  // Nor does it begin the handshake itself.
  await cluster.daemon(2).kill('SIGKILL')
  await other.exec('ip', ['link', 'del', 'weft-wg'])
  const silent = async () => (await cluster.daemon(1).readyz()).body.match(/WIREGUARD_SILENT.*/)?.[0]
  const said = await until(silent, { what: 'the condition', deadlineMs: 480_000, everyMs: 1_000 })
  assert.match(said, new RegExp(`no handshake for 3 minutes with lease \\S+ of ${other.address} \\(UDP port 51820\\)`))
  assert.equal((await wg(node, 'show', 'weft-wg', 'peers')).length, 1)
})
