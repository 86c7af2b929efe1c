// What each node publishes of its ways to the others: one key for each, attached to the etcd lease of its subnet, so
// that it goes with it. Read when somebody asks, never watched: a partition changes thousands of them at once. Nothing
// depends on them, so a failure raises no condition.
import { reasonOf } from '../../base/error.ts'
import type { Log } from '../../base/log.ts'
import type { Held } from './claim.ts'
import { type EtcdConnection, isDenied } from './connection.ts'
import { nameOf } from './record.ts'
import { rangeEnd } from './watch.ts'

/** Milliseconds between two writes, and after one that failed. */
const REST = 5_000
const RETRY = 60_000
/** Keys in one answer, in all, and characters in all: in a partition of thousands each has some kB. */
const PAGE = 100
const MOST = 10_000
const LONGEST = 16 << 20

type Listed = readonly { readonly key: string; readonly text: string }[]

export class EtcdReports implements Disposable {
  readonly #connection: EtcdConnection
  readonly #prefix: string
  readonly #held: () => Held | undefined
  readonly #log: Log
  #text: string | undefined
  #written: string | undefined
  #timer: NodeJS.Timeout | undefined
  #listing: Promise<Listed> | undefined
  #isWriting = false
  #isOver = false

  /** `prefix`: of the keys, with a slash at its end. */
  constructor(connection: EtcdConnection, prefix: string, held: () => Held | undefined, log: Log) {
    this.#connection = connection
    this.#prefix = prefix
    this.#held = held
    this.#log = log
  }

  /** Replaces what this node has published, soon. */
  publish(text: string): void {
    this.#text = text
    this.#later(0)
  }

  /** Our subnet is held under another etcd lease than before. */
  renewed(): void {
    this.#later(0)
  }

  /** Of all nodes, as far as they fit; all that ask meanwhile get the same. Errors: those of etcd. */
  list(): Promise<Listed> {
    this.#listing ??= this.#read().finally(() => {
      this.#listing = undefined
    })
    return this.#listing
  }

  async #read(): Promise<Listed> {
    const found: Listed[number][] = []
    let length = 0
    for (let key = this.#prefix; found.length < MOST && length < LONGEST; ) {
      const range = { key, rangeEnd: rangeEnd(this.#prefix), limit: PAGE }
      const { records, more } = await this.#connection.quietly('range', range)
      for (const record of records) {
        found.push({ key: nameOf(record.key), text: record.value })
        length += record.value.length
      }
      const last = records.at(-1)
      if (!more || last === undefined) break
      key = `${last.key}\0`
    }
    return found
  }

  [Symbol.dispose](): void {
    this.#isOver = true
    clearTimeout(this.#timer)
  }

  #later(milliseconds: number): void {
    if (this.#timer !== undefined || this.#isWriting || this.#isOver) return
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      this.#write().catch((error) => this.#log.error({ err: error }, 'publishing the report failed'))
    }, milliseconds)
    this.#timer.unref()
  }

  async #write(): Promise<void> {
    const [held, value] = [this.#held(), this.#text]
    // A reservation has no lease that ends.
    if (held === undefined || held.etcdLease === 0n || value === undefined) return
    const version = `${held.etcdLease} ${held.key} ${value}`
    if (version === this.#written) return
    this.#isWriting = true
    let rest = REST
    try {
      const put = { key: `${this.#prefix}${nameOf(held.key)}`, value, lease: held.etcdLease }
      await this.#connection.quietly('transaction', { success: [{ put }] })
      this.#written = version
    } catch (error) {
      rest = RETRY
      // Where a role is only for the keys of flannel, nodes know their own ways alone.
      if (isDenied(error)) this.#isOver = true
      this.#log.info({ reason: reasonOf(error) }, "this node's report of its ways cannot be published in etcd")
    } finally {
      this.#isWriting = false
    }
    this.#later(rest)
  }
}
