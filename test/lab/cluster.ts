// A cluster of the stories: hosts with weftd on a real etcd, and pods from real CNI calls.
import assert from 'node:assert/strict'
import { fileURLToPath } from 'node:url'
import { type CniVerb, cni, type Json } from './cni.ts'
import { Etcd, type EtcdOptions } from './etcd.ts'
import type { Host, HostOptions } from './host.ts'
import { Lab } from './hosts.ts'
import type { Pod } from './pod.ts'
import { until } from './run.ts'
import { type LogLine, Weftd, type WeftdOptions } from './weftd.ts'

export const PREFIX = '/coreos.com/network'
export const BIN = fileURLToPath(new URL('../../dist/cni', import.meta.url))

export type ClusterOptions = {
  readonly hosts?: readonly number[] | readonly HostOptions[]
  readonly network?: Json
  readonly etcd?: Partial<EtcdOptions>
  readonly args?: readonly string[]
  /** false: hosts and etcd only. */
  readonly start?: boolean
  readonly mtu?: number
  /** Milliseconds that each weftd has to become ready, also after a restart. */
  readonly deadlineMs?: number
  /** IPv6 addresses on the hosts' eth0; false when absent. */
  readonly ipv6?: boolean
}

export type Resident = {
  readonly host: Host
  readonly pod: Pod
  readonly address: string
  readonly id: string
  readonly result: Json
}

/** `await using cluster = await Cluster.start({ hosts: [2, 1] })`. */
export class Cluster implements AsyncDisposable {
  readonly lab: Lab
  readonly etcd: Etcd
  /** The hosts that are nodes; etcd has others. */
  readonly nodes: readonly Host[]
  readonly daemons: Weftd[] = []
  readonly #args: readonly string[]
  #pods = 0

  private constructor(lab: Lab, etcd: Etcd, nodes: readonly Host[], args: readonly string[]) {
    this.lab = lab
    this.etcd = etcd
    this.nodes = nodes
    this.#args = args
  }

  static async start(options: ClusterOptions = {}): Promise<Cluster> {
    const { hosts = [2], mtu, ipv6 = false } = options
    const lab = await Lab.start({ hosts, ipv6, ...(mtu !== undefined && { mtu }) })
    try {
      const nodes = lab.hosts.slice()
      const etcd = await Etcd.start(lab, options.etcd ?? {})
      await etcd.put(
        `${PREFIX}/config`,
        JSON.stringify(options.network ?? { Network: '10.244.0.0/16', Backend: { Type: 'vxlan', DirectRouting: true } })
      )
      const cluster = new Cluster(lab, etcd, nodes, options.args ?? [])
      const { start = true, deadlineMs } = options
      const more = deadlineMs === undefined ? {} : { deadlineMs }
      if (start) await Promise.all(nodes.map((node) => cluster.join(node, more)))
      return cluster
    } catch (error) {
      await lab[Symbol.asyncDispose]()
      throw error
    }
  }

  /** Starts weftd on a host; with more arguments than the cluster's. */
  async join(host: Host, options: WeftdOptions = {}): Promise<Weftd> {
    const args = [`--etcd-endpoints=${this.etcd.endpointList}`, ...this.#args, ...(options.args ?? [])]
    const daemon = await Weftd.start(host, { ...options, args })
    this.daemons.push(daemon)
    return daemon
  }

  daemon(n: number): Weftd {
    return this.daemons.find(({ host }) => host === this.nodes[n - 1]) ?? assert.fail(`no weftd on node ${n}`)
  }

  node(n: number): Host {
    return this.nodes[n - 1] ?? assert.fail(`no node ${n}`)
  }

  /** The test makes true what these conditions say, on any node. */
  announce(...codes: readonly string[]): void {
    for (const { announced } of this.daemons) for (const code of codes) announced.add(code)
  }

  /** A pod with an address, as a runtime makes it. */
  async pod(host: Host, config: Json = {}): Promise<Resident> {
    const id = `c${process.pid}x${this.#pods++}`
    const pod = await host.pod(id)
    const { result } = await this.call(host, 'ADD', id, pod.netns, config)
    const [first] = (result?.ips ?? []) as readonly { readonly address: string }[]
    assert.ok(first, `ADD gave no address: ${JSON.stringify(result)}`)
    return { host, pod, id, address: String(first.address.split('/')[0]), result: result ?? {} }
  }

  /** A pod on each node; resolves when all reach each other. */
  async podOnEach(): Promise<Resident[]> {
    const residents = await Promise.all(this.nodes.map((node) => this.pod(node)))
    await reachEachOther(residents)
    return residents
  }

  call(
    host: Host,
    verb: CniVerb,
    id: string,
    netns: string,
    config: Json = {},
    more: { readonly check?: boolean; readonly prevResult?: unknown } = {}
  ) {
    return cni(host, {
      verb,
      config: { cniVersion: '1.1.0', name: 'lab', type: 'weft', ...config },
      binDir: BIN,
      containerId: id,
      netns,
      args: `IgnoreUnknown=1;K8S_POD_NAMESPACE=lab;K8S_POD_NAME=${id}`,
      ...more
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.daemons.map((daemon) => daemon.stop().catch(() => undefined)))
    await this.lab[Symbol.asyncDispose]()
  }
}

/** Every pod reaches every other; what does not is named. */
export async function reachEachOther(residents: readonly Resident[]): Promise<void> {
  await until(
    async () => {
      const lost: string[] = []
      for (const from of residents) {
        for (const to of residents) {
          if (from !== to && (await from.pod.ping(to.address)).received === 0)
            lost.push(`${from.address} → ${to.address}`)
        }
      }
      if (lost.length > 0) throw new Error(`not reached: ${lost.join(', ')}`)
      return true
    },
    { what: 'every pod to reach every pod' }
  )
}

/** What a command prints on a host, line by line. */
export async function linesOf(host: Host, command: string, ...args: readonly string[]): Promise<readonly string[]> {
  const { stdout } = await host.exec(command, args)
  return stdout
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '')
}

/** Waits for a line of the daemon's log. */
export const logged = (daemon: Weftd, accept: (line: LogLine) => boolean, what: string): Promise<LogLine> =>
  until(() => daemon.log.find(accept), { what })
