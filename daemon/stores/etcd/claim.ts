// Claims a subnet in etcd by compare-and-write transactions: keeps an existing lease, takes a free subnet, or writes a
// lost lease again.
import { overlaps, perFamily } from '../../../ipam/address.ts'
import { retry } from '../../base/backoff.ts'
import { WeftError } from '../../base/error.ts'
import type { Log } from '../../base/log.ts'
import type { Choice } from '../../lease/acquire.ts'
import { formatLeaseValue, type Lease, leaseKey, parseLeaseKey } from '../../lease/lease.ts'
import type { LeaseRequest } from '../../lease/store.ts'
import type { EtcdKeys } from './keys.ts'
import type { KeyValue } from './messages.ts'
import type { LeaseListing } from './record.ts'

export type ClaimOptions = {
  /** Ends in `/subnets/`. */
  readonly prefix: string
  readonly ttlSeconds: number
}

/** Our lease as it is in etcd. */
export type Held = {
  readonly request: LeaseRequest
  readonly lease: Lease
  readonly key: string
  readonly value: string
  /** 0: a reservation, which stays without an etcd lease. */
  readonly etcdLease: bigint
  readonly modified: number
  /** TTL that a renewal gives the etcd lease. */
  readonly ttlSeconds: number
}

export class EtcdClaim {
  readonly #keys: EtcdKeys
  readonly #options: ClaimOptions
  readonly #log: Log
  #writing: string | undefined

  constructor(keys: EtcdKeys, options: ClaimOptions, log: Log) {
    this.#keys = keys
    this.#options = options
    this.#log = log
  }

  /**
   * The value of a write that etcd has not acknowledged yet: the watch may deliver it first, and it must not be
   * mistaken for another node's.
   */
  get writing(): string | undefined {
    return this.#writing
  }

  /** Keeps an existing record of ours. `undefined`: it has changed since the listing. */
  async keep(
    request: LeaseRequest,
    choice: Extract<Choice, { kind: 'keep' }>,
    listing: LeaseListing
  ): Promise<Held | undefined> {
    const record = listing.records.find(({ key }) => sameKey(key, choice.lease))
    if (record === undefined) return undefined
    const lease = leaseFor(request, choice.lease.subnet, choice.lease)
    const value = formatLeaseValue(lease)
    const left = record.lease === 0n ? Number.POSITIVE_INFINITY : await this.#keys.keepAlive(record.lease)
    const etcdLease = left > 0 ? record.lease : await this.#grant()
    const modified =
      left > 0 && value === record.value ? record.modified : await this.#overwrite(record, value, etcdLease)
    if (modified === undefined) return undefined
    for (const unfit of choice.unfit) await this.#removeUnfit(unfit, listing)
    const ttlSeconds = left > 0 ? left : this.#options.ttlSeconds
    return { request, lease, key: record.key, value, etcdLease, modified, ttlSeconds }
  }

  #grant(): Promise<bigint> {
    return this.#keys.grant(this.#options.ttlSeconds)
  }

  async #overwrite(record: KeyValue, value: string, etcdLease: bigint): Promise<number | undefined> {
    this.#writing = value
    try {
      return await this.#keys.replace(record, { value, lease: etcdLease })
    } finally {
      this.#writing = undefined
    }
  }

  async #removeUnfit(unfit: Lease, listing: LeaseListing): Promise<void> {
    const record = listing.records.find(({ key }) => sameKey(key, unfit))
    if (record === undefined || (await this.#keys.remove(record)) === undefined) return
    this.#log.info({ lease: record.key, because: 'it is ours but no longer fits the configuration' }, 'lease deleted')
  }

  /** Takes a free subnet. `undefined`: another node was faster. */
  async take(
    request: LeaseRequest,
    choice: Extract<Choice, { kind: 'take' }>,
    { revision }: LeaseListing,
    signal: AbortSignal
  ): Promise<Held | undefined> {
    const lease = leaseFor(request, choice.subnet, choice.instead)
    const [key, value] = [this.#options.prefix + leaseKey(lease), formatLeaseValue(lease)]
    const etcdLease = await this.#grant()
    const unfit = choice.unfit.map((one) => this.#options.prefix + leaseKey(one))
    const modified = await this.#keys.create({ key, value, lease: etcdLease }, unfit)
    if (modified === undefined) {
      await this.#keys.revoke(etcdLease)
      return undefined
    }
    if (!(await this.#isAlone({ key, modified }, lease, revision, signal))) return undefined
    return { request, lease, key, value, etcdLease, modified, ttlSeconds: this.#options.ttlSeconds }
  }

  /**
   * Writes the lease again in place of `there`: no record, or one without an owner. `undefined`: the key changed
   * meanwhile and must be read again. `overlapped`: another node has leased a subnet that overlaps it.
   */
  async writeAgain(
    held: Held,
    there: KeyValue | undefined,
    signal: AbortSignal
  ): Promise<Held | 'overlapped' | undefined> {
    const etcdLease = await this.#grant()
    const write = { key: held.key, value: held.value, lease: etcdLease }
    const modified = await (there === undefined ? this.#keys.create(write) : this.#keys.replace(there, write))
    if (modified === undefined) {
      await this.#keys.revoke(etcdLease)
      return undefined
    }
    const isAlone = await this.#isAlone({ key: held.key, modified }, held.lease, 0, signal)
    return isAlone ? { ...held, etcdLease, modified, ttlSeconds: this.#options.ttlSeconds } : 'overlapped'
  }

  /**
   * Whether no older lease overlaps the one just created; if one does, ours is deleted. A transaction guards a single
   * key, and two nodes could create keys that differ in one family or in length and still share addresses: the older
   * one stays. `seen`: no key up to that revision overlaps.
   */
  async #isAlone(
    own: Pick<KeyValue, 'key' | 'modified'>,
    lease: Lease,
    seen: number,
    signal: AbortSignal
  ): Promise<boolean> {
    // An etcd restored from a backup counts revisions from there.
    const from = seen < own.modified ? seen + 1 : 0
    const records = await answered(() => this.#keys.listCreated(this.#options.prefix, from), signal)
    const older = records.find(
      ({ key, created }) => key !== own.key && created < own.modified && overlapping(lease, key)
    )
    if (older === undefined) return true
    this.#log.info(
      { lease: own.key, because: `${older.key} is older and overlaps it` },
      'our new lease is deleted again'
    )
    await answered(() => this.#keys.remove(own), signal)
    return false
  }
}

const leaseFor = (request: LeaseRequest, subnet: Lease['subnet'], before: Lease | undefined): Lease => ({
  subnet,
  publicIp: request.publicIp,
  backendType: request.backendType,
  backendData: request.backendData(before),
  node: request.node
})

const sameKey = (key: string, lease: Lease): boolean => {
  const subnet = parseLeaseKey(key)
  return subnet !== undefined && leaseKey({ subnet }) === leaseKey(lease)
}

function overlapping(lease: Lease, key: string): boolean {
  const other = parseLeaseKey(key)
  return perFamily(lease.subnet).some(
    ([family, prefix]) => other?.[family] !== undefined && overlaps(prefix, other[family])
  )
}

const isStoreTrouble = (error: unknown): boolean => error instanceof WeftError && error.code.startsWith('STORE_')

/** Repeats a request until etcd answers. The connection raises the conditions. */
export const answered = <T>(request: () => Promise<T>, signal: AbortSignal): Promise<T> =>
  retry(async () => ({ answer: await request() }), { signal, onError: unlessStoreTrouble }).then(({ answer }) => answer)

/** For `retry`: only what a later attempt may cure is tried again. */
export function unlessStoreTrouble(error: unknown): void {
  if (!isStoreTrouble(error)) throw error
}
