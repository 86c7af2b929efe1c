// What probes said that no test announced: nothing may be said of a healthy cluster. When the process of a test file
// ends, the number is written to the file that WEFT_LAB_ALARMS names, and a false alarm fails the test file.
import { appendFileSync } from 'node:fs'

/** Conditions that probes raise. */
const CODES: ReadonlySet<unknown> = new Set(['UNDERLAY_LOST', 'UNDERLAY_MTU', 'UNDERLAY_CHECKSUM'])

export type Watched = {
  readonly name: string
  /** Codes that the test makes true, and so may be said. */
  readonly announced: ReadonlySet<string>
  /** The conditions that were raised, in all runs so far. */
  raised(): readonly { readonly [field: string]: unknown }[]
}

export class FalseAlarms {
  readonly #watched: Watched[] = []

  constructor() {
    process.once('exit', () => this.#tell())
  }

  watch(daemon: Watched): void {
    this.#watched.push(daemon)
  }

  #tell(): void {
    const alarms = this.#watched.flatMap(({ name, announced, raised }) =>
      raised()
        .filter(({ condition }) => CODES.has(condition) && !announced.has(String(condition)))
        .map(({ condition, detail }) => `${name}: ${condition}: ${detail}`)
    )
    const { WEFT_LAB_ALARMS: file } = process.env
    if (file !== undefined) appendFileSync(file, `${JSON.stringify({ daemons: this.#watched.length, alarms })}\n`)
    if (alarms.length === 0) return
    process.stderr.write(`false alarms of probes:\n${alarms.join('\n')}\n`)
    process.exitCode = 1
  }
}
