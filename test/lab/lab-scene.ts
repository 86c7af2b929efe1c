// A place in the lab where programs run: a host, a pod, the switch or the router. Programs get there by nsenter, never
// by moving this process.
import { join } from 'node:path'
import type { PidNamespace, Spawn } from './pid-namespace.ts'
import { type PingCount, type PingDuring, pingCount, pingWhile } from './ping.ts'
import { Background, type Finished, type RunOptions, run } from './run.ts'

/** What a place needs to know of its lab. */
export interface PlaceOwner {
  readonly name: string
  readonly directory: string
  readonly processes: PidNamespace
  /** Told of each background program, so that it is ended with the lab. */
  adopt(program: Background): void
}

export interface SpawnOptions {
  readonly env?: Readonly<Record<string, string>>
  /** Of the log file and in messages; the program's name when absent. */
  readonly name?: string
}

export interface HttpAnswer {
  readonly status: number
  readonly body: string
}

let logs = 0

export class Place {
  readonly name: string
  readonly owner: PlaceOwner
  readonly #enter: readonly string[]

  constructor(owner: PlaceOwner, name: string, enter: readonly string[]) {
    this.owner = owner
    this.name = name
    this.#enter = enter
  }

  /** What a reader types before a command to run it here. */
  get prefix(): string {
    return ['nsenter', ...this.#enter, '-p', '--'].join(' ')
  }

  /** spawn() of node:child_process, here; the process is the program itself, since nsenter executes it. */
  readonly spawnChild = ((command: string, args: readonly string[], options: object) =>
    this.owner.processes.spawn('nsenter', [...this.#enter, '--', command, ...args], options)) as Spawn

  /** Runs a program here to its end; rejects when it fails, unless `check` is false. */
  exec(command: string, args: readonly string[] = [], options: RunOptions = {}): Promise<Finished> {
    return run(command, args, { ...options, spawn: this.spawnChild })
  }

  /** Runs a shell script (sh -e) here. */
  sh(script: string, options: RunOptions = {}): Promise<Finished> {
    return this.exec('sh', ['-e'], { ...options, input: script })
  }

  /** `ip -json …` here, parsed. */
  async ip(...args: readonly string[]): Promise<readonly unknown[]> {
    const { stdout } = await this.exec('ip', ['-json', ...args])
    return stdout.trim() === '' ? [] : (JSON.parse(stdout) as unknown[])
  }

  /** Starts a program here in the background. It is ended with the lab at the latest. */
  spawn(command: string, args: readonly string[] = [], options: SpawnOptions = {}): Background {
    const name = options.name ?? command.slice(command.lastIndexOf('/') + 1)
    const log = join(this.owner.directory, `${this.name}-${name}-${logs++}.log`)
    const program = new Background(`${name} on ${this.name}`, command, args, {
      ...(options.env ? { env: options.env } : {}),
      logPath: log,
      spawn: this.spawnChild
    })
    this.owner.adopt(program)
    return program
  }

  /** Pings from here. Lost answers are counted, not thrown. */
  ping(
    address: string,
    options: { readonly count?: number; readonly size?: number; readonly mtuProbe?: boolean } = {}
  ): Promise<PingCount> {
    return pingCount(this, address, options)
  }

  /** Pings every 5 ms from here while `during` runs, and tells which were lost. */
  pingDuring<T>(address: string, during: () => Promise<T>): Promise<PingDuring<T>> {
    return pingWhile(this, address, during)
  }

  /** An HTTP GET from here to this place's own loopback. Rejects when nobody answers. */
  async http(port: number, path: string): Promise<HttpAnswer> {
    // --norc: a bash whose input is a socket, as Node's pipes are, takes itself for a remote shell and reads root's
    // .bashrc, which may take any time. HTTP/1.0, so that the answer ends with the connection and is not sent in
    // chunks.
    const script = `exec 3<>/dev/tcp/127.0.0.1/${port}; printf 'GET ${path} HTTP/1.0\\r\\nHost: 127.0.0.1\\r\\n\\r\\n' >&3; cat <&3`
    const { stdout } = await this.exec('bash', ['--norc', '-c', script], { timeoutMs: 15_000 })
    const status = /^HTTP\/1\.[01] (\d{3})/.exec(stdout)?.[1]
    if (!status)
      throw new Error(`no HTTP answer from port ${port} on ${this.name}: ${JSON.stringify(stdout.slice(0, 200))}`)
    const head = stdout.indexOf('\r\n\r\n')
    return { status: Number(status), body: stdout.slice(head + 4) }
  }
}
