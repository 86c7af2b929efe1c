// Two real dockerd, given bridge address and MTU from the daemon's subnet.env: containers on both hosts reach each
// other although Docker drops FORWARD.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Cluster } from '../lab/cluster.ts'
import { Dockerd } from '../lab/dockerd.ts'
import { until } from '../lab/run.ts'

const skip = process.getuid?.() === 0 ? false : 'needs root'

test('containers of two Docker hosts reach each other, with FORWARD at DROP, again after the rules were flushed', {
  skip,
  timeout: 180_000
}, async () => {
  await using cluster = await Cluster.start({ hosts: [1, 1], start: false })
  // dockerd sets the policy to DROP only where it switches forwarding on itself, and where weftd runs it is on: it
  // starts while weftd is away.
  const daemons = []
  for (const node of cluster.nodes) daemons.push(await cluster.join(node))
  for (const daemon of daemons) await daemon.stop()
  for (const node of cluster.nodes) await node.sh('echo 0 > /proc/sys/net/ipv4/ip_forward')
  const [first, second] = await Promise.all(cluster.nodes.map((node) => Dockerd.start(node)))
  assert.ok(first && second)
  await using _first = first
  await using _second = second
  for (const node of cluster.nodes)
    assert.match((await node.exec('iptables', ['-S', 'FORWARD'])).stdout, /-P FORWARD DROP/)
  await Promise.all(daemons.map((daemon) => daemon.restart()))
  await Promise.all([first.importBusybox(), second.importBusybox()])
  const [, address] = [await first.run('one'), await second.run('two')]
  const reaches = async () =>
    (await first.docker(['exec', 'one', 'ping', '-c', '1', '-W', '1', address], { check: false })).code === 0
  await until(reaches, { what: `the first container to reach ${address}`, everyMs: 200 })
  // What is answered is told in the log; a condition would stay for ever.
  const { body } = await cluster.daemon(1).readyz()
  assert.doesNotMatch(body, /FORWARD_DROPPED/)
  assert.match(
    JSON.stringify(cluster.daemon(1).log),
    /Docker: chain ip filter FORWARD \(iptables-\w+\) drops forwarded packets/
  )
  await cluster.node(1).exec('iptables', ['-F', 'DOCKER-USER'])
  await until(reaches, { what: 'the accept to be put back', everyMs: 100 })
})
