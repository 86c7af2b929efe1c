// scripts/bench probe: what asking 10, 500 and 5,000 peers costs a node: processor time, memory and packets. The peers
// are made up: the kernel of one other namespace answers for all their addresses.
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { Lab } from '../lab/hosts.ts'
import type { Cost } from './probe-worker.ts'
import { progress } from './report.ts'

const { values } = parseArgs({
  options: { seconds: { type: 'string', default: '30' }, peers: { type: 'string', default: '10,500,5000' } }
})
const worker = fileURLToPath(new URL('probe-worker.ts', import.meta.url))
/** The share of a processor, and the megabytes, that 5,000 peers may cost. */
const TARGET = { processor: 0.002, bytes: 1_000_000 }

await using lab = await Lab.start({ hosts: [2] })
const [one, two] = [lab.host(1), lab.host(2)]
for (const prefix of ['10.64.0.0/11', '198.18.0.0/15']) {
  await one.sh(`ip route add ${prefix} via ${two.address}`)
  // Any address of the prefix is the kernel's own.
  await two.sh(`ip route add local ${prefix} dev lo`)
}
await one.sh('ip address add 10.200.0.0/32 dev eth0')
await two.sh(`ip route add 10.200.0.0/32 via ${one.address}`)

const rows: Cost[] = []
for (const peers of values.peers.split(',').map(Number)) {
  progress(`${peers} peers`)
  const args = ['--expose-gc', worker, String(peers), values.seconds, one.address]
  const { stdout } = await one.exec(process.execPath, args, { timeoutMs: 600_000 })
  rows.push(JSON.parse(stdout))
}
const percent = (share: number) => `${(100 * share).toFixed(3)} %`
const lines = rows.map(
  ({ peers, processor, idle, bytes, packets, whole }) =>
    `| ${peers} | ${whole} | ${percent(processor - idle)} | ${(bytes / 1e6).toFixed(2)} | ${packets.toFixed(1)} |`
)
process.stdout.write(
  `${['| peers | whole | processor | MB | probes/s |', '| --- | --- | --- | --- | --- |', ...lines].join('\n')}\n`
)
const most = rows.at(-1)
if (most === undefined || most.processor - most.idle > TARGET.processor || most.bytes > TARGET.bytes) {
  progress(`5,000 peers may cost ${percent(TARGET.processor)} of a processor and ${TARGET.bytes / 1e6} MB`)
  process.exitCode = 1
}
