// Where one call spends its time: what the caller waits, what of it the executable takes to start, and what weftd's own
// histograms say of the rest.
import type { Host } from '../lab/host.ts'
import { sample } from '../lab/weftd.ts'

const HEALTHZ_PORT = 8471
const VERBS = ['ADD', 'DEL'] as const
const STEPS = ['queue', 'sandbox', 'reserve', 'host', 'inside', 'total'] as const
const CHANNELS = ['netlink', 'removal', 'sysctl', 'firewall'] as const

/** Mean microseconds of each step and channel between two looks at the metrics. */
export class Breakdown {
  readonly #host: Host
  #before = ''
  readonly #parts = new Map<string, Map<string, number>>()

  constructor(host: Host) {
    this.#host = host
  }

  async begin(): Promise<void> {
    this.#before = await this.#metrics()
  }

  /** Ends what `begin` began, under a name such as `two host ports`. */
  async end(name: string): Promise<void> {
    const after = await this.#metrics()
    const parts = new Map<string, number>()
    const mean = (metric: string, labels: string) => {
      const grown = (what: string) => {
        const series = `${metric}_${what}{${labels}}`
        return (sample(after, series) ?? 0) - (sample(this.#before, series) ?? 0)
      }
      return grown('count') === 0 ? undefined : (grown('sum') / grown('count')) * 1e6
    }
    for (const verb of VERBS)
      for (const step of STEPS) {
        const value = mean('weft_pod_step_seconds', `verb="${verb}",step="${step}"`)
        if (value !== undefined) parts.set(`${verb} ${step}`, value)
      }
    for (const channel of CHANNELS) {
      const value = mean('weft_kernel_run_seconds', `channel="${channel}"`)
      if (value !== undefined) parts.set(`a batch of ${channel}`, value)
    }
    this.#parts.set(name, parts)
  }

  /** A markdown table, one column a name. */
  table(): string {
    const names = [...this.#parts.keys()]
    const rows = new Set(names.flatMap((name) => [...(this.#parts.get(name)?.keys() ?? [])]))
    const cell = (name: string, row: string) => this.#parts.get(name)?.get(row)?.toFixed(0) ?? '–'
    return [
      `| in weftd, mean µs | ${names.join(' | ')} |`,
      `| --- |${' --- |'.repeat(names.length)}`,
      ...[...rows].map((row) => `| ${row} | ${names.map((name) => cell(name, row)).join(' | ')} |`)
    ].join('\n')
  }

  async #metrics(): Promise<string> {
    return (await this.#host.http(HEALTHZ_PORT, '/metrics')).body
  }
}
