// Probes between real nodes: what is said of a way when its packets are dropped, too large, or answered by nobody; and
// that it is whole again afterwards.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { PeersAnswer, ProbeAnswer } from '../../daemon/api/answers.ts'
import { Cluster } from './cluster.ts'
import { until } from './run.ts'
import { weftctl } from './weftctl.ts'

const skip = process.getuid?.() === 0 ? false : 'needs root'

/** What node `n` knows of the way to the node `to`. */
async function wayOf(cluster: Cluster, n: number, to: number, way = 'pods'): Promise<ProbeAnswer> {
  const { stdout } = await weftctl(cluster.node(n), ['peers', '--json'])
  const { peers } = JSON.parse(stdout) as PeersAnswer
  const peer = peers.find(({ publicIp }) => publicIp.includes(cluster.node(to).address))
  const found = peer?.ways.find((each) => each.way === way)
  return found ?? assert.fail(`node ${n} has no ${way} to ${to}: ${stdout}`)
}

const becomes = (cluster: Cluster, n: number, to: number, verdict: string, way = 'pods'): Promise<ProbeAnswer> =>
  until(
    async () => {
      const found = await wayOf(cluster, n, to, way)
      if (found.verdict !== verdict) throw new Error(JSON.stringify(found))
      return found
    },
    { what: `${way} from ${n} to ${to} to be ${verdict}`, everyMs: 500 }
  )

test('try', { skip }, async () => {
  await using cluster = await Cluster.start({
    hosts: [2],
    network: { Network: '10.244.0.0/16', Backend: { Type: 'vxlan' } }
  })
  const began = Date.now()
  const say = (...args: unknown[]) => console.log(Date.now() - began, ...args)
  for (const way of ['pods', 'nodes'])
    for (const [a, b] of [
      [1, 2],
      [2, 1]
    ] as const)
      say(await becomes(cluster, a, b, 'whole', way))
  const drop = 'iptables -w -I INPUT -p udp --dport 8472 -j DROP'
  await cluster.node(2).sh(drop)
  say('dropped')
  say(await becomes(cluster, 1, 2, 'out-lost'))
  say(await becomes(cluster, 2, 1, 'back-lost'))
  say((await weftctl(cluster.node(1), ['peers'], { check: false })).stdout)
  await cluster.node(2).sh(drop.replace('-I', '-D'))
  say('again')
  await becomes(cluster, 1, 2, 'whole')
  await becomes(cluster, 2, 1, 'whole')
  say('whole')
  await cluster.node(2).sh(`${drop}; ${drop.replace('INPUT', 'OUTPUT')}`)
  say(await becomes(cluster, 1, 2, 'lost'))
  say(await becomes(cluster, 2, 1, 'lost'))
  await new Promise((r) => setTimeout(r, 5000))
  say(await becomes(cluster, 1, 2, 'lost'))
  say(await becomes(cluster, 2, 1, 'lost'))
  console.log(cluster.daemon(1).text.slice(-2000))
})
