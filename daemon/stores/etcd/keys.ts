// Requests to etcd: list, get, create, replace, remove, grant, revoke, keep alive. Every write is a transaction
// conditional on what was read.
import { type EtcdConnection, isTooLarge } from './connection.ts'
import { keyAfter, rangeEnd } from './key-range.ts'
import type { Compare, KeyValue, Operation, Request, Response } from './messages.ts'

/** Keys per response: 5,000 leases of about 250 bytes take five requests. */
const PAGE = 1_000
/** Milliseconds for one keep-alive. */
const KEEP_ALIVE_DEADLINE = 5_000

export type Listing = { readonly revision: number; readonly records: readonly KeyValue[] }
/** `lease` 0 writes without an etcd lease. */
type Write = { readonly key: string; readonly value: string; readonly lease: bigint }

/** Targets of a comparison (etcd's Compare.CompareTarget). */
const VERSION = 0
const MODIFIED = 2

const unchanged = ({ key, modified }: Pick<KeyValue, 'key' | 'modified'>): Compare => ({
  key,
  target: MODIFIED,
  modified
})
const absent = (key: string): Compare => ({ key, target: VERSION, version: 0 })

export class EtcdKeys {
  readonly #connection: EtcdConnection

  constructor(connection: EtcdConnection) {
    this.#connection = connection
  }

  /** All keys under a prefix at one revision, in pages. */
  list(prefix: string): Promise<Listing> {
    return this.#list(prefix, {})
  }

  /** Keys created at this revision or later, without values. */
  async listCreated(prefix: string, createdFrom: number): Promise<Listing['records']> {
    return (await this.#list(prefix, { keysOnly: true, createdFrom })).records
  }

  async #list(prefix: string, which: Pick<Request<'range'>, 'keysOnly' | 'createdFrom'>): Promise<Listing> {
    const range = { rangeEnd: rangeEnd(prefix), ...which }
    const records: KeyValue[] = []
    let [key, revision, limit] = [prefix, 0, PAGE]
    for (;;) {
      const page = await this.#connection
        .call(`listing ${prefix}`, 'range', { ...range, limit, key, revision })
        .catch((error) => {
          // Somebody has put large values there: fewer at once.
          if (limit === 1 || !isTooLarge(error)) throw error
          limit = Math.ceil(limit / 10)
          return undefined
        })
      if (page === undefined) continue
      records.push(...page.records)
      if (revision === 0) revision = page.header?.revision ?? 0
      const last = page.records.at(-1)
      const next = page.more && last !== undefined ? keyAfter(last.key, prefix) : undefined
      if (next === undefined) return { revision, records }
      key = next
    }
  }

  async get(key: string): Promise<KeyValue | undefined> {
    return (await this.#connection.call(`reading ${key}`, 'range', { key })).records[0]
  }

  /** Creates a key and deletes others in the same transaction; its revision, or `undefined` when the key exists. */
  create(write: Write, remove: readonly string[] = []): Promise<number | undefined> {
    return this.#transaction(
      `creating ${write.key}`,
      [absent(write.key)],
      [...remove.map((key) => ({ deleteRange: { key } })), { put: write }]
    )
  }

  /** Overwrites a key unless it has changed since it was read; its revision, or `undefined` when it has. */
  replace(before: Pick<KeyValue, 'key' | 'modified'>, write: Omit<Write, 'key'>): Promise<number | undefined> {
    return this.#transaction(`writing ${before.key}`, [unchanged(before)], [{ put: { key: before.key, ...write } }])
  }

  /** Deletes a key unless it has changed since it was read; `undefined` when it has. */
  remove(before: Pick<KeyValue, 'key' | 'modified'>): Promise<number | undefined> {
    return this.#transaction(`deleting ${before.key}`, [unchanged(before)], [{ deleteRange: { key: before.key } }])
  }

  async #transaction(
    what: string,
    compare: readonly Compare[],
    success: readonly Operation[]
  ): Promise<number | undefined> {
    const { succeeded, header } = await this.#connection.call(what, 'transaction', { compare, success })
    return succeeded ? (header?.revision ?? 0) : undefined
  }

  /** Grants an etcd lease with this TTL; its id. */
  async grant(ttlSeconds: number): Promise<bigint> {
    return (await this.#connection.call('getting an etcd lease', 'grant', { ttlSeconds })).id
  }

  /** Revokes an etcd lease; etcd deletes the keys attached to it. */
  async revoke(id: bigint): Promise<void> {
    await this.#connection.call('giving an etcd lease back', 'revoke', { id })
  }

  /** Renews an etcd lease; its new TTL in seconds, 0 when it no longer exists. */
  keepAlive(id: bigint): Promise<number> {
    return this.#connection.reported('renewing an etcd lease', async () => {
      const stream = await this.#connection.stream('keepAlive')
      const { promise, resolve, reject } = Promise.withResolvers<number>()
      // The error listener is never removed: without one, the error caused by cancelling would end the process.
      stream.on('error', reject)
      stream.on('end', () => reject(new Error('etcd closed the stream')))
      stream.on('data', ({ ttlSeconds }: Response<'keepAlive'>) => resolve(ttlSeconds))
      const deadline = setTimeout(
        () => reject(new Error(`no answer within ${KEEP_ALIVE_DEADLINE / 1000} s`)),
        KEEP_ALIVE_DEADLINE
      )
      stream.write({ id })
      try {
        return await promise
      } catch (error) {
        this.#connection.useNextMember()
        throw error
      } finally {
        clearTimeout(deadline)
        stream.cancel()
      }
    })
  }
}
