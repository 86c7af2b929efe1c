// `scripts/bench cni`: one pod's ADD and DEL, a hundred at once, memory, size and start-up, ours against flannel's
// chain of plugins.
import { existsSync, statSync } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import { Etcd } from '../lab/etcd.ts'
import type { Host } from '../lab/host.ts'
import { Lab } from '../lab/hosts.ts'
import { peersDirectory } from '../lab/peers.ts'
import { Breakdown } from './breakdown.ts'
import type { CallerAnswer, CallerJob } from './caller.ts'
import { LineWorker } from './line-worker.ts'
import { progress, report } from './report.ts'
import { type Daemon, numberOption, type PodCall, podJob, type Side, sides } from './sides.ts'
import type { Row } from './statistics.ts'

/** One side with its node: a host, the daemon on it, the caller inside it, and what was measured. */
interface Contender {
  readonly side: Side
  readonly host: Host
  readonly daemon: Daemon
  readonly caller: LineWorker<readonly CallerJob[], CallerAnswer>
  readonly measured: Map<string, number[]>
}

/** Two ports each way of reaching the pod, as a small web server has them. */
const hostPorts = [
  { hostPort: 30_080, containerPort: 80, protocol: 'tcp' },
  { hostPort: 30_443, containerPort: 443, protocol: 'tcp' }
]

function note(contender: Contender, what: string, value: number): void {
  const values = contender.measured.get(what) ?? []
  values.push(value)
  contender.measured.set(what, values)
}

async function call(contender: Contender, jobs: readonly CallerJob[]): Promise<CallerAnswer> {
  const answer = await contender.caller.ask(jobs)
  if (answer.failures.length > 0) {
    throw new Error(
      `${contender.side.name}: ${answer.failures.length} calls failed, first: ${answer.failures[0]}\n${contender.daemon.log.slice(-2000)}`
    )
  }
  return answer
}

/** Namespaces as a runtime makes them, all by one script. */
async function makePods(host: Host, count: number): Promise<readonly string[]> {
  const names = Array.from({ length: count }, (_, index) => `bench${index}`)
  await host.sh(`for n in ${names.join(' ')}; do : > /run/netns/$n; unshare --net=/run/netns/$n true; done`, {
    timeoutMs: 60_000
  })
  return names.map((name) => `/run/netns/${name}`)
}

/**
 * Milliseconds in which the kernel ends what a call leaves behind: link events after an ADD, grace periods after a DEL.
 * No pod ends sooner.
 */
const settledMs = 100

let pods = 0

/**
 * ADD and DEL of one pod; its namespace is used again, so that the kernel's clean-up of namespaces stays out of the
 * measurement.
 */
async function onePod(contender: Contender, netns: string, ports: PodCall['hostPorts'], name: string): Promise<void> {
  const pod = { containerId: `bench-${pods++}`, netns, ...(ports ? { hostPorts: ports } : {}) }
  for (const verb of ['ADD', 'DEL'] as const) {
    const { microseconds } = await call(contender, [podJob(contender.side, { verb, ...pod })])
    note(contender, `${verb} ${name}`, (microseconds[0] ?? Number.NaN) / 1000)
    await pause(settledMs)
  }
}

/** All pods at once, then all away at once: pods a second. */
async function manyPods(contender: Contender, all: readonly string[]): Promise<void> {
  const calls = all.map((netns) => ({ containerId: `bench-${pods++}`, netns }))
  for (const verb of ['ADD', 'DEL'] as const) {
    const { wallMicroseconds } = await call(
      contender,
      calls.map((pod) => podJob(contender.side, { verb, ...pod }))
    )
    note(contender, `${verb} many`, (calls.length * 1e6) / wallMicroseconds)
  }
}

/** Largest resident memory of the executables of an ADD, by GNU time, in MB. */
async function memory(contender: Contender, netns: string): Promise<void> {
  const pod = { containerId: `bench-${pods++}`, netns }
  const { steps, env } = podJob(contender.side, { verb: 'ADD', ...pod })
  // The first step is the one that attaches; what it starts in turn counts with it.
  const [step] = steps
  const { stderr } = await contender.host.exec('time', ['-f', '%M', String(step?.path)], {
    input: JSON.stringify(step?.config),
    env
  })
  note(contender, 'memory', Number(stderr.trim().split('\n').at(-1)) / 1000)
  await call(contender, [podJob(contender.side, { verb: 'DEL', ...pod })])
}

function versionJob(path: string): CallerJob {
  const env = { CNI_COMMAND: 'VERSION', CNI_CONTAINERID: '', CNI_NETNS: '', CNI_IFNAME: '', CNI_ARGS: '', CNI_PATH: '' }
  return { chain: false, steps: [{ path, config: { cniVersion: '1.0.0' } }], env }
}

/** VERSION of both sides and Go's hello, in turn. */
async function startUp(contenders: readonly Contender[], rounds: number, hello: number[]): Promise<void> {
  const [first] = contenders
  if (!first) return
  const executable = `${peersDirectory()}/bin/hello`
  const goHello = existsSync(executable)
  const go = versionJob(executable)
  for (let round = 0; round < rounds; round++) {
    for (const contender of contenders) {
      const path = `${contender.side.binDir}/${contender.side.name === 'weft' ? 'weft' : 'bridge'}`
      note(contender, 'VERSION', ((await call(contender, [versionJob(path)])).microseconds[0] ?? Number.NaN) / 1000)
    }
    if (goHello) hello.push(((await call(first, [go])).microseconds[0] ?? Number.NaN) / 1000)
  }
}

function rows(contenders: readonly Contender[], hello: readonly number[], many: number): readonly Row[] {
  const of = (name: Side['name'], what: string) =>
    contenders.find(({ side }) => side.name === name)?.measured.get(what) ?? []
  const both = (what: string) => ({ ours: of('weft', what), peer: of('flannel', what) })
  const sizes = (name: Side['name'], executable: string) =>
    contenders
      .filter(({ side }) => side.name === name)
      .map(({ side }) => statSync(`${side.binDir}/${executable}`).size / 1e6)
  return [
    { what: 'pod ADD', unit: 'ms', ...both('ADD plain'), target: 'at most 1/4' },
    { what: 'pod DEL', unit: 'ms', ...both('DEL plain'), target: 'at most 1/8' },
    { what: 'pod ADD, two host ports', unit: 'ms', ...both('ADD ports'), target: 'at most 1/10' },
    { what: 'pod DEL, two host ports', unit: 'ms', ...both('DEL ports'), target: 'at most 1/30' },
    { what: `${many} ADDs at once`, unit: 'pods/s', ...both('ADD many'), target: 'at least 4 times' },
    { what: `${many} DELs at once`, unit: 'pods/s', ...both('DEL many'), target: 'at least 20 times' },
    { what: 'resident memory of one ADD call', unit: 'MB', ...both('memory'), target: 'at most 4 MB' },
    {
      what: 'size of the executable',
      unit: 'MB',
      ours: sizes('weft', 'weft'),
      peer: sizes('flannel', 'bridge'),
      target: 'at most 3 MB',
      note: 'peer: bridge alone'
    },
    {
      what: 'VERSION',
      unit: 'ms',
      ours: of('weft', 'VERSION'),
      peer: hello,
      target: 'at most 2 times',
      note: 'peer: Go hello'
    },
    { what: 'VERSION', unit: 'ms', ...both('VERSION'), target: '–', note: 'peer: bridge' }
  ]
}

async function main(args: readonly string[]): Promise<void> {
  const rounds = numberOption(args, 'rounds', 40)
  const many = numberOption(args, 'pods', 100)
  const wanted = sides(args)
  await using lab = await Lab.start({ hosts: [wanted.length] })
  const etcd = await Etcd.start(lab, { memory: true })
  await etcd.put(
    '/coreos.com/network/config',
    JSON.stringify({ Network: '10.32.0.0/12', SubnetLen: 20, Backend: { Type: 'vxlan', DirectRouting: true } })
  )
  const contenders: Contender[] = []
  for (const [index, side] of wanted.entries()) {
    const host = lab.host(index + 1)
    const daemon = await side.daemon(host, etcd)
    const caller = new LineWorker<readonly CallerJob[], CallerAnswer>(host, new URL('caller.ts', import.meta.url))
    contenders.push({ side, host, daemon, caller, measured: new Map() })
  }
  const places = await Promise.all(contenders.map(({ host }) => makePods(host, many)))
  const each = async (
    what: string,
    count: number,
    work: (contender: Contender, netns: readonly string[]) => Promise<void>
  ) => {
    progress(`${what}, ${count} rounds`)
    for (let round = 0; round < count; round++) {
      for (const [index, contender] of contenders.entries()) await work(contender, places[index] ?? [])
    }
  }
  const ours = contenders.find(({ side }) => side.name === 'weft')
  const breakdown = ours && new Breakdown(ours.host)
  // One round for caches and the bridge, not counted.
  await each('warm-up', 1, (contender, [netns = '']) => onePod(contender, netns, hostPorts, 'warm'))
  await breakdown?.begin()
  await each('one pod', rounds, (contender, [netns = '']) => onePod(contender, netns, undefined, 'plain'))
  await breakdown?.end('one pod')
  await breakdown?.begin()
  await each('one pod with two host ports', rounds, (contender, [netns = '']) =>
    onePod(contender, netns, hostPorts, 'ports')
  )
  await breakdown?.end('two host ports')
  await each(`${many} pods at once`, Math.max(3, Math.round(rounds / 8)), manyPods)
  await each('memory', 5, (contender, [netns = '']) => memory(contender, netns))
  const hello: number[] = []
  await startUp(contenders, rounds * 3, hello)
  await Promise.all(contenders.map(({ caller }) => caller[Symbol.asyncDispose]()))
  report('CNI calls: weft against flannel → bridge → host-local, + portmap', rows(contenders, hello, many), [
    'times are from posix_spawn to the end of each executable, added up over the chain, on a host with the daemon running (flanneld or weftd, etcd)'
  ])
  if (breakdown !== undefined) process.stdout.write(`\n${breakdown.table()}\n`)
}

await main(process.argv.slice(2))
