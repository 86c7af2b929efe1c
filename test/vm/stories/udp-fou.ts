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

const READY_MS = 240_000

test('nodes with weftd and with flanneld reach each other, over and back on one port, and nobody else gets in', async () => {
  await using cluster = await Cluster.start({ hosts: [3], start: false, network: { network: '10.50.0.0/16' } })
  const [one, two, three] = [cluster.node(1), cluster.node(2), cluster.node(3)]
  const join = { args: ['--ip-masq'], deadlineMs: READY_MS }
  const flanneld = await Flanneld.start(three, { etcd: cluster.etcd, wait: false })
  await Promise.all([cluster.join(one, join), cluster.join(two, join), flanneld.ready(READY_MS)])
  const [near, far] = [await cluster.pod(one), await cluster.pod(two)]
  const old = await flannelPod(three, 'old')
  await reachEachOther([near, far, old])

  // Of full size, and TCP, whose checksum is whole for a peer that takes packets from a socket.
  const [link] = (await near.pod.ip('link', 'show', 'eth0')) as readonly { readonly mtu: number }[]
  assert.equal(link?.mtu, 1472)
  for (const to of [far, old]) {
    const whole = await near.pod.ping(to.address, { size: 1472 - 28, mtuProbe: true })
    assert.equal(whole.received, 1, whole.text)
  }
  await carriesTcp(near, far)
  await carriesTcp(near, old)
  await carriesTcp(old, near)

  // What the kernel says reaches the pod: a time to live of 2 ends at the other node, and no node has this subnet.
  const ended = await near.pod.exec('ping', ['-c1', '-W5', '-t2', far.address], { check: false })
  assert.match(ended.stdout, /Time to live exceeded/)
  const nowhere = await near.pod.exec('ping', ['-c1', '-W5', '10.50.255.9'], { check: false })
  assert.match(nowhere.stdout, /Net Unreachable/)

  // A stranger's datagram, one of a node with an address of this node's pods inside, and one that is right.
  const before = await echoRequests(near.pod)
  const [stranger] = cluster.lab.hosts.filter((host) => !cluster.nodes.includes(host))
  assert.ok(stranger)
  await sendDatagram(stranger, one.address, echoRequest(far.address, near.address))
  await sendDatagram(two, one.address, echoRequest(`${near.address.replace(/\d+$/, '')}77`, near.address))
  await sendDatagram(two, one.address, echoRequest(far.address, near.address))
  await until(async () => (await echoRequests(near.pod)) > before, { what: 'a datagram of a node to arrive' })
  assert.equal(await echoRequests(near.pod), before + 1)

  // flanneld ends, weftd takes its place on the same port with the same subnet, and gives it back.
  const leases = [...(await cluster.etcd.list(`${PREFIX}/subnets/`))].sort()
  assert.ok(leases.every(([, value]) => !value.includes('BackendType')))
  await flanneld.stop()
  const third = await cluster.join(three, join)
  await reachEachOther([near, old, await cluster.pod(three, { name: 'cbr0' })])
  assert.deepEqual([...(await cluster.etcd.list(`${PREFIX}/subnets/`))].sort(), leases)
  assert.equal((await linesOf(three, 'ip', 'fou', 'show')).length, 1)
  await third.stop()
  const [weftd, ...first] = weftdCommand()
  await three.exec(weftd, [...first, 'clean'], { timeoutMs: READY_MS })
  assert.deepEqual(await linesOf(three, 'ip', 'fou', 'show'), [])
  assert.deepEqual(
    (await linesOf(three, 'ip', '-o', 'link')).filter((line) => line.includes('weft.udp')),
    []
  )
  flanneld.launch()
  await flanneld.ready(READY_MS)
  await reachEachOther([near, far, old])
})
