// The few requests Weft makes of etcd: list, get, create, replace, remove, grant, keep alive. Every write is a transaction on what was read before.
import { CompareResult, CompareTarget, type ICompare, type ILeaseKeepAliveResponse, type IRequestOp } from 'etcd3'
import type { EtcdConnection } from './etcd-connection.ts'
import { type KeyValue, keyValue, rangeEnd } from './etcd-watch.ts'

/** Keys of one answer: 5,000 leases of some 250 bytes come in five. */
const PAGE = 1_000
/** Milliseconds for one keep-alive. */
const KEEP_ALIVE_DEADLINE = 5_000

export type Listing = { readonly revision: number; readonly records: readonly KeyValue[] }
/** A write and what must hold for it; `lease` 0 writes without an etcd lease. */
type Write = { readonly key: string; readonly value: string; readonly lease: string }

const putOp = ({ key, value, lease }: Write): IRequestOp => ({
  request_put: { key: Buffer.from(key), value: Buffer.from(value), lease }
})
const deleteOp = (key: string): IRequestOp => ({ request_delete_range: { key: Buffer.from(key) } })
const unchanged = ({ key, modified }: Pick<KeyValue, 'key' | 'modified'>): ICompare => ({
  key: Buffer.from(key),
  target: CompareTarget.Mod,
  result: CompareResult.Equal,
  mod_revision: modified
})
const absent = (key: string): ICompare => ({
  key: Buffer.from(key),
  target: CompareTarget.Version,
  result: CompareResult.Equal,
  version: 0
})

export class EtcdKeys {
  readonly #connection: EtcdConnection

  constructor(connection: EtcdConnection) {
    this.#connection = connection
  }

  /** All keys under a prefix at one revision, page by page. */
  async list(prefix: string, keysOnly = false): Promise<Listing> {
    const end = rangeEnd(prefix)
    const records: KeyValue[] = []
    let [from, revision] = [prefix, 0]
    for (;;) {
      const request = { key: Buffer.from(from), range_end: end, limit: PAGE, revision, keys_only: keysOnly }
      const page = await this.#connection.call(`listing ${prefix}`, ({ kv }) => kv.range(request))
      records.push(...page.kvs.map(keyValue))
      if (revision === 0) revision = Number(page.header.revision)
      const last = records.at(-1)
      if (!page.more || last === undefined) return { revision, records }
      from = `${last.key}\0`
    }
  }

  async get(key: string): Promise<KeyValue | undefined> {
    const { kvs } = await this.#connection.call(`reading ${key}`, ({ kv }) => kv.range({ key: Buffer.from(key) }))
    return kvs[0] && keyValue(kvs[0])
  }

  /** Writes a key that must not exist and deletes others with it; the revision, or `undefined` when it exists. */
  create(write: Write, remove: readonly string[] = []): Promise<number | undefined> {
    return this.#transaction(`creating ${write.key}`, [absent(write.key)], [...remove.map(deleteOp), putOp(write)])
  }

  /** Overwrites a key that must still be as it was read; the revision, or `undefined` when it has changed. */
  replace(before: Pick<KeyValue, 'key' | 'modified'>, write: Omit<Write, 'key'>): Promise<number | undefined> {
    return this.#transaction(`writing ${before.key}`, [unchanged(before)], [putOp({ key: before.key, ...write })])
  }

  /** Deletes a key that must still be as it was read; `undefined` when it has changed. */
  remove(before: Pick<KeyValue, 'key' | 'modified'>): Promise<number | undefined> {
    return this.#transaction(`deleting ${before.key}`, [unchanged(before)], [deleteOp(before.key)])
  }

  async #transaction(what: string, compare: ICompare[], success: IRequestOp[]): Promise<number | undefined> {
    const { succeeded, header } = await this.#connection.call(what, ({ kv }) =>
      kv.txn({ compare, success, failure: [] })
    )
    return succeeded ? Number(header.revision) : undefined
  }

  /** A new etcd lease of so many seconds. */
  async grant(ttlSeconds: number): Promise<string> {
    const { ID } = await this.#connection.call('an etcd lease', ({ lease }) => lease.leaseGrant({ TTL: ttlSeconds }))
    return ID
  }

  /** Gives an etcd lease back, with whatever key is still attached to it. One that is gone already is no error. */
  async revoke(etcdLease: string): Promise<void> {
    await this.#connection.call('giving an etcd lease back', ({ lease }) =>
      lease.leaseRevoke({ ID: etcdLease }).catch(ignoreGone)
    )
  }

  /** Renews an etcd lease; the seconds it now has, 0 when there is no such lease any more. */
  keepAlive(etcdLease: string): Promise<number> {
    return this.#connection.call('renewing an etcd lease', async () => {
      const stream = await this.#connection.stream(({ lease }) => lease.leaseKeepAlive())
      let deadline: NodeJS.Timeout | undefined
      try {
        const left = await new Promise<number>((resolve, reject) => {
          // The listener for errors stays: without one the error that cancelling makes would end the process.
          stream.on('error', reject)
          stream.on('end', () => reject(new Error('etcd closed the stream')))
          stream.on('data', (answer: ILeaseKeepAliveResponse) => resolve(Number(answer.TTL)))
          deadline = setTimeout(
            () => reject(new Error(`no answer within ${KEEP_ALIVE_DEADLINE / 1000} s`)),
            KEEP_ALIVE_DEADLINE
          )
          stream.write({ ID: etcdLease })
        })
        // Ended, not cancelled: etcd3 takes a cancelled stream for a failed member and closes its other channels.
        stream.end()
        return left
      } catch (error) {
        stream.cancel()
        throw error
      } finally {
        clearTimeout(deadline)
      }
    })
  }
}

function ignoreGone(error: unknown): void {
  if (!(error instanceof Error) || !/lease not found|expired or revoked/.test(error.message)) throw error
}
