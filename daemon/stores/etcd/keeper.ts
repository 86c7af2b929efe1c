// Our own lease in etcd for as long as we hold it: renewed by our own clock, lost to another node, and taken again with the same subnet when somebody deleted it or etcd forgot it.
import { setTimeout as sleep } from 'node:timers/promises'
import { perFamily } from '../../../ipam/address.ts'
import { Backoff, retry } from '../../base/backoff.ts'
import { reasonOf, WeftError } from '../../base/error.ts'
import { type Granted, grantedSubnet, publishesUs } from '../../lease/acquire.ts'
import type { Lease } from '../../lease/lease.ts'
import type { LeaseRequest, StoreDeps } from '../../lease/store.ts'
import { answered, type ClaimOptions, EtcdClaim, type Held, unlessStoreTrouble } from './claim.ts'
import type { EtcdKeys } from './keys.ts'
import type { KeyValue } from './messages.ts'
import { type LeaseListing, readRecord, takenBy } from './record.ts'
import type { WatchEvent } from './watch.ts'

export type LeaseKeeperOptions = ClaimOptions & { readonly renewMarginSeconds: number }

/** flannel gives up after as many conflicts. */
const CONFLICTS = 10

export class LeaseKeeper implements AsyncDisposable {
  readonly #keys: EtcdKeys
  readonly #claim: EtcdClaim
  readonly #options: LeaseKeeperOptions
  readonly #deps: StoreDeps
  readonly #ended = new AbortController()
  #held: Held | undefined
  /** Counts our own writes, so that a listing from before one is not taken for news about our key. */
  #writes = 0
  #lost = false
  #renewing: AbortController | undefined
  #retaking: Promise<void> | undefined
  #listing: Promise<LeaseListing> | undefined

  constructor(keys: EtcdKeys, options: LeaseKeeperOptions, deps: StoreDeps) {
    this.#keys = keys
    this.#claim = new EtcdClaim(keys, options, deps.log)
    this.#options = options
    this.#deps = deps
  }

  /** See Store.acquire. Waits for etcd as long as the signal allows. Errors: SUBNETS_EXHAUSTED, LEASE_CONTESTED. */
  async acquire(wish: LeaseRequest, signal: AbortSignal): Promise<Lease> {
    const backoff = new Backoff()
    let conflicts = 0
    const attempt = async (): Promise<Lease | undefined> => {
      const listing = await this.listing()
      const choice = this.#choose(wish, listing)
      const held =
        choice.kind === 'keep'
          ? await this.#claim.keep(wish, choice, listing)
          : await this.#claim.take(wish, choice, listing, signal)
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

  /**
   * All leases as etcd has them now. Who asks while a listing is under way gets the same one: at start the watch and `acquire` do, and thousands of leases
   * are fetched and read once.
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

  #choose(wish: LeaseRequest, { records }: LeaseListing): Granted {
    const leases = records.flatMap((record) => takenBy(record) ?? [])
    const held = this.#held !== undefined && !this.#lost ? { held: this.#held.lease.subnet } : {}
    return grantedSubnet({ ...wish, leases, random: Math.random, ...held }, this.#options.prefix)
  }

  #hold(held: Held, because: string): void {
    this.#held = held
    this.#writes++
    this.#lost = false
    this.#deps.report.clear('LEASE_LOST')
    this.#deps.log.debug({ lease: held.key, because, reservation: held.etcdLease === 0n }, 'lease held in etcd')
    this.#renew(held, renewAfter(held.ttlSeconds, this.#options))
  }

  /** Starts renewing, the first time after so many seconds; a reservation needs none. */
  #renew({ etcdLease }: Held, afterSeconds: number): void {
    this.#renewing?.abort()
    this.#renewing = new AbortController()
    const signal = AbortSignal.any([this.#renewing.signal, this.#ended.signal])
    if (etcdLease !== 0n)
      this.#renewLater(etcdLease, afterSeconds, signal).catch((error) => this.#unlessStopped(signal, error))
  }

  /** Renews for ever, each time a margin before the end; while etcd can't be reached with growing pauses, past the end too. */
  async #renewLater(etcdLease: bigint, afterSeconds: number, signal: AbortSignal): Promise<void> {
    for (let pause = afterSeconds; ; ) {
      await sleep(1_000 * pause, undefined, { signal })
      const left = await answered(() => this.#keys.keepAlive(etcdLease), signal)
      signal.throwIfAborted()
      if (left === 0) return this.#takeAgain('its etcd lease has ended')
      this.#deps.log.debug({ lease: this.#held?.key, seconds: left }, 'lease renewed in etcd')
      pause = renewAfter(left, this.#options)
    }
  }

  #unlessStopped(signal: AbortSignal, error: unknown): void {
    if (!signal.aborted) this.#deps.log.error({ lease: this.#held?.key, err: error }, 'keeping our lease failed')
  }

  /** What a complete listing says of our own key. */
  listed(listing: LeaseListing): void {
    const held = this.#held
    if (held === undefined || (listing.writes !== this.#writes && listing.revision < held.modified)) return
    const record = listing.records.find(({ key }) => key === held.key)
    if (record === undefined) this.#goneNow('it is not in a new listing of etcd')
    else if (record.modified !== held.modified) this.#written(held, record)
  }

  /** One event of the watch, in order. */
  happened(event: WatchEvent): void {
    const held = this.#held
    if (held === undefined || (event.kind === 'put' ? event.record.key : event.key) !== held.key) return
    if (event.kind === 'put') {
      if (event.record.modified > held.modified) this.#written(held, event.record)
    } else if (event.modified > held.modified) this.#goneNow('it was deleted')
  }

  /** Somebody wrote our key. A value that publishes us is as good as ours; any other node's means that the subnet is no longer ours. */
  #written(held: Held, record: KeyValue): void {
    if (record.value === this.#claim.writing) return
    const lease = takenBy(readRecord(record))
    const now = { ...held, value: record.value, etcdLease: record.lease, modified: record.modified }
    if (lease === undefined || isNobodys(lease)) {
      this.#goneNow('its value was overwritten by one that can not be understood')
    } else if (!publishesUs(lease, held.wish.publicIp)) {
      this.#loseTo(record)
    } else if (this.#lost || now.etcdLease !== held.etcdLease) {
      this.#hold(now, 'written by somebody else, for us')
      // How long this etcd lease lives is not known: renewed at once.
      this.#renew(now, 0)
    } else {
      this.#held = now
      this.#writes++
    }
  }

  #loseTo(record: KeyValue): void {
    this.#lost = true
    this.#renewing?.abort()
    this.#deps.report.raise('LEASE_LOST', `${record.key} now has the value ${record.value.slice(0, 200)}`)
  }

  #goneNow(because: string): void {
    this.#takeAgain(because).catch((error) => this.#unlessStopped(this.#ended.signal, error))
  }

  #takeAgain(because: string): Promise<void> {
    this.#retaking ??= this.#retake(because).finally(() => {
      this.#retaking = undefined
    })
    return this.#retaking
  }

  /** Writes our key again under the same subnet, or finds that another node has it. Ends with one of the two, or when acquire() has been faster. */
  async #retake(because: string): Promise<void> {
    const held = this.#held
    if (held === undefined) return
    const onError = (error: unknown) => {
      unlessStoreTrouble(error)
      this.#deps.log.warn({ lease: held.key, reason: reasonOf(error) }, 'our lease can not be written again yet')
    }
    const attempt = async () => this.#held !== held || (await this.#rewrite(held, because)) || undefined
    await retry(attempt, { signal: this.#ended.signal, onError })
  }

  /** One attempt; false when the key changed under it and is worth another look. */
  async #rewrite(held: Held, because: string): Promise<boolean> {
    const there = await this.#keys.get(held.key)
    const owner = there && takenBy(readRecord(there))
    if (there !== undefined && owner !== undefined && !isNobodys(owner)) {
      if (this.#held === held) this.#written(held, there)
      return true
    }
    const again = await this.#claim.writeAgain(held, there, this.#ended.signal)
    if (again === undefined) return false
    if (this.#held !== held) return true
    if (again === 'overlapped') {
      this.#lost = true
      this.#deps.report.raise('LEASE_LOST', `${held.key} was gone, and meanwhile another node has leased a part of it`)
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

/** Seconds until the next renewal: the margin before the end, or a third of the life where that is shorter than the margin. */
const renewAfter = (ttlSeconds: number, { renewMarginSeconds }: LeaseKeeperOptions): number =>
  Math.max(ttlSeconds - renewMarginSeconds, ttlSeconds / 3)

const contested = (prefix: string): WeftError =>
  new WeftError(
    'LEASE_CONTESTED',
    `a subnet could not be leased under ${prefix}: ${CONFLICTS + 1} times another node took the chosen one first`,
    'try again; if it stays so, look for two nodes with one public IP'
  )

const isNobodys = (lease: Lease): boolean => perFamily(lease.publicIp).length === 0
