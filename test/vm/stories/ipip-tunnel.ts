// The ipip backend: pods reach each other in packets of IP protocol 4, or by plain routes with DirectRouting; and
// flanneld's nodes are reached.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Cluster, linesOf, reachEachOther } from '../../lab/cluster.ts'
import { flannelPod } from '../../lab/flannel-pod.ts'
import { Flanneld } from '../../lab/flanneld.ts'
import { TwoNodes } from './two-nodes.ts'

const READY_MS = 240_000
const skip = process.env.WEFT_LONG === '1' ? false : 'takes minutes: WEFT_LONG=1'

test('two nodes: packets of full size by the tunnel', async () => {
  await using nodes = await TwoNodes.start({ iface: 'eth0', backend: { Type: 'ipip', DirectRouting: false } })
  await nodes.reach()
  await nodes.carriesFullSize()
  const [near, far] = nodes.pods
  assert.ok(near && far)
  const routes = await linesOf(near.host, 'ip', 'route', 'show', 'dev', 'weft.ipip')
  assert.ok(routes.some((line) => line.includes(`via ${far.host.address}`)))
})

test('nodes with weftd and with flanneld reach each other, and flanneld’s device is taken over', { skip }, async () => {
  const network = { Network: '10.60.0.0/16', Backend: { Type: 'ipip', DirectRouting: false } }
  await using cluster = await Cluster.start({ hosts: [2], start: false, network })
  const [one, two] = [cluster.node(1), cluster.node(2)]
  const join = { args: ['--ip-masq'], deadlineMs: READY_MS }
  const flanneld = await Flanneld.start(two, { etcd: cluster.etcd, wait: false })
  await Promise.all([cluster.join(one, join), flanneld.ready(READY_MS)])
  const [near, old] = [await cluster.pod(one), await flannelPod(two, 'old')]
  await reachEachOther([near, old])
  const [link] = (await near.pod.ip('link', 'show', 'eth0')) as readonly { readonly mtu: number }[]
  assert.equal(link?.mtu, 1480)
  const whole = await near.pod.ping(old.address, { size: 1480 - 28, mtuProbe: true })
  assert.equal(whole.received, 1, whole.text)
  const index = async () => (await linesOf(two, 'ip', '-o', 'link', 'show', 'flannel.ipip'))[0]?.split(':')[0]
  const before = await index()
  assert.ok(before)
  await flanneld.stop()
  await cluster.join(two, join)
  await reachEachOther([near, old])
  assert.equal(await index(), before)
  assert.deepEqual(
    (await linesOf(two, 'ip', '-o', 'link')).filter((line) => line.includes('weft.ipip')),
    []
  )
})
