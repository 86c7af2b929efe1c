// Plays the other nodes of a large cluster: writes and removes their leases in etcd, from a process on etcd's host, and
// tells when it did. Reads one JSON request a line, answers one JSON line each.
import { createInterface } from 'node:readline'
import { Etcd3, type Lease } from 'etcd3'
import { subnetKey, type WrittenLease, writtenValue } from './leases.ts'

export type WriterRequest =
  | { readonly do: 'put'; readonly endpoint: string; readonly prefix: string; readonly leases: readonly WrittenLease[] }
  | {
      readonly do: 'remove'
      readonly endpoint: string
      readonly prefix: string
      readonly leases: readonly WrittenLease[]
    }

export interface WriterAnswer {
  /** Wall clock just before the first request to etcd, in milliseconds since 1970 with fractions. */
  readonly begunMs: number
  readonly endedMs: number
}

const now = () => performance.timeOrigin + performance.now()
let client: Etcd3 | undefined
let etcdLease: Lease | undefined

/** One transaction for up to 100 keys: etcd takes 128 operations in one. */
async function carryOut(request: WriterRequest): Promise<WriterAnswer> {
  client ??= new Etcd3({ hosts: request.endpoint })
  if (!etcdLease) {
    // As long as flannel's; the first request makes it, so measured ones find it there.
    etcdLease = client.lease(86_400)
    await etcdLease.grant()
  }
  const leaseId = await etcdLease.grant()
  const begunMs = now()
  for (let from = 0; from < request.leases.length; from += 100) {
    const operations = request.leases.slice(from, from + 100).map((lease) => {
      const key = Buffer.from(subnetKey(request.prefix, lease))
      return request.do === 'put'
        ? { request_put: { key, value: Buffer.from(writtenValue(lease)), lease: leaseId } }
        : { request_delete_range: { key } }
    })
    await client.kv.txn({ success: operations })
  }
  return { begunMs, endedMs: now() }
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(await carryOut(JSON.parse(line) as WriterRequest))}\n`)
}
etcdLease?.release()
client?.close()
