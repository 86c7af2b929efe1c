// The cluster of scripts/bench converge: a lab with a real etcd in memory and as many made-up nodes as a row asks for.
import { Etcd } from '../lab/etcd.ts'
import type { Host } from '../lab/host.ts'
import { Lab } from '../lab/hosts.ts'
import type { WriterAnswer, WriterRequest } from './lease-writer.ts'
import { fakeLease, type WrittenLease } from './leases.ts'
import { LineWorker } from './line-worker.ts'
import type { Daemon, Side } from './sides.ts'

/** `direct`: vxlan with DirectRouting, and all nodes on one link. */
export type Backend = WrittenLease['backend'] | 'direct'

const prefix = '/coreos.com/network'

export class Cluster implements AsyncDisposable {
  readonly lab: Lab
  readonly etcd: Etcd
  readonly #writer: LineWorker<WriterRequest, WriterAnswer>
  #backend: Backend = 'vxlan'
  #hosts = 0

  private constructor(lab: Lab, etcd: Etcd, writer: LineWorker<WriterRequest, WriterAnswer>) {
    this.lab = lab
    this.etcd = etcd
    this.#writer = writer
  }

  static async start(): Promise<Cluster> {
    const lab = await Lab.start({ hosts: [1] })
    try {
      const etcd = await Etcd.start(lab, { hosts: [lab.host(1)], memory: true })
      return new Cluster(lab, etcd, new LineWorker(lab.host(1), new URL('lease-writer.ts', import.meta.url)))
    } catch (error) {
      await lab[Symbol.asyncDispose]()
      throw error
    }
  }

  /**
   * Forgets all, and begins with this backend and these many made-up nodes. With vxlan direct routing is off: every
   * node is reached by the backend itself.
   */
  async reset(backend: Backend, nodes: number): Promise<void> {
    this.#backend = backend
    const config = {
      Network: '10.0.0.0/8',
      Backend: backend === 'host-gw' ? { Type: backend } : { Type: 'vxlan', DirectRouting: backend === 'direct' }
    }
    await this.etcd.ctl(['del', '--prefix', prefix], { timeoutMs: 60_000 })
    await this.etcd.put(`${prefix}/config`, JSON.stringify(config))
    if (nodes > 0) await this.write('put', 0, nodes)
  }

  /** Puts or removes the leases of the made-up nodes `from` and on. */
  write(action: 'put' | 'remove', from: number, count: number): Promise<WriterAnswer> {
    return this.#writer.ask({ do: action, ...this.#written(from, count) })
  }

  /**
   * Makes `perSecond` changes a second in all: the lease of another node from `from` on comes, and one that came 500
   * before it goes, in turn. Begun times are by change.
   */
  churn(from: number, count: number, perSecond: number): Promise<WriterAnswer> {
    return this.#writer.ask({ do: 'churn', perSecond, ...this.#written(from, count) })
  }

  #written(from: number, count: number) {
    const kind = this.#backend === 'host-gw' ? 'host-gw' : 'vxlan'
    const leases = Array.from({ length: count }, (_, index) => fakeLease(from + index, kind))
    return { endpoint: String(this.etcd.endpoints[0]), prefix, leases }
  }

  /** A fresh host, on one link with the made-up nodes' addresses for plain routes. */
  async host(): Promise<Host> {
    const host = await this.lab.addHost({ name: `n${++this.#hosts}` })
    if (this.#backend !== 'vxlan') await host.exec('ip', ['addr', 'add', `172.20.0.${this.#hosts}/16`, 'dev', 'eth0'])
    return host
  }

  /** Runs `work` with a daemon on a fresh host, then takes both away. */
  async withNode<T>(
    side: Side,
    options: { readonly wait: boolean },
    work: (node: { host: Host; daemon: Daemon; begunMs: number }) => Promise<T>
  ): Promise<T> {
    await using host = await this.host()
    const begunMs = Date.now()
    const daemon = await side.daemon(host, this.etcd, options)
    try {
      return await work({ host, daemon, begunMs })
    } catch (cause) {
      throw new Error(`${side.name} on ${host.name}: its log ends with\n${daemon.log.slice(-3000)}`, { cause })
    } finally {
      await daemon.stop()
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#writer[Symbol.asyncDispose]()
    await this.lab[Symbol.asyncDispose]()
  }
}
