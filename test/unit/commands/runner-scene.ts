// A command runner over a folder and a list of leases, with real programs.
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { BACKENDS, registry } from '../../../daemon/backend/registry.ts'
import { CommandRunner, type CommandRunnerDeps } from '../../../daemon/commands/command-runner.ts'
import type { PeerNote } from '../../../daemon/commands/notes.ts'
import type { JsonObject } from '../../../daemon/config/json.ts'
import { parseNetConf } from '../../../daemon/config/net-conf.ts'
import { Health } from '../../../daemon/health/health.ts'
import { type Lease, leaseKey, parseLease } from '../../../daemon/lease/lease.ts'
import type { Place } from '../../../daemon/node/place.ts'
import { silent } from '../logs.ts'
import { testNode } from '../test-node.ts'
import { until } from '../until.ts'

export const leaseOf = (subnet: string, publicIp: string, data?: unknown): Lease =>
  parseLease(
    subnet.replace('/', '-'),
    JSON.stringify({ PublicIP: publicIp, BackendType: 'extension', ...(data !== undefined && { BackendData: data }) })
  )

export class CommandScene implements AsyncDisposable {
  readonly folder: string
  readonly health = new Health(Date.now, () => undefined)
  readonly leases = new Map<string, Lease>()
  readonly skipped = new Map<string, string>()
  /** Whether the store has listed everything. */
  trusts = true
  /** Milliseconds that the clock is ahead. */
  ahead = 0
  onWanted: (keys: readonly string[]) => void = () => undefined
  runner!: CommandRunner
  place!: Place
  #stop = new AbortController()
  #following: Promise<void> = Promise.resolve()

  constructor(folder = mkdtempSync(join(tmpdir(), 'weft-commands-'))) {
    this.folder = folder
  }

  /** As a weftd that starts. Rejects with what the command before the lease fails with. */
  async start(keys: JsonObject, more: Partial<CommandRunnerDeps> = {}): Promise<string | undefined> {
    this.#stop = new AbortController()
    const { signal } = this.#stop
    this.runner = await CommandRunner.open({
      ...{ permission: { commands: true, shell: true }, environment: process.env, stateDir: this.folder },
      ...{ health: this.health, log: silent, signal, now: () => performance.now() + this.ahead },
      ...more
    })
    const text = JSON.stringify({ Network: '10.0.0.0/8', Backend: { Type: 'extension', ...keys } })
    const conf = parseNetConf(text, 'it')
    const backend = registry(BACKENDS).configure('extension', keys)
    const { printed } = await this.runner.beforeLease(backend)
    const node = testNode({ ...(printed !== undefined && { printed }) })
    const place: Place = {
      text,
      conf,
      backend,
      read: { text, conf, backend },
      earlier: [],
      node,
      mtu: 1500,
      isConfirmed: true,
      lease: leaseOf('10.1.0.0/24', '192.0.2.1')
    }
    this.place = place
    this.runner.placed(place)
    this.#following = this.runner.follow(this, () => this.trusts)
    // As Peers does after each place.
    this.onWanted([...this.leases.keys()])
    return printed
  }

  isOwn(key: string): boolean {
    return key === '10.1.0.0-24'
  }

  put(...leases: readonly Lease[]): void {
    for (const lease of leases) this.leases.set(leaseKey(lease), lease)
    this.onWanted(leases.map(leaseKey))
  }

  gone(key: string): void {
    this.leases.delete(key)
    this.onWanted([key])
  }

  detail(): string | undefined {
    return this.health.active().find(({ code }) => code === 'COMMAND_FAILED')?.detail
  }

  /** The lines of a file that commands write. */
  lines(name = 'out'): readonly string[] {
    try {
      return readFileSync(join(this.folder, name), 'utf8').split('\n').slice(0, -1)
    } catch {
      return []
    }
  }

  /** Waits until every note is sure and no command runs. */
  async settled(): Promise<void> {
    const directory = join(this.folder, 'commands')
    const isDone = (name: string) =>
      name === 'start.json' || (JSON.parse(readFileSync(join(directory, name), 'utf8')) as PeerNote).isSure === true
    await until(() => readdirSync(directory).every(isDone), 'all commands to have ended')
  }

  /** Ends weftd and keeps its files. */
  async stop(): Promise<void> {
    this.#stop.abort()
    await this.#following
    this.onWanted = () => undefined
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
    rmSync(this.folder, { recursive: true, force: true })
  }
}
