// Pods of two nodes reach each other through the kernel's own WireGuard, whose module is loaded; with WEFT_LONG=1 also
// those of a node with flanneld, which is taken over and handed back.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { before, test } from 'node:test'
import { publicKeyOf } from '../../../daemon/base/x25519.ts'
import { insideNew } from '../../../daemon/kernel/namespace.ts'
import { createLink } from '../../../daemon/kernel/netlink/encode.ts'
import { NETLINK_GENERIC } from '../../../daemon/kernel/netlink/generic.ts'
import { Lane } from '../../../daemon/kernel/netlink/lane.ts'
import { RequestSocket } from '../../../daemon/kernel/netlink/request-socket.ts'
import { Wireguard } from '../../../daemon/kernel/wireguard.ts'
import { type Change, difference, put } from '../../../daemon/state/difference.ts'
import { type KernelObject, type Link, stateOf } from '../../../daemon/state/object.ts'
import { Secret, sortedPrefixes, type WgPeer } from '../../../daemon/state/wireguard.ts'
import { parseIp } from '../../../ipam/address.ts'
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

before(() => execFileSync('modprobe', ['wireguard'], { stdio: 'inherit' }))

/** More than fit one message; the addresses of one are more than fit one message of a dump. */
function manyPeers(device: string, key: (octet: number) => string): readonly WgPeer[] {
  const addresses = (n: number) =>
    Array.from({ length: n === 7 ? 4_000 : 2 }, (_, at) => ({
      ...{ ip: { family: 4 as const, value: BigInt(0x0a00_0000 + n * 65_536 + at * 8) }, length: 29 }
    }))
  return Array.from({ length: 300 }, (_, n) => ({
    ...{ kind: 'wg-peer', device, publicKey: publicKeyOf(randomBytes(32).toString('base64')), keepalive: n },
    endpoint: { ip: parseIp(n % 2 ? `192.0.2.${n % 250}` : `2001:db8::${n}`) ?? assert.fail(), port: 1_000 + n },
    allowedIps: sortedPrefixes(addresses(n)),
    presharedKey: n % 3 === 0 ? new Secret(key(1 + (n % 200))) : null
  }))
}

test('the kernel takes keys and peers as they are sent, and lists them so', MINUTES, async () => {
  const lane = new Lane()
  const [links, generic] = insideNew(() => [new RequestSocket(lane), new RequestSocket(lane, NETLINK_GENERIC)] as const)
  const wireguard = new Wireguard({ socket: generic, executable: undefined, now: Date.now })
  const device = 'weft-wg'
  const link: Link = { kind: 'link', name: device, form: { type: 'wireguard' }, up: true }
  assert.deepEqual(await links.send([createLink(link, { index: () => 1, netns: () => -1 })]), [undefined])
  const key = (octet: number) => Buffer.alloc(32, octet).toString('base64')
  const keys = { publicKey: publicKeyOf(key(0x40)), privateKey: new Secret(key(0x40)) }
  const own: KernelObject = { kind: 'wg-device', device, ...keys, listenPort: 51820 }
  const peers = manyPeers(device, key)
  const read = async () => stateOf(await wireguard.read(device, () => undefined))
  const errors = async (changes: readonly Change[]) =>
    (await wireguard.apply(changes)).flatMap(({ error }) => (error ? [error.message] : []))
  const wanted = stateOf([own, ...peers])
  assert.deepEqual(await errors([...wanted.values()].map(put)), [])
  assert.deepEqual(difference(wanted, await read()).length, 0)
  const left = stateOf([own, ...peers.slice(1).map((peer) => ({ ...peer, presharedKey: null, keepalive: 0 }))])
  assert.deepEqual(await errors(difference(left, await read())), [])
  assert.deepEqual(difference(left, await read()).length, 0)
  assert.deepEqual(await wireguard.read('no-such', () => undefined), [])
  for (const socket of [links, generic]) socket[Symbol.dispose]()
})

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
