// Our own daemon on a host of the lab: from source with the pinned Node, or the single file of scripts/build when
// WEFT_LAB_BIN is set.
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { FalseAlarms } from './false-alarms.ts'
import type { Host } from './host.ts'
import { type Background, type Exit, until } from './run.ts'

export interface WeftdOptions {
  readonly args?: readonly string[]
  readonly env?: Readonly<Record<string, string>>
  /** Port of /readyz and /metrics, given to it as --healthz-port; 8471 when absent. */
  readonly healthzPort?: number
  /** Resolve when /readyz says 200; true when absent. */
  readonly wait?: boolean
  readonly deadlineMs?: number
}

/** One line of the daemon's log, as pino writes it. */
export interface LogLine {
  readonly level: number
  readonly msg: string
  readonly time: number
  readonly [field: string]: unknown
}

/** The JSON lines among what a program printed; other lines (a crash's stack) are left out. */
export function logLines(text: string): readonly LogLine[] {
  return text.split('\n').flatMap((line) => {
    if (!line.startsWith('{')) return []
    try {
      return [JSON.parse(line) as LogLine]
    } catch {
      // The last line may be half written.
      return []
    }
  })
}

/**
 * Value of one sample in the Prometheus text format, by its exact name with labels as printed; undefined when absent.
 */
export function sample(metrics: string, name: string): number | undefined {
  const line = metrics.split('\n').find((text) => text.startsWith(`${name} `))
  return line === undefined ? undefined : Number(line.slice(name.length + 1).split(' ')[0])
}

const alarms = new FalseAlarms()
const repository = fileURLToPath(new URL('../../', import.meta.url))

/** Program and first arguments that run weftd. WEFT_LAB_BIN is the folder of the single file, or 1 for dist/bin. */
export function weftdCommand(): readonly [string, ...string[]] {
  const built = process.env.WEFT_LAB_BIN
  if (built) return [`${built === '1' ? `${repository}dist/bin` : built}/weftd`]
  return [process.execPath, `${repository}daemon/main.ts`]
}

export class Weftd implements AsyncDisposable {
  readonly host: Host
  readonly #options: WeftdOptions
  readonly #port: number
  #program: Background | undefined
  /** Of earlier runs. */
  readonly #conditions: LogLine[] = []
  /** Conditions of probes that this test makes true. */
  readonly announced = new Set<string>()

  private constructor(host: Host, options: WeftdOptions) {
    this.host = host
    this.#options = options
    this.#port = options.healthzPort ?? 8471
    alarms.watch({
      name: `weftd on ${host.name}`,
      announced: this.announced,
      raised: () => [...this.#conditions, ...this.#raised()]
    })
    host.beforeRemoval(() => this.#conditions.push(...this.#raised()))
  }

  /** In this run. */
  #raised(): readonly LogLine[] {
    if (this.#program === undefined || !existsSync(this.#program.logPath)) return []
    return this.log.filter(({ detail }) => detail !== undefined)
  }

  static async start(host: Host, options: WeftdOptions = {}): Promise<Weftd> {
    const daemon = new Weftd(host, options)
    daemon.launch()
    if (options.wait ?? true) await daemon.ready()
    return daemon
  }

  /** Starts the process, without waiting. */
  launch(): void {
    this.#conditions.push(...this.#raised())
    const [command, ...first] = weftdCommand()
    const args = [...first, `--healthz-port=${this.#port}`, ...(this.#options.args ?? [])]
    this.#program = this.host.spawn(command, args, { name: 'weftd', env: this.#options.env ?? {} })
  }

  /** Waits for /readyz; rejects at once, with the log, when the daemon ends instead. */
  async ready(deadlineMs = this.#options.deadlineMs ?? 60_000): Promise<void> {
    let said = 'nothing'
    const ready = async () => {
      if (this.program.ended) return true
      const answer = await this.readyz()
      said = answer.body
      return answer.status === 200
    }
    await until(ready, { what: `weftd on ${this.host.name} to be ready`, deadlineMs, everyMs: 30 }).catch(
      (cause: unknown) => {
        throw new Error(`weftd on ${this.host.name} is not ready; /readyz said: ${said}\n${this.text.slice(-3000)}`, {
          cause
        })
      }
    )
    if (this.program.ended)
      throw new Error(
        `weftd on ${this.host.name} ended with ${JSON.stringify(this.program.ended)}\n${this.text.slice(-3000)}`
      )
  }

  get program(): Background {
    if (!this.#program) throw new Error('weftd was not started')
    return this.#program
  }

  get pid(): number {
    return this.program.pid
  }

  /** As programs of the lab see it. */
  get pidInside(): number {
    return this.program.pidInside
  }

  /** Everything this run printed. */
  get text(): string {
    return this.program.text()
  }

  /** This run's log, parsed. */
  get log(): readonly LogLine[] {
    return logLines(this.text)
  }

  readyz(): Promise<{ readonly status: number; readonly body: string }> {
    return this.host.http(this.#port, '/readyz?verbose')
  }

  /** The metrics as text; `sample` picks one. */
  async metrics(): Promise<string> {
    return (await this.host.http(this.#port, '/metrics')).body
  }

  /** Sends the signal, and resolves when the process has ended (not for signals that it survives). */
  kill(signal: NodeJS.Signals): Promise<Exit> {
    this.program.kill(signal)
    return this.program.exited()
  }

  exited(): Promise<Exit> {
    return this.program.exited()
  }

  async stop(): Promise<Exit> {
    return this.program.stop(5_000)
  }

  /** Stops it, by SIGTERM or the signal given, and starts it again with the same arguments. */
  async restart(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    if (!this.program.ended) await this.kill(signal)
    this.launch()
    if (this.#options.wait ?? true) await this.ready()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }
}
