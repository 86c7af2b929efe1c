// `scripts/bench foreign`: what other programs' firewalls cost weftd, by their size, while they change and while they
// do not.
import { readFileSync } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import { Cluster } from '../lab/cluster.ts'
import type { Host } from '../lab/host.ts'
import { type Background, until } from '../lab/run.ts'
import type { Weftd } from '../lab/weftd.ts'
import { memoryOf } from './kernel-watch.ts'
import { progress, report } from './report.ts'
import { numberOption } from './sides.ts'
import type { Row } from './statistics.ts'

const args = process.argv.slice(2)
const ruleCount = numberOption(args, 'rules', 50_000)
const elementCount = numberOption(args, 'elements', 100_000)
const seconds = numberOption(args, 'seconds', 20)
const rounds = numberOption(args, 'rounds', 5)

const blocked = (n: number): string => `100.${64 + (n >> 16)}.${(n >> 8) & 255}.${n & 255}`
const list = <T>(count: number, of: (n: number) => T): readonly T[] => Array.from({ length: count }, (_, n) => of(n))
/** Scattered, so that neighbours have nothing in common. */
const scattered = (n: number): string => blocked((n * 40_503) & 0x3f_ffff)

const rules = (count: number): string =>
  `*filter\n:FORWARD ACCEPT [0:0]\n${list(count, (n) => `-A FORWARD -s ${scattered(n)}/32 -j DROP\n`).join('')}COMMIT\n`

const set = `table inet block {
  set bad { type ipv4_addr; elements = { ${list(elementCount, blocked).join(', ')} }
  }
  chain forward { type filter hook forward priority 0; policy accept; ip saddr @bad drop
  }
}
`

/** Processor time of a process, in milliseconds. */
function cpuMs(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11]) + Number(fields[12])) * 10
}

/** Percent of one processor during `work`, or during the seconds of the option. */
async function share(pid: number, work: () => Promise<unknown> = () => pause(seconds * 1000)): Promise<number> {
  const [start, before] = [performance.now(), cpuMs(pid)]
  await work()
  return ((cpuMs(pid) - before) / (performance.now() - start)) * 100
}

const values = new Map<string, number[]>()
function measured(what: string, value: number): void {
  values.set(what, [...(values.get(what) ?? []), value])
  progress(`${what}: ${value.toFixed(2)}`)
}

async function settled(): Promise<void> {
  await pause(10_000)
}

/** Milliseconds from a foreign drop until the kernel announces our accept. */
async function accepted(host: Host, monitor: Background, drop: string): Promise<number> {
  const said = () => monitor.text().split('weft').length
  const before = said()
  await host.sh(drop)
  const start = performance.now()
  await until(() => said() > before, { what: 'the accept', everyMs: 2 })
  return performance.now() - start
}

/** Elements that come and go, a thousand a second in transactions of a hundred. */
async function change(host: Host): Promise<void> {
  const block = (from: number) => list(50, (n) => `100.127.${from}.${n}`).join(', ')
  const end = performance.now() + seconds * 1000
  for (let turn = 0; performance.now() < end; turn++) {
    const next = performance.now() + 100
    const elements = `element inet block bad { ${block(turn & 255)} }`
    await host.sh(`nft 'add ${elements}; delete ${elements}'`)
    await pause(Math.max(0, next - performance.now()))
  }
}

async function nftables(host: Host, daemon: Weftd): Promise<void> {
  const before = memoryOf(daemon.pid).resident
  measured('nft idle, without rules', await share(daemon.pid))
  await host.exec('iptables-nft-restore', [], { input: rules(ruleCount) })
  await host.exec('nft', ['-f', '-'], { input: set })
  await settled()
  measured('nft memory', memoryOf(daemon.pid).resident - before)
  measured('nft idle', await share(daemon.pid))
  measured('nft elements', await share(daemon.pid, () => change(host)))
  await using monitor = host.spawn('stdbuf', ['-oL', 'nft', 'monitor', 'new', 'rules'])
  await settled()
  for (let round = 0; round < rounds; round++) {
    measured('nft accept', await accepted(host, monitor, 'iptables-nft -P FORWARD DROP'))
    await host.sh('iptables-nft -P FORWARD ACCEPT')
    await settled()
  }
  measured('nft memory after changes', memoryOf(daemon.pid).resident - before)
  await host.sh('nft delete table inet block; nft delete table ip filter')
}

async function legacy(host: Host, daemon: Weftd): Promise<void> {
  await settled()
  const before = memoryOf(daemon.pid).resident
  await host.exec('iptables-legacy-restore', [], { input: rules(20_000) })
  await settled()
  measured('legacy memory', memoryOf(daemon.pid).resident - before)
  measured('legacy idle', await share(daemon.pid))
  await host.sh('iptables-legacy -F FORWARD')
}

const row = (what: string, unit: string, key: string, target: string): Row => ({
  what,
  unit,
  ours: values.get(key) ?? [],
  peer: [],
  target
})

await using cluster = await Cluster.start({ hosts: [1], etcd: { memory: true } })
const [host, daemon] = [cluster.node(1), cluster.daemon(1)]
await settled()
await nftables(host, daemon)
await legacy(host, daemon)
const size = `${ruleCount.toLocaleString('en')} foreign rules and a set of ${elementCount.toLocaleString('en')} elements`
report(
  "Other programs' firewalls",
  [
    row(`resident memory for ${size}`, 'MB', 'nft memory', 'under 20 MiB'),
    row('the same, after changes', 'MB', 'nft memory after changes', 'under 20 MiB'),
    row('processor while nothing changes, without rules', '%', 'nft idle, without rules', '–'),
    row('processor while nothing changes', '%', 'nft idle', 'as without'),
    row('processor while 1,000 elements a second change', '%', 'nft elements', 'under 1 %'),
    row('a foreign drop until our accept is in its chain', 'ms', 'nft accept', '1 s'),
    row('resident memory for 20,000 rules of iptables-legacy', 'MB', 'legacy memory', '–'),
    row('processor while nothing changes, iptables-legacy', '%', 'legacy idle', '–')
  ],
  []
)
