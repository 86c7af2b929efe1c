// Plays the other nodes of a large cluster: writes and removes their leases in etcd, from a process on etcd's host, and
// tells when it did. Reads one JSON request a line, answers one JSON line each.
import { createInterface } from 'node:readline'
import { setTimeout as pause } from 'node:timers/promises'
import { Etcd3, type Lease } from 'etcd3'
import { subnetKey, type WrittenLease, writtenValue } from './leases.ts'

type Leases = { readonly endpoint: string; readonly prefix: string; readonly leases: readonly WrittenLease[] }

export type WriterRequest =
  | ({ readonly do: 'put' | 'remove' } & Leases)
  | ({ readonly do: 'churn'; readonly perSecond: number } & Leases)

export interface WriterAnswer {
  /** Wall clock just before the first request to etcd, in milliseconds since 1970 with fractions. */
  readonly begunMs: number
  readonly endedMs: number
  /** Of `churn`: each change, with when its request to etcd began. */
  readonly changes?: readonly { readonly subnet: string; readonly gone: boolean; readonly begunMs: number }[]
}

/** How many of the leases that churn are there at once. */
const AT_ONCE = 500

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
  if (request.do === 'churn') return churn(client, leaseId, request)
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

/** At fixed times, whether or not etcd has answered the changes before. */
async function churn(
  etcd: Etcd3,
  leaseId: string,
  { leases, prefix, perSecond }: Extract<WriterRequest, { do: 'churn' }>
): Promise<WriterAnswer> {
  const planned = leases.flatMap((lease, index) => {
    const old = leases[index - AT_ONCE]
    return [{ lease, gone: false }, ...(old === undefined ? [] : [{ lease: old, gone: true }])]
  })
  const left = leases.slice(-AT_ONCE).map((lease) => ({ lease, gone: true }))
  const begunMs = now()
  const requests: Promise<unknown>[] = []
  const changes: NonNullable<WriterAnswer['changes']>[number][] = []
  for (const [index, { lease, gone }] of [...planned, ...left].entries()) {
    const due = begunMs + (1_000 * index) / perSecond
    if (due > now()) await pause(due - now())
    const key = Buffer.from(subnetKey(prefix, lease))
    const value = Buffer.from(writtenValue(lease))
    changes.push({ subnet: lease.subnet, gone, begunMs: now() })
    const operation = gone ? { request_delete_range: { key } } : { request_put: { key, value, lease: leaseId } }
    requests.push(etcd.kv.txn({ success: [operation] }))
  }
  await Promise.all(requests)
  return { begunMs, endedMs: now(), changes }
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(await carryOut(JSON.parse(line) as WriterRequest))}\n`)
}
etcdLease?.release()
client?.close()
