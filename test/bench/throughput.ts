// Rows of scripts/bench converge about packets: one TCP stream and round trips between pods of two hosts, each side
// with its own pair.
import { cni } from '../lab/cni.ts'
import type { Place } from '../lab/lab-scene.ts'
import type { Pod } from '../lab/pod.ts'
import { until } from '../lab/run.ts'
import type { Backend, Cluster } from './cluster.ts'
import { progress } from './report.ts'
import type { Side } from './sides.ts'
import type { Measured } from './start-up.ts'

interface Pair {
  readonly name: string
  readonly client: Place
  readonly address: string
}

/** Two hosts with the side's daemon and a pod each; the second pod serves iperf3. */
async function pair(cluster: Cluster, side: Side): Promise<Pair> {
  const pods: { readonly pod: Pod; readonly address: string }[] = []
  for (const end of ['client', 'server']) {
    const host = await cluster.host()
    await side.daemon(host, cluster.etcd)
    const pod = await host.pod(`${side.name}-${end}`)
    const { result } = await cni(host, {
      verb: 'ADD',
      config: side.conflist,
      binDir: side.binDir,
      containerId: pod.name,
      netns: pod.netns
    })
    const [first] = (result?.ips ?? []) as readonly { readonly address: string }[]
    if (!first) throw new Error(`${side.name}: ADD returned no address: ${JSON.stringify(result)}`)
    pods.push({ pod, address: String(first.address.split('/')[0]) })
  }
  const [client, server] = pods
  if (!client || !server) throw new Error('two pods are needed')
  const listener = server.pod.spawn('iperf3', ['-s', '--forceflush'], { name: 'iperf3' })
  await until(() => listener.text().includes('listening'), { what: 'iperf3 to listen' })
  await until(async () => (await client.pod.ping(server.address)).received === 1, {
    what: `an answer between pods of ${side.name}`
  })
  return { name: side.name, client: client.pod, address: server.address }
}

/** Gbit/s of one TCP stream over `seconds`. */
async function stream({ client, address }: Pair, seconds: number): Promise<number> {
  const { stdout } = await client.exec('iperf3', ['-c', address, '-t', String(seconds), '-J'], {
    timeoutMs: (seconds + 20) * 1000
  })
  const answer = JSON.parse(stdout) as { readonly end: { readonly sum_received: { readonly bits_per_second: number } } }
  return answer.end.sum_received.bits_per_second / 1e9
}

/** Mean round trip in microseconds over 500 pings, 2 ms apart. */
async function roundTrip({ client, address }: Pair): Promise<number> {
  const { stdout } = await client.exec('ping', ['-n', '-q', '-i', '0.002', '-c', '500', address])
  const mean = /= [\d.]+\/([\d.]+)\//.exec(stdout)?.[1]
  if (!mean) throw new Error(`no round trip times in ${stdout}`)
  return Number(mean) * 1000
}

/** Interleaved rounds of streams and round trips for each side's pair. */
export async function throughput(
  cluster: Cluster,
  sides: readonly Side[],
  backend: Backend,
  rounds: number,
  measured: (side: Side) => Measured
): Promise<void> {
  await cluster.reset(backend, 0)
  const pairs: { readonly side: Side; readonly pair: Pair }[] = []
  for (const side of sides) pairs.push({ side, pair: await pair(cluster, side) })
  for (let round = 0; round < rounds; round++) {
    for (const { side, pair } of pairs) {
      const rate = await stream(pair, 3)
      measured(side)(`${backend} stream`, rate)
      measured(side)(`${backend} round trip`, await roundTrip(pair))
      progress(`${side.name} ${backend}: ${rate.toFixed(2)} Gbit/s`)
    }
  }
}
