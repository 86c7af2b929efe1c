// What probes said that no test announced: nothing may be said of a healthy cluster. When the process of a test file
// ends, the number is written to the file that WEFT_LAB_ALARMS names, and a false alarm fails the test file.
//
// All hosts of all labs share the neighbour table of this kernel (1,024 entries by default, and fifty hosts that ask each
// other need 2,450): where it overflowed, packets were lost indeed.
import { appendFileSync } from 'node:fs'
import { refusals } from '../../daemon/underlay/neighbour-table.ts'
import { regularContentOf } from '../../ipam/files.ts'
import { LARGE_FILE } from '../../ipam/read-file.ts'

/** Conditions that probes raise. */
const CODES: ReadonlySet<unknown> = new Set(['UNDERLAY_LOST', 'UNDERLAY_MTU', 'UNDERLAY_CHECKSUM'])

export type Watched = {
  readonly name: string
  /** Codes that the test makes true, and so may be said. */
  readonly announced: ReadonlySet<string>
  /** The conditions that were raised, in all runs so far. */
  raised(): readonly { readonly [field: string]: unknown }[]
}

/** How often this kernel had no room for a neighbour; a process in a network namespace of its own does not see it. */
const refusedNeighbours = (): number =>
  ['arp_cache', 'ndisc_cache'].reduce(
    (sum, name) => sum + refusals(regularContentOf(`/proc/net/stat/${name}`, LARGE_FILE) ?? ''),
    0
  )

export class FalseAlarms {
  readonly #watched: Watched[] = []
  readonly #refusedBefore = refusedNeighbours()

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
    const refused = refusedNeighbours() - this.#refusedBefore
    if (alarms.length > 0 && refused > 0) {
      process.stderr.write(`the kernel's neighbour table was full ${refused} times; true then:\n${alarms.join('\n')}\n`)
      alarms.length = 0
    }
    const { WEFT_LAB_ALARMS: file } = process.env
    if (file !== undefined) appendFileSync(file, `${JSON.stringify({ daemons: this.#watched.length, alarms })}\n`)
    if (alarms.length === 0) return
    process.stderr.write(`false alarms of probes:\n${alarms.join('\n')}\n`)
    process.exitCode = 1
  }
}
