// Holds our lease in etcd: renews it by our own clock, acquires it again with the same subnet when it was deleted or
// has expired, and reports when another node took it.
import { setTimeout as sleep } from 'node:timers/promises'
import { perFamily } from '../../../ipam/address.ts'
import { Backoff, retry } from '../../base/backoff.ts'
import { reasonOf, WeftError } from '../../base/error.ts'
import { type Granted, grantedSubnet } from '../../lease/acquire.ts'
import type { Lease } from '../../lease/lease.ts'
import { isOurs } from '../../lease/own-lease.ts'
import type { LeaseRequest, StoreDeps } from '../../lease/store.ts'
import { answered, type ClaimOptions, EtcdClaim, type Held, unlessStoreTrouble } from './claim.ts'
import type { EtcdKeys } from './keys.ts'
import type { KeyValue } from './messages.ts'
import { type LeaseListing, readRecord, takenBy } from './record.ts'
import type { WatchEvent } from './watch.ts'

export type LeaseKeeperOptions = ClaimOptions & {
  readonly renewMarginSeconds: number
  /** Called when our lease is taken, or taken again. */
  readonly onHeld?: () => void
}

/** flannel gives up after the same number. */
const CONFLICTS = 10

export class LeaseKeeper implements AsyncDisposable {
  readonly #keys: EtcdKeys
  readonly #claim: EtcdClaim
  readonly #options: LeaseKeeperOptions
  readonly #deps: StoreDeps
  readonly #ended = new AbortController()
  #held: Held | undefined
  /** Counts our own writes, so that a listing requested before one is not mistaken for a later change of our key. */
  #writes = 0
  #lost = false
  #renewing: AbortController | undefined
  /** Milliseconds since 1970. */
  #ends: number | undefined
  #retaking: Promise<void> | undefined
  #listing: Promise<LeaseListing> | undefined

  constructor(keys: EtcdKeys, options: LeaseKeeperOptions, deps: StoreDeps) {
    this.#keys = keys
    this.#claim = new EtcdClaim(keys, options, deps.log)
    this.#options = options
    this.#deps = deps
  }

  get held(): Held | undefined {
    return this.#held
  }

  /** See Store.acquire. Waits for etcd as long as the signal allows. Errors: SUBNETS_EXHAUSTED, LEASE_CONTESTED. */
  async acquire(request: LeaseRequest, signal: AbortSignal): Promise<Lease> {
    const backoff = new Backoff()
    let conflicts = 0
    const attempt = async (): Promise<Lease | undefined> => {
      const listing = await this.listing()
      const choice = this.#choose(request, listing)
      const held =
        choice.kind === 'keep'
          ? await this.#claim.keep(request, choice, listing)
          : await this.#claim.take(request, choice, listing, signal)
      if (held !== undefined) {
        this.#hold(held, choice.because)
        return held.lease
      }
      if (++conflicts > CONFLICTS) throw contested(this.#options.prefix)
      backoff.reset()
      return undefined
    }
    // The condition is raised already. What an unanswered transaction did, the next listing shows.
    return retry(attempt, { signal, backoff, onError: unlessStoreTrouble })
  }

  /** See Store.leaseEnds. */
  get ends(): number | undefined {
    return this.#lost || this.#held?.etcdLease === 0n ? undefined : this.#ends
  }

  /**
   * All leases as etcd has them now. Concurrent callers share one listing: at start the watch and `acquire` both need
   * it, and thousands of leases are fetched and parsed once.
   */
  listing(): Promise<LeaseListing> {
    this.#listing ??= this.#list().finally(() => {
      this.#listing = undefined
    })
    return this.#listing
  }

  async #list(): Promise<LeaseListing> {
    const writes = this.#writes
    const { revision, records } = await this.#keys.list(this.#options.prefix)
    return { revision, records: records.map(readRecord), writes }
  }

  #choose(request: LeaseRequest, { records }: LeaseListing): Granted {
    const leases = records.flatMap((record) => takenBy(record) ?? [])
    const held = this.#held !== undefined && !this.#lost ? { held: this.#held.lease.subnet } : {}
    return grantedSubnet({ ...request, leases, random: Math.random, ...held }, this.#options.prefix)
  }

  #hold(held: Held, because: string): void {
    this.#held = held
    this.#writes++
    this.#lost = false
    this.#ends = Date.now() + 1_000 * held.ttlSeconds
    this.#deps.report.clear('LEASE_LOST')
    this.#deps.log.debug({ lease: held.key, because, reservation: held.etcdLease === 0n }, 'lease held in etcd')
    this.#renew(held, renewAfter(held.ttlSeconds, this.#options))
    this.#options.onHeld?.()
  }

  /** Starts renewing after this many seconds; a reservation needs no renewal. */
  #renew({ etcdLease }: Held, afterSeconds: number): void {
    this.#renewing?.abort()
    this.#renewing = new AbortController()
    const signal = AbortSignal.any([this.#renewing.signal, this.#ended.signal])
    if (etcdLease !== 0n)
      this.#renewLater(etcdLease, afterSeconds, signal).catch((error) => this.#unlessStopped(signal, error))
  }

  /**
   * Renews until the signal, each time a margin before expiry; while etcd can't be reached with backoff, after expiry
   * too.
   */
  async #renewLater(etcdLease: bigint, afterSeconds: number, signal: AbortSignal): Promise<void> {
    for (let pause = afterSeconds; ; ) {
      await sleep(1_000 * pause, undefined, { signal })
      const left = await answered(() => this.#keys.keepAlive(etcdLease), signal)
      signal.throwIfAborted()
      if (left === 0) return this.#takeAgain('its etcd lease has ended')
      this.#ends = Date.now() + 1_000 * left
      this.#deps.log.debug({ lease: this.#held?.key, seconds: left }, 'lease renewed in etcd')
      pause = renewAfter(left, this.#options)
    }
  }

  #unlessStopped(signal: AbortSignal, error: unknown): void {
    if (!signal.aborted) this.#deps.log.error({ lease: this.#held?.key, err: error }, 'renewing our lease failed')
  }

  /** Checks our own key in a complete listing. */
  onListing(listing: LeaseListing): void {
    const held = this.#held
    if (held === undefined || (listing.writes !== this.#writes && listing.revision < held.modified)) return
    const record = listing.records.find(({ key }) => key === held.key)
    if (record === undefined) this.#retakeInBackground('it is not in a new listing of etcd')
    else if (record.modified !== held.modified) this.#written(held, record)
  }

  /** One event of the watch, in order. */
  onEvent(event: WatchEvent): void {
    const held = this.#held
    if (held === undefined || (event.kind === 'put' ? event.record.key : event.key) !== held.key) return
    if (event.kind === 'put') {
      if (event.record.modified > held.modified) this.#written(held, event.record)
    } else if (event.modified > held.modified) this.#retakeInBackground('it was deleted')
  }

  /**
   * Another program wrote our key. A value that publishes our address is accepted unless its backend data identify
   * another node; another node's means that we have lost the subnet.
   */
  #written(held: Held, record: KeyValue): void {
    if (record.value === this.#claim.writing) return
    const lease = takenBy(readRecord(record))
    const now = { ...held, value: record.value, etcdLease: record.lease, modified: record.modified }
    if (lease === undefined || hasNoOwner(lease)) {
      this.#retakeInBackground('its value was overwritten by one that cannot be parsed')
    } else if (!isOurs(lease, { ...held.request, lease: held.lease })) {
      this.#lose(record)
    } else if (this.#lost || now.etcdLease !== held.etcdLease) {
      this.#hold(now, 'written by another program, with our address')
      // The TTL of this etcd lease is unknown: renew at once.
      this.#ends = undefined
      this.#renew(now, 0)
    } else {
      this.#held = now
      this.#writes++
    }
  }

  #lose(record: KeyValue): void {
    this.#lost = true
    this.#renewing?.abort()
    this.#deps.report.raise('LEASE_LOST', `${record.key} now has the value ${record.value.slice(0, 200)}`)
  }

  #retakeInBackground(because: string): void {
    this.#takeAgain(because).catch((error) => this.#unlessStopped(this.#ended.signal, error))
  }

  #takeAgain(because: string): Promise<void> {
    this.#retaking ??= this.#retake(because).finally(() => {
      this.#retaking = undefined
    })
    return this.#retaking
  }

  /**
   * Writes our key again with the same subnet, or finds that another node has it. Stops early when acquire() has got a
   * lease meanwhile.
   */
  async #retake(because: string): Promise<void> {
    const held = this.#held
    if (held === undefined) return
    const onError = (error: unknown) => {
      unlessStoreTrouble(error)
      this.#deps.log.warn(
        { lease: held.key, reason: reasonOf(error) },
        'our lease cannot be written again yet; retrying'
      )
    }
    const attempt = async () => this.#held !== held || (await this.#rewrite(held, because)) || undefined
    await retry(attempt, { signal: this.#ended.signal, onError })
  }

  /** One attempt; false when the key changed meanwhile and must be read again. */
  async #rewrite(held: Held, because: string): Promise<boolean> {
    const there = await this.#keys.get(held.key)
    const owner = there && takenBy(readRecord(there))
    if (there !== undefined && owner !== undefined && !hasNoOwner(owner)) {
      if (this.#held === held) this.#written(held, there)
      return true
    }
    const again = await this.#claim.writeAgain(held, there, this.#ended.signal)
    if (again === undefined) return false
    if (this.#held !== held) return true
    if (again === 'overlapped') {
      this.#lost = true
      this.#deps.report.raise(
        'LEASE_LOST',
        `${held.key} was deleted, and another node has leased a subnet that overlaps it`
      )
    } else {
      this.#hold(again, because)
      this.#deps.log.warn({ lease: held.key, because }, 'our lease was gone and is written again')
    }
    return true
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ended.abort()
    await this.#retaking?.catch(() => undefined)
  }
}

/** Seconds until the next renewal: TTL minus the margin, but at least a third of the TTL. */
const renewAfter = (ttlSeconds: number, { renewMarginSeconds }: LeaseKeeperOptions): number =>
  Math.max(ttlSeconds - renewMarginSeconds, ttlSeconds / 3)

const contested = (prefix: string): WeftError =>
  new WeftError(
    'LEASE_CONTESTED',
    `a subnet could not be leased under ${prefix}: ${CONFLICTS + 1} times another node took the chosen one first`,
    'weftd retries; if it lasts, give each node its own public IP (--public-ip)'
  )

const hasNoOwner = (lease: Lease): boolean => perFamily(lease.publicIp).length === 0
