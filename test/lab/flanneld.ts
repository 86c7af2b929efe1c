// flannel's own daemon on a host of the lab, for interoperation and for measuring against it. scripts/peers builds it.
import { readFileSync, rmSync, statSync } from 'node:fs'
import type { Etcd } from './etcd.ts'
import type { Host } from './host.ts'
import { peersDirectory } from './peers.ts'
import { type Background, until } from './run.ts'

export interface FlanneldOptions {
  readonly etcd: Etcd
  /** `/coreos.com/network` when absent. */
  readonly prefix?: string
  readonly args?: readonly string[]
  /** Resolve when subnet.env is there; true when absent. */
  readonly wait?: boolean
}

export class Flanneld implements AsyncDisposable {
  readonly host: Host
  readonly #args: readonly string[]
  #program: Background | undefined

  private constructor(host: Host, args: readonly string[]) {
    this.host = host
    this.#args = args
  }

  static async start(host: Host, { etcd, prefix, args = [], wait = true }: FlanneldOptions): Promise<Flanneld> {
    const tls = etcd.certificates
    const flags = [
      `--etcd-endpoints=${etcd.endpointList}`,
      ...(prefix ? [`--etcd-prefix=${prefix}`] : []),
      ...(tls ? [`--etcd-cafile=${tls.ca}`, `--etcd-certfile=${tls.cert}`, `--etcd-keyfile=${tls.key}`] : []),
      '--iface=eth0',
      '--ip-masq=true',
      ...args
    ]
    const daemon = new Flanneld(host, flags)
    daemon.launch()
    if (wait) await daemon.ready()
    return daemon
  }

  /**
   * Starts the process, without waiting. An earlier run's subnet.env goes, since its return says that the daemon is up.
   */
  launch(): void {
    const flanneld = `${peersDirectory()}/bin/flanneld`
    statSync(flanneld)
    rmSync(this.host.path('/run/flannel/subnet.env'), { force: true })
    this.#program = this.host.spawn(flanneld, this.#args, { name: 'flanneld' })
  }

  async ready(deadlineMs = 30_000): Promise<void> {
    await until(() => this.subnetEnv(), { what: 'subnet.env of flanneld', deadlineMs }).catch((cause: unknown) => {
      throw new Error(`flanneld on ${this.host.name} did not start: ${this.log.slice(-2000)}`, { cause })
    })
  }

  get pid(): number {
    if (!this.#program) throw new Error('flanneld was not started')
    return this.#program.pid
  }

  get log(): string {
    return this.#program?.text() ?? ''
  }

  subnetEnv(): string {
    return readFileSync(this.host.path('/run/flannel/subnet.env'), 'utf8')
  }

  kill(signal: NodeJS.Signals): void {
    this.#program?.kill(signal)
  }

  async stop(): Promise<void> {
    await this.#program?.stop()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }
}
