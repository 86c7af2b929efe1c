// The udp backend where the kernel has no FOU: a TUN device that a process of its own serves, beside weftd.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Cluster } from './cluster.ts'

const skip = process.getuid?.() === 0 ? false : 'needs root'
const network = { Network: '10.244.0.0/16', Backend: { Type: 'udp' } }

test('pods of two nodes reach each other, also while weftd is killed and starts again', {
  skip,
  timeout: 120_000
}, async () => {
  await using cluster = await Cluster.start({ hosts: [2], network })
  const [a, b] = await cluster.podOnEach()
  assert.ok(a && b)
  const { lost } = await a.pod.pingDuring(b.address, async () => {
    await cluster.daemon(1).restart('SIGKILL')
    await cluster.daemon(2).restart()
  })
  assert.deepEqual(lost, [])
})
