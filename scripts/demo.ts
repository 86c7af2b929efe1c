// The program of scripts/demo: real daemons and real CNI calls on hosts that are namespaces, and a matrix of who
// reaches whom.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { cni } from '../test/lab/cni.ts'
import { Etcd } from '../test/lab/etcd.ts'
import type { Host } from '../test/lab/host.ts'
import { Lab } from '../test/lab/hosts.ts'
import { labOwner } from '../test/lab/names.ts'
import type { Pod } from '../test/lab/pod.ts'
import { until } from '../test/lab/run.ts'
import { removeLab } from '../test/lab/sweep.ts'
import { Weftd } from '../test/lab/weftd.ts'

const BIN = fileURLToPath(new URL('../dist/cni', import.meta.url))
const PREFIX = '/coreos.com/network'

type DemoPod = { readonly host: Host; readonly pod: Pod; readonly address: string; readonly microseconds: number }
type DemoOptions = {
  readonly nodes: number
  readonly pods: number
  readonly backend: 'vxlan' | 'host-gw'
  readonly store: 'embedded' | 'etcd'
  readonly keep: boolean
}

const begun = performance.now()
const say = (text: string) =>
  process.stderr.write(`${((performance.now() - begun) / 1000).toFixed(1).padStart(5)} s  ${text}\n`)

function fail(message: string, cure: string): never {
  process.stderr.write(`demo: ${message}\ncure: ${cure}\n`)
  process.exit(2)
}

function demoOptions(): DemoOptions {
  const number = (name: string, text: string, most: number): number => {
    const value = Number(text)
    return Number.isInteger(value) && value >= 1 && value <= most
      ? value
      : fail(`--${name} is ${JSON.stringify(text)}`, `use a whole number from 1 to ${most}`)
  }
  const choice = <T extends string>(name: string, text: string, ...allowed: readonly T[]): T =>
    allowed.find((word) => word === text) ??
    fail(`--${name} is ${JSON.stringify(text)}`, `use one of ${allowed.join(', ')}`)
  try {
    const { values } = parseArgs({
      options: {
        nodes: { type: 'string', default: '3' },
        pods: { type: 'string', default: '2' },
        backend: { type: 'string', default: 'vxlan' },
        store: { type: 'string', default: 'embedded' },
        keep: { type: 'boolean', default: false },
        check: { type: 'boolean', default: false },
        remove: { type: 'string' }
      }
    })
    if (values.remove !== undefined) {
      if (values.check) process.exit(0)
      if (labOwner(values.remove) === undefined)
        fail(`there is no lab ${JSON.stringify(values.remove)}`, 'use the name that --keep printed')
      removeLab(values.remove)
      process.stdout.write(`removed ${values.remove}: its hosts, their processes and its files\n`)
      process.exit(0)
    }
    const options: DemoOptions = {
      nodes: number('nodes', values.nodes, 50),
      pods: number('pods', values.pods, 100),
      backend: choice('backend', values.backend, 'vxlan', 'host-gw'),
      store: choice('store', values.store, 'embedded', 'etcd'),
      keep: values.keep
    }
    if (values.check) process.exit(0)
    return options
  } catch (error) {
    return fail(error instanceof Error ? error.message : String(error), 'scripts/demo --help lists the options')
  }
}

/** With vxlan the last host is behind a router, so that both kinds of path are shown; host-gw needs one link. */
const hasRouter = ({ nodes, backend }: DemoOptions): boolean => backend === 'vxlan' && nodes > 1

const segments = (options: DemoOptions): readonly number[] =>
  hasRouter(options) ? [options.nodes - 1, 1] : [options.nodes]

async function startDaemons(
  lab: Lab,
  { backend, store }: DemoOptions,
  hosts: readonly Host[]
): Promise<readonly Weftd[]> {
  const configuration = JSON.stringify(
    {
      Network: '10.244.0.0/16',
      Backend: backend === 'vxlan' ? { Type: backend, DirectRouting: true } : { Type: backend }
    },
    null,
    2
  )
  const file = join(lab.directory, 'net-conf.json')
  writeFileSync(file, configuration)
  let args = ['--store=embedded', `--embedded-path=${join(lab.directory, 'leases.db')}`, `--net-config-path=${file}`]
  if (store === 'etcd') {
    const etcd = await Etcd.start(lab)
    await etcd.put(`${PREFIX}/config`, configuration)
    args = [`--etcd-endpoints=${etcd.endpointList}`]
  }
  return Promise.all(hosts.map((host) => Weftd.start(host, { args: [...args, '--ip-masq'] })))
}

/** Like a container runtime: creates a namespace, then calls ADD of the executable. */
async function addPod(host: Host, name: string): Promise<DemoPod> {
  const pod = await host.pod(name)
  // The usual name, which is that of the reservations: a pod made by hand as in docs/troubleshooting.md must get
  // another address.
  const config = { cniVersion: '1.1.0', name: 'cbr0', type: 'weft' }
  const args = `IgnoreUnknown=1;K8S_POD_NAMESPACE=demo;K8S_POD_NAME=${name}`
  const { result, microseconds } = await cni(host, {
    verb: 'ADD',
    config,
    binDir: BIN,
    containerId: name,
    netns: pod.netns,
    args
  })
  const [first] = (result?.ips ?? []) as readonly { readonly address: string }[]
  if (first === undefined) throw new Error(`ADD of ${name} on ${host.name} gave no address: ${JSON.stringify(result)}`)
  return { host, pod, address: first.address.split('/')[0] ?? '', microseconds }
}

/** 1 is a, 26 is z, 27 is aa. */
const letters = (n: number): string =>
  n < 1 ? '' : letters(Math.floor((n - 1) / 26)) + String.fromCharCode(97 + ((n - 1) % 26))

const table = (rows: readonly (readonly string[])[]): string => {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)))
  return rows
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd()
    )
    .join('\n')
}

/**
 * How packets leave this host for that address: `direct` by a plain route, `vxlan` by the tunnel, `local` on one host.
 */
async function pathTo(from: DemoPod, to: DemoPod): Promise<string> {
  if (from.host === to.host) return 'local'
  const [route] = (await from.host.ip('route', 'get', to.address)) as readonly { readonly dev?: string }[]
  return route?.dev?.startsWith('weft') ? 'vxlan' : 'direct'
}

async function cell(from: DemoPod, to: DemoPod): Promise<{ readonly text: string; readonly reached: boolean }> {
  if (from === to) return { text: '·', reached: true }
  // The first packet of a pair waits for ARP; the others know a node that has just joined some milliseconds later.
  await until(async () => (await from.pod.ping(to.address)).received > 0, { what: '', deadlineMs: 5_000 }).catch(
    () => {}
  )
  const { received, rttMs } = await from.pod.ping(to.address, { count: 5 })
  if (received === 0) return { text: 'UNREACHED', reached: false }
  return { text: `${rttMs?.toFixed(3)} ${await pathTo(from, to)}`, reached: true }
}

async function matrix(pods: readonly DemoPod[]): Promise<boolean> {
  const rows: string[][] = [['from \\ to', ...pods.map(({ pod }) => pod.name)]]
  let complete = true
  for (const from of pods) {
    const cells = await Promise.all(pods.map((to) => cell(from, to)))
    rows.push([from.pod.name, ...cells.map(({ text }) => text)])
    complete &&= cells.every(({ reached }) => reached)
  }
  process.stdout.write(`\nRound-trip times in milliseconds, and by which path\n\n${table(rows)}\n\n`)
  return complete
}

async function howToLookAround(lab: Lab, pods: readonly DemoPod[], daemons: readonly Weftd[]): Promise<void> {
  const [first] = pods
  const last = pods.at(-1)
  if (first === undefined || last === undefined) return
  const { host } = first
  const hasTunnel = (await host.exec('ip', ['link', 'show', 'dev', 'weft.1'], { check: false })).code === 0
  const weftctl = fileURLToPath(new URL('../dist/bin/weftctl', import.meta.url))
  const enter = host.prefix
  const lines = [
    'Everything is left running. Look around, for example on the first host:',
    `  ${enter} ip route`,
    ...(hasTunnel ? [`  ${enter} bridge fdb show dev weft.1`, `  ${enter} ip neigh show dev weft.1`] : []),
    `  ${enter} cat /run/flannel/subnet.env`,
    `  ${enter} ${weftctl} status`,
    `  ${enter} ${weftctl} nodes`,
    `  ${enter} ${weftctl} why pod demo/${first.pod.name}`,
    `  ${enter} ip netns exec ${first.pod.name} ping -c 3 ${last.address}`,
    'To enter each host (for a shell, replace hostname by bash), and the log of its weftd:',
    ...daemons.flatMap(({ host, program }) => [`  ${host.prefix} hostname`, `  tail -n 3 ${program.logPath}`]),
    'To remove it:',
    `  scripts/demo --remove ${lab.name}`
  ]
  process.stdout.write(`${lines.join('\n')}\n`)
}

async function main(): Promise<boolean> {
  const options = demoOptions()
  process.env.WEFT_LAB_BIN ??= '1'
  await using lab = await Lab.start({ hosts: segments(options) })
  const hosts = lab.hosts.slice()
  say(
    `${hosts.length === 1 ? '1 host is' : `${hosts.length} hosts are`} up${hasRouter(options) ? `, ${hosts.at(-1)?.name} behind a router` : ''}`
  )
  const daemons = await startDaemons(lab, options, hosts)
  say(`weftd is ready on each, with leases in ${options.store === 'etcd' ? 'an etcd' : 'the embedded store'}`)
  const pods: DemoPod[] = []
  for (const [at, host] of hosts.entries())
    for (let n = 1; n <= options.pods; n++) pods.push(await addPod(host, `pod-${at + 1}${letters(n)}`))
  say(pods.length === 1 ? '1 pod has an address' : `${pods.length} pods have addresses`)
  const rows = pods.map(({ host, pod, address, microseconds }) => [
    pod.name,
    host.name,
    host.address,
    address,
    `${(microseconds / 1000).toFixed(1)} ms`
  ])
  process.stdout.write(`\n${table([['pod', 'host', 'host address', 'pod address', 'ADD'], ...rows])}\n`)
  const complete = await matrix(pods)
  say(complete ? 'every pod reaches every pod' : 'NOT every pod reaches every pod')
  if (options.keep) {
    lab.keep()
    await howToLookAround(lab, pods, daemons)
  }
  return complete
}

process.exitCode = (await main()) ? 0 : 1
