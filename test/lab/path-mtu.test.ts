// A router between two nodes has a smaller MTU than their links: what the kernel learns becomes a condition, and MTU in
// Backend fixes it.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Cluster, PREFIX } from './cluster.ts'
import { until } from './run.ts'

const skip = process.getuid?.() === 0 ? false : 'needs root'
const network = (mtu: number) => ({ Network: '10.244.0.0/16', Backend: { Type: 'vxlan', MTU: mtu } })

test('a path MTU below what pods send is reported with node and size; MTU in Backend fixes it, within its range', {
  skip,
  timeout: 300_000
}, async () => {
  await using cluster = await Cluster.start({ hosts: [1, 1], network: network(0) })
  cluster.announce('UNDERLAY_MTU')
  const [near, far] = [cluster.node(1), cluster.node(2)]
  await cluster.lab.router.exec('ip', ['link', 'set', 'seg1', 'mtu', '1400'])
  const large = await near.exec('ping', ['-c', '1', '-W', '5', '-M', 'do', '-s', '1472', far.address], { check: false })
  assert.notEqual(large.code, 0)
  // The first look comes soon after the start.
  await cluster.daemon(1).restart('SIGTERM')
  const said = async () => (await cluster.daemon(1).readyz()).body
  await until(async () => (await said()).includes('UNDERLAY_MTU'), { what: 'the condition' })
  assert.match(
    await said(),
    new RegExp(`the path to \\S+ at ${far.address} carries 1400 bytes, packets of pods have up to 1500 between nodes`)
  )
  await cluster.etcd.put(`${PREFIX}/config`, JSON.stringify(network(1400)))
  await cluster.daemon(1).restart('SIGTERM')
  assert.match(JSON.stringify(await near.ip('link', 'show', 'weft.1')), /"mtu":1350/)
  await cluster.etcd.put(`${PREFIX}/config`, JSON.stringify(network(1501)))
  const ended = cluster.daemon(1).restart('SIGTERM')
  await until(async () => (await said()).includes('must be a whole number from 118 to 1500'), { what: 'the range' })
  await cluster.etcd.put(`${PREFIX}/config`, JSON.stringify(network(1500)))
  await ended
})
