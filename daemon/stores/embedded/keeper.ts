// Holds our lease in the lease file: acquires and renews it, writes it again when it was deleted, and deletes other
// nodes' expired leases.
import { overlaps, perFamily } from '../../../ipam/address.ts'
import { grantedSubnet } from '../../lease/acquire.ts'
import { formatLeaseValue, type Lease, leaseKey } from '../../lease/lease.ts'
import { isOurs } from '../../lease/own-lease.ts'
import type { LeaseRequest, StoreDeps } from '../../lease/store.ts'
import type { EmbeddedFile, Row } from './file.ts'
import { takenBy } from './record.ts'

/**
 * Milliseconds that a lease must have been expired, by a clock that stops during suspend, before it is deleted. After a
 * resume every lease is expired by the wall clock, and its daemon needs a moment to renew it.
 */
const GRACE = 60_000

type Held = { readonly request: LeaseRequest; readonly lease: Lease }

/** Its methods are synchronous. Errors of all: STORE_UNREACHABLE. */
export class LeaseKeeper {
  readonly #file: EmbeddedFile
  readonly #ttl: number
  readonly #deps: StoreDeps
  /** When (performance.now) an expired lease was first seen, by key and revision. */
  readonly #expiredSince = new Map<string, number>()
  #held: Held | undefined
  #ends: number | undefined

  constructor(file: EmbeddedFile, ttlMs: number, deps: StoreDeps) {
    this.#file = file
    this.#ttl = ttlMs
    this.#deps = deps
  }

  /** See Store.acquire. Errors: SUBNETS_EXHAUSTED, LEASE_LOST. */
  acquire(request: LeaseRequest): Lease {
    const { lease, because } = this.#file.transaction(() => this.#take(request))
    this.#held = { request, lease }
    this.#deps.report.clear('LEASE_LOST')
    this.#deps.log.debug({ lease: leaseKey(lease), because }, 'lease held in the lease file')
    return lease
  }

  /** See Store.leaseEnds. */
  get ends(): number | undefined {
    return this.#held && this.#ends
  }

  /** Must run in a transaction, so that no other daemon can choose the same subnet. */
  #take(request: LeaseRequest): { readonly lease: Lease; readonly because: string } {
    const rows = this.#file.rows()
    const held = this.#held === undefined ? {} : { held: this.#held.lease.subnet }
    const leases = rows.flatMap((row) => takenBy(row) ?? [])
    const choice = grantedSubnet({ ...request, leases, random: Math.random, ...held }, this.#file.path)
    for (const unfit of choice.unfit) this.#file.remove(leaseKey(unfit))
    const before = choice.kind === 'keep' ? choice.lease : choice.instead
    const { publicIp, backendType, node } = request
    const subnet = choice.kind === 'keep' ? choice.lease.subnet : choice.subnet
    const lease = { subnet, publicIp, backendType, backendData: request.backendData(before), node }
    const reservation = rows.some((row) => row.key === leaseKey(lease) && row.expires === null)
    this.#write(lease, reservation)
    return { lease, because: choice.because }
  }

  #write(lease: Lease, reservation: boolean): void {
    const expires = reservation ? null : Date.now() + this.#ttl
    this.#ends = expires ?? undefined
    this.#file.put({ key: leaseKey(lease), value: formatLeaseValue(lease), node: lease.node ?? null, expires })
  }

  /** Renews our lease after half its TTL, and deletes others' that have expired. */
  renewAndExpire(): void {
    const now = Date.now()
    const held = this.#held
    const rows = this.#file.rows()
    const own = rows.find((row) => held !== undefined && row.key === leaseKey(held.lease))
    if (held !== undefined && own?.expires != null && own.expires - now < this.#ttl / 2)
      this.#file.transaction(() => this.#renew(held))
    const expired = rows.filter((row) => row !== own && row.expires !== null && row.expires < now)
    const ids = new Map(expired.map((row) => [`${row.key} ${row.revision}`, row]))
    for (const id of this.#expiredSince.keys()) if (!ids.has(id)) this.#expiredSince.delete(id)
    for (const [id, row] of ids) {
      const since = this.#expiredSince.get(id) ?? performance.now()
      this.#expiredSince.set(id, since)
      if (performance.now() - since >= Math.min(GRACE, this.#ttl)) this.#file.transaction(() => this.#expire(row))
    }
  }

  #renew(held: Held): void {
    const own = this.#file.rows().find((row) => row.key === leaseKey(held.lease))
    if (own?.expires != null && isFor(own, held)) this.#write(held.lease, false)
  }

  #expire(seen: Row): void {
    const now = this.#file.rows().find((row) => row.key === seen.key)
    if (now?.revision !== seen.revision) return
    this.#file.remove(seen.key)
    this.#deps.log.info({ lease: seen.key, node: seen.node, because: 'it has not been renewed' }, 'lease deleted')
  }

  /** Writes our lease again when it was deleted or cannot be parsed, unless another node has taken the subnet. */
  keep(): void {
    const held = this.#held
    if (held === undefined) return
    const key = leaseKey(held.lease)
    const own = this.#file.rows().find((row) => row.key === key)
    if (own !== undefined && isFor(own, held)) this.#deps.report.clear('LEASE_LOST')
    else this.#file.transaction(() => this.#writeAgain(held))
  }

  #writeAgain(held: Held): void {
    const key = leaseKey(held.lease)
    const rows = this.#file.rows()
    const there = rows.find((row) => row.key === key)
    const blocking = rows.find((row) => {
      const lease = takenBy(row)
      if (row.key === key) return lease !== undefined && perFamily(lease.publicIp).length > 0
      return perFamily(held.lease.subnet).some(([family, prefix]) => {
        const other = lease?.subnet[family]
        return other !== undefined && overlaps(prefix, other)
      })
    })
    if (blocking !== undefined) {
      this.#deps.report.raise(
        'LEASE_LOST',
        `${blocking.key} in ${this.#file.path} now has the value ${blocking.value.slice(0, 200)}`
      )
      return
    }
    this.#write(held.lease, there !== undefined && there.expires === null)
    this.#deps.report.clear('LEASE_LOST')
    this.#deps.log.warn(
      { lease: key, because: there === undefined ? 'it was deleted' : 'its value could not be parsed' },
      'our lease was gone and is written again'
    )
  }

  /** Stops renewing: the lease expires after its TTL. */
  release(): void {
    this.#held = undefined
  }
}

/** Whether the row still has our lease, and not that of another node with the same address. */
const isFor = (row: Row, { request, lease: ours }: Held): boolean => {
  const lease = takenBy(row)
  return lease !== undefined && isOurs(lease, { ...request, lease: ours })
}
