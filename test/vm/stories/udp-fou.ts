// The udp backend on the kernel's FOU: nodes with weftd and with flanneld in one network without `Backend`, whose
// datagrams are the same; and a port that is handed over and back.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Cluster, linesOf, PREFIX, reachEachOther } from '../../lab/cluster.ts'
import { flannelPod } from '../../lab/flannel-pod.ts'
import { Flanneld } from '../../lab/flanneld.ts'
import { until } from '../../lab/run.ts'
import { weftdCommand } from '../../lab/weftd.ts'
import { carriesTcp, echoRequest, echoRequests, sendDatagram } from './fou-scene.ts'
import { TwoNodes } from './two-nodes.ts'

const READY_MS = 240_000
const skip = process.env.WEFT_LONG === '1' ? false : 'takes minutes: WEFT_LONG=1'

test('two nodes without a Backend: packets of full size, TCP, what the kernel says to pods, and nobody else gets in', async () => {
  await using nodes = await TwoNodes.start({ iface: 'eth0' })
  await nodes.reach()
  await nodes.carriesFullSize()
  const [near, far] = nodes.pods
  assert.ok(near && far)
  await carriesTcp(near, far)

  // A time to live of 2 ends at the other node, and no node has the last subnet.
  const ended = await near.pod.exec('ping', ['-c1', '-W5', '-t2', far.address], { check: false })
  assert.match(ended.stdout, /Time to live exceeded/)
  const nowhere = await near.pod.exec('ping', ['-c1', '-W5', '10.244.255.9'], { check: false })
  assert.match(nowhere.stdout, /Host Unreachable/)

  // A stranger's datagram, one of a node with an address of this node's pods inside, and one that is right.
  const before = await echoRequests(near.pod)
  const stranger = await nodes.lab.addHost()
  const spoofed = near.address.replace(/\d+$/, '77')
  await sendDatagram(stranger, near.host.address, echoRequest(far.address, near.address))
  await sendDatagram(far.host, near.host.address, echoRequest(spoofed, near.address))
  await sendDatagram(far.host, near.host.address, echoRequest(far.address, near.address))
  await until(async () => (await echoRequests(near.pod)) > before, { what: 'a datagram of a node to arrive' })
  assert.equal(await echoRequests(near.pod), before + 1)
})

test('nodes with weftd and with flanneld reach each other, and a port is handed over and back', { skip }, async () => {
  await using cluster = await Cluster.start({ hosts: [2], start: false, network: { network: '10.50.0.0/16' } })
  const [one, other] = [cluster.node(1), cluster.node(2)]
  const join = { args: ['--ip-masq'], deadlineMs: READY_MS }
  const flanneld = await Flanneld.start(other, { etcd: cluster.etcd, wait: false })
  await Promise.all([cluster.join(one, join), flanneld.ready(READY_MS)])
  const near = await cluster.pod(one)
  const old = await flannelPod(other, 'old')
  await reachEachOther([near, old])

  // Of full size, and TCP, whose checksum is whole for a peer that takes packets from a socket.
  const whole = await near.pod.ping(old.address, { size: 1472 - 28, mtuProbe: true })
  assert.equal(whole.received, 1, whole.text)
  await carriesTcp(near, old)
  await carriesTcp(old, near)

  // flanneld ends, weftd takes its place on the same port with the same subnet, and gives it back.
  const leases = [...(await cluster.etcd.list(`${PREFIX}/subnets/`))].sort()
  assert.ok(leases.every(([, value]) => !value.includes('BackendType')))
  await flanneld.stop()
  const third = await cluster.join(other, join)
  await reachEachOther([near, old, await cluster.pod(other, { name: 'cbr0' })])
  assert.deepEqual([...(await cluster.etcd.list(`${PREFIX}/subnets/`))].sort(), leases)
  assert.equal((await linesOf(other, 'ip', 'fou', 'show')).length, 1)
  await third.stop()
  const [weftd, ...first] = weftdCommand()
  await other.exec(weftd, [...first, 'clean'], { timeoutMs: READY_MS })
  assert.deepEqual(await linesOf(other, 'ip', 'fou', 'show'), [])
  assert.deepEqual(
    (await linesOf(other, 'ip', '-o', 'link')).filter((line) => line.includes('weft.udp')),
    []
  )
  flanneld.launch()
  await flanneld.ready(READY_MS)
  await reachEachOther([near, old])
})
