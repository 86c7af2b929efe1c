// What each node publishes of its ways to the others: one key for each, attached to the etcd lease of its subnet, so
// that it goes with it. Read when somebody asks, never watched: a partition changes thousands of them at once. Nothing
// depends on them, so a failure raises no condition.
import { reasonOf } from '../../base/error.ts'
import type { Log } from '../../base/log.ts'
import type { Held } from './claim.ts'
import { type EtcdConnection, isDenied, isTooLarge } from './connection.ts'
import { keyAfter, rangeEnd } from './key-range.ts'
import type { Response } from './messages.ts'
import { nameOf } from './record.ts'

/** Milliseconds between two writes, and after one that failed. */
const REST = 5_000
const RETRY = 60_000
/** Keys in one answer, in all, and characters that are kept: in a partition of thousands each has some kB. */
const PAGE = 100
const MOST = 10_000
const LONGEST = 16 << 20
/** Characters of one report, which has some kB; and of all that are read, those that are too long included. */
const LONGEST_REPORT = 128 << 10
const MOST_READ = 256 << 20
/** Characters of an answer below which more keys are asked for. */
const SMALL_ANSWER = 1 << 20
/** Keys of reports that are too long, in the log. */
const MOST_NAMED = 5

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
  /** Of which keys the log complains. */
  #complained = ''
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

  /**
   * Of all nodes, as far as they fit; all that ask meanwhile get the same. One that is too long is left out. Errors: those
   * of etcd.
   */
  list(): Promise<Listed> {
    this.#listing ??= this.#read().finally(() => {
      this.#listing = undefined
    })
    return this.#listing
  }

  async #read(): Promise<Listed> {
    const found: Listed[number][] = []
    const tooLong: string[] = []
    let [length, read, limit] = [0, 0, PAGE]
    for (let key = this.#prefix; found.length + tooLong.length < MOST && length < LONGEST && read < MOST_READ; ) {
      const page = await this.#page(key, limit)
      if (page === undefined) {
        limit = Math.floor(limit / 2)
        continue
      }
      let inPage = 0
      for (const record of page.records) {
        inPage += record.key.length + record.value.length
        // A key without its value is too large for a message.
        if (record.value.length === 0 || record.value.length > LONGEST_REPORT) tooLong.push(record.key)
        else {
          found.push({ key: nameOf(record.key), text: record.value })
          length += record.value.length
        }
      }
      read += inPage
      if (limit < PAGE && inPage < SMALL_ANSWER) limit = Math.min(PAGE, Math.max(1, 2 * limit))
      const [last] = page.records.slice(-1)
      const next = page.more && last !== undefined ? keyAfter(last.key, this.#prefix) : undefined
      if (next === undefined) break
      key = next
    }
    this.#complain(tooLong)
    return found
  }

  /** From a key on; `undefined`: fewer must be asked for. With a limit of 1, the key alone where its value is too large. */
  async #page(key: string, limit: number): Promise<Response<'range'> | undefined> {
    const range = { key, rangeEnd: rangeEnd(this.#prefix), limit: Math.max(1, limit) }
    try {
      return await this.#connection.quietly('range', { ...range, keysOnly: limit < 1 })
    } catch (error) {
      if (limit < 1 || !isTooLarge(error)) throw error
      return undefined
    }
  }

  /** Once, as long as they are the same. */
  #complain(keys: readonly string[]): void {
    const named = keys.slice(0, MOST_NAMED).join(', ')
    const text = `${named}${keys.length > MOST_NAMED ? ` and ${keys.length - MOST_NAMED} more` : ''}`
    if (text === this.#complained) return
    this.#complained = text
    if (keys.length === 0) return
    const reason = `no report of weftd is empty or longer than ${LONGEST_REPORT} characters: delete them (etcdctl del)`
    this.#log.warn({ keys: text, reason }, 'reports in etcd are left out')
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
