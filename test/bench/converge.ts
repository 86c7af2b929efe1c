// `scripts/bench converge`: from leases in etcd to the kernel, repairs, memory and throughput, ours against flanneld.
import { existsSync } from 'node:fs'
import { peersDirectory } from '../lab/peers.ts'
import { type Churn, churn } from './churn.ts'
import { type Backend, Cluster } from './cluster.ts'
import { progress, report } from './report.ts'
import { numberOption, type Side, sides } from './sides.ts'
import { deletedRoutes, type Measured, smallMemory, startUp } from './start-up.ts'
import type { Row } from './statistics.ts'
import { throughput } from './throughput.ts'

const parts = ['vxlan', 'host-gw', 'direct', 'churn', 'repair', 'memory', 'throughput'] as const
/** What is measured without being named. */
const usual: readonly Part[] = ['vxlan', 'host-gw', 'repair', 'memory', 'throughput']
type Part = (typeof parts)[number]

const few = 10
const values = new Map<string, number[]>()
const notes: string[] = []

const measuredBy =
  (side: Side): Measured =>
  (what, value) => {
    const key = `${side.name} ${what}`
    values.set(key, [...(values.get(key) ?? []), value])
  }

function both(what: string): Pick<Row, 'ours' | 'peer'> {
  return { ours: values.get(`weft ${what}`) ?? [], peer: values.get(`flannel ${what}`) ?? [] }
}

/** Of a cluster that changes all the time. */
function churnRows(all: string, { perSecond, seconds }: Churn): readonly Row[] {
  return (['vxlan', 'host-gw', 'direct'] as const).flatMap((backend) => {
    const during = `${perSecond} changes a second for ${seconds} s, ${all} nodes, ${backend}`
    const row = (what: string, unit: string, name: string): Row => ({
      ...{ what: `${what}, ${during}`, unit, ...both(`${backend} ${name}`), target: 'not above' }
    })
    return [
      { ...row('change to route in the kernel', 'ms', 'churn'), by: 'p99' as const },
      row('processor time of the daemon', 's', 'churn processor'),
      row('resident memory of the daemon after it', 'MB', 'churn resident')
    ]
  })
}

function rows(leases: number): readonly Row[] {
  const all = leases.toLocaleString('en')
  return [
    {
      what: `${all} leases in etcd to kernel programmed, direct`,
      unit: 's',
      ...both('direct start'),
      target: 'at most 1/20'
    },
    {
      what: `new lease to route in the kernel, ${all} nodes, direct`,
      unit: 'ms',
      by: 'p99',
      ...both('direct new lease'),
      target: 'p99 at most 10 ms'
    },
    {
      what: `resident memory of the daemon, ${all} nodes, direct`,
      unit: 'MB',
      ...both('direct resident'),
      target: 'at most 1.5 times'
    },
    {
      what: `resident memory of the daemon, ${all} nodes, host-gw`,
      unit: 'MB',
      ...both('host-gw resident'),
      target: 'at most 1.5 times'
    },
    {
      what: `${all} leases in etcd to kernel programmed, vxlan`,
      unit: 's',
      ...both('vxlan start'),
      target: 'at most 1/5'
    },
    {
      what: `${all} leases in etcd to kernel programmed, host-gw`,
      unit: 's',
      ...both('host-gw start'),
      target: 'at most 1/20'
    },
    {
      what: `new lease to route in the kernel, ${all} nodes, vxlan`,
      unit: 'ms',
      by: 'p99',
      ...both('vxlan new lease'),
      target: 'p99 at most 10 ms'
    },
    {
      what: `new lease to route in the kernel, ${all} nodes, host-gw`,
      unit: 'ms',
      by: 'p99',
      ...both('host-gw new lease'),
      target: 'p99 at most 10 ms'
    },
    { what: 'a deleted route is back, vxlan', unit: 'ms', ...both('vxlan repair'), target: '50 ms' },
    {
      what: 'a deleted route is back, host-gw',
      unit: 'ms',
      ...both('host-gw repair'),
      target: '50 ms'
    },
    {
      what: `resident memory of the daemon, ${few} nodes`,
      unit: 'MB',
      ...both('few resident'),
      target: 'at most 1.5 times'
    },
    {
      what: `anonymous memory of the daemon, ${few} nodes`,
      unit: 'MB',
      ...both('few anonymous'),
      target: '–'
    },
    {
      what: `resident memory of the daemon, ${all} nodes, vxlan`,
      unit: 'MB',
      ...both('vxlan resident'),
      target: 'at most 1.5 times'
    },
    {
      what: `anonymous memory of the daemon, ${all} nodes, vxlan`,
      unit: 'MB',
      ...both('vxlan anonymous'),
      target: '–'
    },
    {
      what: 'one TCP stream between pods, vxlan',
      unit: 'Gbit/s',
      ...both('vxlan stream'),
      target: 'not below'
    },
    {
      what: 'one TCP stream between pods, direct',
      unit: 'Gbit/s',
      ...both('host-gw stream'),
      target: 'not below'
    },
    {
      what: 'round trip between pods, vxlan',
      unit: 'µs',
      ...both('vxlan round trip'),
      target: 'not above'
    },
    {
      what: 'round trip between pods, direct',
      unit: 'µs',
      ...both('host-gw round trip'),
      target: 'not above'
    }
  ]
}

/** Many leases at start, and new ones; the sides in turn. */
async function converge(
  wanted: readonly Side[],
  backend: Backend,
  leases: number,
  rounds: number,
  events: number
): Promise<void> {
  await using cluster = await Cluster.start()
  await cluster.reset(backend, leases)
  for (let round = 0; round < rounds; round++) {
    for (const side of wanted) await startUp(cluster, side, backend, leases, round === 0 ? events : 0, measuredBy(side))
  }
}

/** Many leases, and changes all the time; the sides in turn. */
async function changing(wanted: readonly Side[], leases: number, rate: Churn): Promise<void> {
  for (const backend of ['vxlan', 'host-gw', 'direct'] as const) {
    await using cluster = await Cluster.start()
    await cluster.reset(backend, leases)
    for (const side of wanted) {
      await churn(cluster, side, backend, leases, rate, measuredBy(side), (text) => notes.push(text))
    }
  }
}

async function repair(wanted: readonly Side[], backend: Backend, rounds: number): Promise<void> {
  await using cluster = await Cluster.start()
  await cluster.reset(backend, few)
  for (const side of wanted) {
    // flanneld looks at its routes every 10 s with host-gw, and not at all with vxlan.
    const deadlineMs = 15_000
    for (const time of await deletedRoutes(cluster, side, backend, few, rounds, deadlineMs)) {
      if (time === null)
        notes.push(`${side.name}, ${backend}: a deleted route was not back after ${deadlineMs / 1000} s`)
      else measuredBy(side)(`${backend} repair`, time)
    }
  }
}

async function memory(wanted: readonly Side[], rounds: number): Promise<void> {
  await using cluster = await Cluster.start()
  await cluster.reset('vxlan', few)
  for (let round = 0; round < rounds; round++) {
    for (const side of wanted) await smallMemory(cluster, side, few, measuredBy(side))
  }
}

async function packets(wanted: readonly Side[], backend: Backend, rounds: number): Promise<void> {
  await using cluster = await Cluster.start()
  await throughput(cluster, wanted, backend, rounds, measuredBy)
}

function chosenParts(args: readonly string[]): readonly Part[] {
  const given = args.find((argument) => argument.startsWith('--only='))
  if (!given) return usual
  return given
    .slice('--only='.length)
    .split(',')
    .map((name) => {
      const part = parts.find((known) => known === name)
      if (!part) throw new Error(`${given}: no part is called "${name}"; there are ${parts.join(', ')}`)
      return part
    })
}

async function main(args: readonly string[]): Promise<void> {
  const leases = numberOption(args, 'leases', 5_000)
  const rounds = numberOption(args, 'rounds', 3)
  const events = numberOption(args, 'events', 100)
  const rate = { perSecond: numberOption(args, 'changes', 100), seconds: numberOption(args, 'seconds', 60) }
  if (!existsSync(`${peersDirectory()}/bin/flanneld`)) {
    throw new Error(
      'flanneld is missing, and nothing else can stand in for it; cure: install Go and a C compiler, then run scripts/peers'
    )
  }
  const wanted = sides(args)
  const work: Record<Part, () => Promise<void>> = {
    vxlan: () => converge(wanted, 'vxlan', leases, rounds, events),
    'host-gw': () => converge(wanted, 'host-gw', leases, rounds, events),
    direct: () => converge(wanted, 'direct', leases, rounds, events),
    churn: () => changing(wanted, leases, rate),
    repair: async () => {
      for (const backend of ['vxlan', 'host-gw'] as const) await repair(wanted, backend, rounds)
    },
    memory: () => memory(wanted, rounds),
    throughput: async () => {
      for (const backend of ['vxlan', 'host-gw'] as const) await packets(wanted, backend, rounds * 2)
    }
  }
  for (const part of chosenParts(args)) {
    progress(part)
    await work[part]()
  }
  report(
    'From leases to packets: weft against flanneld',
    [...rows(leases), ...churnRows(leases.toLocaleString('en'), rate)],
    [
      'leases to kernel: from starting the daemon until its routes (and FDB and neighbour entries) are all there; etcd in memory, made-up nodes',
      'direct: vxlan with DirectRouting, all nodes on one link',
      'new lease, change: from before the request to etcd until the kernel announced the route',
      ...notes
    ]
  )
}

await main(process.argv.slice(2))
