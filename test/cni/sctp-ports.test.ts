// A host port for SCTP: what comes to it reaches the pod at its own port, and what the pod answers comes from the host
// port.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Cluster } from '../lab/cluster.ts'
import type { Place } from '../lab/lab-scene.ts'
import { until } from '../lab/run.ts'
import { skip } from './cni-host.ts'

const script = fileURLToPath(new URL('../lab/sctp-packet.ts', import.meta.url))

/** Sends until the packet is seen at the other end, in the words of tcpdump. */
async function arrives(from: Place, packet: readonly string[], at: Place, seen: string): Promise<void> {
  const capture = at.spawn('tcpdump', ['-n', '-l', '-i', 'eth0', 'sctp'])
  await until(() => capture.text().includes('listening'), { what: 'tcpdump to listen' })
  const send = () => from.exec(process.execPath, [script, ...packet])
  await until(async () => (await send()) && capture.text().includes(seen), { what: seen, everyMs: 200 }).finally(() =>
    capture.stop()
  )
}

describe('a host port', { skip }, () => {
  for (const mode of ['bridge', 'routed'] as const) {
    test(`for SCTP leads to the pod and back, is taken for others, and is gone with the pod, in ${mode} mode`, async () => {
      await using cluster = await Cluster.start({ hosts: [2] })
      const [here, there] = [cluster.node(1), cluster.node(2)]
      const config = (hostPort: number, containerPort: number) => ({
        mode,
        runtimeConfig: { portMappings: [{ hostPort, containerPort, protocol: 'sctp' }] }
      })
      const { pod, id, address } = await cluster.pod(here, config(3868, 80))
      const [client, server] = [`${there.address}.5000`, `${address}.80`]
      await arrives(there, ['INIT', '5000', here.address, '3868'], pod, `${client} > ${server}: sctp (1) [INIT]`)
      const answer = `${here.address}.3868 > ${client}: sctp (1) [INIT ACK]`
      await arrives(pod, ['INIT-ACK', '80', there.address, '5000'], there, answer)
      const other = await here.pod('other')
      const refused = await cluster.call(here, 'ADD', 'other', other.netns, config(3868, 81), { check: false })
      assert.match(refused.error?.msg ?? '', new RegExp(`host port 3868/sctp.* is taken by pod lab/${id}`))
      // Each protocol has ports of its own.
      const udp = { mode, runtimeConfig: { portMappings: [{ hostPort: 3868, containerPort: 81, protocol: 'udp' }] } }
      await cluster.call(here, 'ADD', 'other', other.netns, udp)
      await cluster.call(here, 'DEL', id, pod.netns)
      const { stdout } = await here.exec('nft', ['list', 'ruleset'])
      assert.equal(stdout.includes('sctp . 3868'), false)
      assert.ok(stdout.includes('udp . 3868'))
    })
  }
})
