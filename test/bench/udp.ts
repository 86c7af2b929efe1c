// scripts/bench udp: the udp backend on a TUN device against flanneld's proxy, between pods of two hosts each, in
// interleaved rounds: TCP of one stream, processor time of the processes that carry packets, and round trips. With the
// segmentation offloads of the link between the hosts, as on virtual links, and without, as with a plain network card.
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { loadavg } from 'node:os'
import { cni } from '../lab/cni.ts'
import { Etcd } from '../lab/etcd.ts'
import type { Host } from '../lab/host.ts'
import { Lab } from '../lab/hosts.ts'
import type { Place } from '../lab/lab-scene.ts'
import { until } from '../lab/run.ts'
import { carrying, UDP } from '../lab/udp-scene.ts'
import { progress, report } from './report.ts'
import { numberOption, type Side, sides } from './sides.ts'
import type { Row } from './statistics.ts'

const LINKS = ['on', 'off'] as const
/** The process that carries packets, by its name. */
const CARRIER = { weft: 'weftd-udp', flannel: 'flanneld' } as const

type Pair = {
  readonly side: Side
  readonly hosts: readonly Host[]
  readonly client: Place
  readonly address: string
  readonly pids: readonly number[]
}
type Measured = { readonly rate: number; readonly seconds: number; readonly roundTrip: number }

/** In this process's namespace. */
function carrierOn(host: Host, side: Side): number {
  const network = readlinkSync(`/proc/${host.pid}/ns/net`)
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const name = readFileSync(`/proc/${pid}/comm`, 'utf8').trim()
      if (name === CARRIER[side.name] && readlinkSync(`/proc/${pid}/ns/net`) === network) return Number(pid)
    } catch {
      // It has ended.
    }
  }
  throw new Error(`no ${CARRIER[side.name]} on ${host.name}`)
}

/** Two hosts with the side's daemon and a pod each; the second pod serves iperf3. An etcd for each side. */
async function pairOf(lab: Lab, side: Side): Promise<Pair> {
  const [first, second] = [await lab.addHost({ forward: true }), await lab.addHost({ forward: true })]
  const etcd = await Etcd.start(lab, { hosts: [first], memory: true })
  await etcd.put('/coreos.com/network/config', JSON.stringify(UDP))
  const ends: { readonly place: Place; readonly address: string }[] = []
  for (const host of [first, second]) {
    await side.daemon(host, etcd)
    if (side.name === 'weft') await carrying(host)
    const pod = await host.pod(`${side.name}-${host.name}`)
    const call = { verb: 'ADD' as const, config: side.conflist, binDir: side.binDir }
    const { result } = await cni(host, { ...call, containerId: pod.name, netns: pod.netns })
    const [ip] = (result?.ips ?? []) as readonly { readonly address: string }[]
    ends.push({ place: pod, address: String(ip?.address.split('/')[0]) })
  }
  const [client, server] = ends
  if (client === undefined || server === undefined) throw new Error('no pods')
  const listener = server.place.spawn('iperf3', ['-s', '--forceflush'], { name: 'iperf3' })
  await until(() => listener.text().includes('listening'), { what: 'iperf3 to listen' })
  await until(async () => (await client.place.ping(server.address)).received === 1, { what: `${side.name} to answer` })
  const hosts = [first, second]
  return {
    side,
    hosts,
    client: client.place,
    address: server.address,
    pids: hosts.map((host) => carrierOn(host, side))
  }
}

/** Seconds of processor time so far. */
const processorOf = (pids: readonly number[]): number =>
  pids.reduce((sum, pid) => {
    // Of proc_pid_stat(5), behind the name: user and system time in hundredths of a second.
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
      .replace(/^.*\) /, '')
      .split(' ')
    return sum + (Number(fields[11]) + Number(fields[12])) / 100
  }, 0)

async function measure({ client, address, pids }: Pair, seconds: number): Promise<Measured> {
  const before = processorOf(pids)
  const { stdout } = await client.exec('iperf3', ['-c', address, '-t', String(seconds), '-J'], {
    timeoutMs: (seconds + 30) * 1_000
  })
  const used = processorOf(pids) - before
  const answer = JSON.parse(stdout) as { readonly end: { readonly sum_received: Record<string, number> } }
  const { bits_per_second: rate = 0, bytes = 0 } = answer.end.sum_received
  const ping = await client.exec('ping', ['-n', '-q', '-i', '0.005', '-c', '200', address])
  const mean = Number(/= [\d.]+\/([\d.]+)\//.exec(ping.stdout)?.[1])
  return { rate: rate / 1e9, seconds: used / ((bytes * 8) / 1e9), roundTrip: mean * 1_000 }
}

async function setOffloads({ hosts }: Pair, state: (typeof LINKS)[number]): Promise<void> {
  for (const host of hosts) await host.exec('ethtool', ['-K', 'eth0', 'tso', state, 'gso', state])
}

const args = process.argv.slice(2)
const [rounds, seconds] = [numberOption(args, 'rounds', 5), numberOption(args, 'seconds', 3)]
await using lab = await Lab.start({ hosts: [] })
const pairs: Pair[] = []
for (const side of sides(args)) pairs.push(await pairOf(lab, side))
const found = new Map<string, Measured[]>()
const loads: number[] = []
for (let round = 0; round < rounds; round++)
  for (const state of LINKS)
    for (const pair of pairs) {
      await setOffloads(pair, state)
      const measured = await measure(pair, seconds)
      loads.push(loadavg()[0] ?? 0)
      const key = `${pair.side.name} ${state}`
      found.set(key, [...(found.get(key) ?? []), measured])
      const { rate, roundTrip } = measured
      progress(
        `${key}: ${rate.toFixed(2)} Gbit/s, ${measured.seconds.toFixed(2)} s a Gbit, ${Math.round(roundTrip)} µs`
      )
    }

const rows = LINKS.flatMap((state): readonly Row[] => {
  const of = (what: keyof Measured) => ({
    ours: (found.get(`weft ${state}`) ?? []).map((each) => each[what]),
    peer: (found.get(`flannel ${state}`) ?? []).map((each) => each[what])
  })
  return [
    { what: `TCP, offloads ${state}`, unit: 'Gbit/s', ...of('rate'), target: 'at least 8 times' },
    { what: `processor, offloads ${state}`, unit: 's a Gbit', ...of('seconds'), target: 'at most 0.15' },
    { what: `round trip, offloads ${state}`, unit: 'µs', ...of('roundTrip'), target: 'within the spread' }
  ]
})
report('scripts/bench udp', rows, [
  'data path: a TUN device and weftd udp-proxy; flanneld: its C proxy',
  `load of the machine: ${Math.min(...loads).toFixed(1)} to ${Math.max(...loads).toFixed(1)}`
])
