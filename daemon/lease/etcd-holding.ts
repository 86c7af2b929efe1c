// Our own lease in etcd: taken, renewed by our own clock, and taken again with the same subnet when somebody deleted it or etcd forgot it.
import { setTimeout as sleep } from 'node:timers/promises'
import { overlaps, perFamily } from '../../ipam/address.ts'
import { Backoff } from '../backoff.ts'
import { reasonOf, WeftError } from '../error.ts'
import { type Choice, type Granted, grantedSubnet, publishesUs } from './acquire.ts'
import type { EtcdKeys } from './etcd-keys.ts'
import type { KeyValue } from './etcd-protocol.ts'
import { type LeaseListing, readRecord, takenBy } from './etcd-record.ts'
import type { WatchEvent } from './etcd-watch.ts'
import { formatLeaseValue, type Lease, leaseKey, parseLeaseKey } from './lease.ts'
import type { StoreSurroundings, Wish } from './store.ts'

export type HoldingOptions = {
  /** Ends in `/subnets/`. */
  readonly prefix: string
  readonly ttlSeconds: number
  readonly renewMarginSeconds: number
}

type Held = {
  readonly wish: Wish
  readonly lease: Lease
  readonly key: string
  readonly value: string
  /** `0`: a reservation, which stays without an etcd lease. */
  readonly etcdLease: string
  readonly modified: number
  /** What the etcd lease lives for when it is renewed. */
  readonly ttlSeconds: number
}

/** flannel gives up after as many conflicts. */
const CONFLICTS = 10

export class EtcdHolding implements AsyncDisposable {
  readonly #keys: EtcdKeys
  readonly #options: HoldingOptions
  readonly #around: StoreSurroundings
  readonly #ended = new AbortController()
  /** The value of our own write that etcd has not answered yet. */
  #writing: string | undefined
  #held: Held | undefined
  /** Counts our own writes, so that a listing from before one is not taken for news about our key. */
  #writes = 0
  #lost = false
  #renewing: AbortController | undefined
  #retaking: Promise<void> | undefined
  #listing: Promise<LeaseListing> | undefined

  constructor(keys: EtcdKeys, options: HoldingOptions, around: StoreSurroundings) {
    this.#keys = keys
    this.#options = options
    this.#around = around
  }

  /** See Store.acquire. Waits for etcd as long as the signal allows. Errors: SUBNETS_EXHAUSTED, LEASE_CONTESTED. */
  async acquire(wish: Wish, signal: AbortSignal): Promise<Lease> {
    const backoff = new Backoff()
    for (let conflicts = 0; conflicts <= CONFLICTS; ) {
      try {
        const listing = await this.listing()
        const choice = this.#choose(wish, listing)
        const done =
          choice.kind === 'keep'
            ? await this.#keep(wish, choice, listing)
            : await this.#take(wish, choice, listing, signal)
        if (done !== undefined) return done
        conflicts++
        backoff.reset()
      } catch (error) {
        // The condition is raised already. What an unanswered transaction did, the next listing shows.
        if (!isStoreTrouble(error)) throw error
      }
      await backoff.pause(signal)
    }
    const message = `a subnet could not be leased under ${this.#options.prefix}: ${CONFLICTS + 1} times another node took the chosen one first`
    throw new WeftError('LEASE_CONTESTED', message, 'try again; if it stays so, look for two nodes with one public IP')
  }

  #grant(): Promise<string> {
    return this.#keys.grant(this.#options.ttlSeconds)
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

  #choose(wish: Wish, { records }: LeaseListing): Granted {
    const leases = records.flatMap((record) => takenBy(record) ?? [])
    const held = this.#held !== undefined && !this.#lost ? { held: this.#held.lease.subnet } : {}
    return grantedSubnet({ ...wish, leases, random: Math.random, ...held }, this.#options.prefix)
  }

  async #keep(
    wish: Wish,
    choice: Extract<Choice, { kind: 'keep' }>,
    listing: LeaseListing
  ): Promise<Lease | undefined> {
    const record = listing.records.find(({ key }) => sameKey(key, choice.lease))
    if (record === undefined) return undefined
    const lease = leaseFor(wish, choice.lease.subnet, choice.lease)
    const value = formatLeaseValue(lease)
    const left = record.lease === '0' ? Number.POSITIVE_INFINITY : await this.#keys.keepAlive(record.lease)
    const etcdLease = left > 0 ? record.lease : await this.#grant()
    const modified =
      left > 0 && value === record.value ? record.modified : await this.#overwrite(record, value, etcdLease)
    if (modified === undefined) return undefined
    for (const unfit of choice.unfit) await this.#removeUnfit(unfit, listing)
    const ttlSeconds = left > 0 ? left : this.#options.ttlSeconds
    this.#hold({ wish, lease, key: record.key, value, etcdLease, modified, ttlSeconds }, choice.because)
    return lease
  }

  /** The watch may tell of our own write before etcd has answered it: it must not be taken for another node's. */
  async #overwrite(record: KeyValue, value: string, etcdLease: string): Promise<number | undefined> {
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
    this.#around.log.info(
      { lease: record.key, because: 'ours, but it no longer fits the configuration' },
      'lease deleted'
    )
  }

  async #take(
    wish: Wish,
    choice: Extract<Choice, { kind: 'take' }>,
    { revision }: LeaseListing,
    signal: AbortSignal
  ): Promise<Lease | undefined> {
    const lease = leaseFor(wish, choice.subnet, choice.instead)
    const [key, value] = [this.#options.prefix + leaseKey(lease), formatLeaseValue(lease)]
    const etcdLease = await this.#grant()
    const unfit = choice.unfit.map((one) => this.#options.prefix + leaseKey(one))
    const modified = await this.#keys.create({ key, value, lease: etcdLease }, unfit)
    if (modified === undefined) {
      await this.#keys.revoke(etcdLease)
      return undefined
    }
    if (!(await this.#isAlone({ key, modified }, lease, revision, signal))) return undefined
    const { ttlSeconds } = this.#options
    this.#hold({ wish, lease, key, value, etcdLease, modified, ttlSeconds }, choice.because)
    return lease
  }

  /**
   * Whether no older lease overlaps the one just created; otherwise it is deleted again. The transaction guards one key only: two nodes could take keys that
   * differ in one family or in length and still share addresses. The one created first stays. `seen`: no key of that revision overlaps.
   */
  async #isAlone(
    own: Pick<KeyValue, 'key' | 'modified'>,
    lease: Lease,
    seen: number,
    signal: AbortSignal
  ): Promise<boolean> {
    // An etcd that came back from a backup counts from there again.
    const from = seen < own.modified ? seen + 1 : 0
    const records = await answered(() => this.#keys.listCreated(this.#options.prefix, from), signal)
    const older = records.find(
      ({ key, created }) => key !== own.key && created < own.modified && overlapping(lease, key)
    )
    if (older === undefined) return true
    this.#around.log.info({ lease: own.key, because: `${older.key} was there first` }, 'lease given back')
    await answered(() => this.#keys.remove(own), signal)
    return false
  }

  #hold(held: Held, because: string): void {
    this.#held = held
    this.#writes++
    this.#lost = false
    this.#around.report.clear('LEASE_LOST')
    this.#around.log.debug({ lease: held.key, because, reservation: held.etcdLease === '0' }, 'lease held in etcd')
    this.#renew(held, renewAfter(held.ttlSeconds, this.#options))
  }

  /** Starts renewing, the first time after so many seconds; a reservation needs none. */
  #renew({ etcdLease }: Held, afterSeconds: number): void {
    this.#renewing?.abort()
    this.#renewing = new AbortController()
    const signal = AbortSignal.any([this.#renewing.signal, this.#ended.signal])
    if (etcdLease !== '0')
      this.#renewLater(etcdLease, afterSeconds, signal).catch((error) => this.#unlessStopped(signal, error))
  }

  /** Renews for ever, each time a margin before the end; while etcd can't be reached with growing pauses, past the end too. */
  async #renewLater(etcdLease: string, afterSeconds: number, signal: AbortSignal): Promise<void> {
    for (let pause = afterSeconds; ; ) {
      await sleep(1_000 * pause, undefined, { signal })
      const left = await answered(() => this.#keys.keepAlive(etcdLease), signal)
      signal.throwIfAborted()
      if (left === 0) return this.#takeAgain('its etcd lease has ended')
      this.#around.log.debug({ lease: this.#held?.key, seconds: left }, 'lease renewed in etcd')
      pause = renewAfter(left, this.#options)
    }
  }

  #unlessStopped(signal: AbortSignal, error: unknown): void {
    if (!signal.aborted) this.#around.log.error({ lease: this.#held?.key, err: error }, 'keeping our lease failed')
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
    if (record.value === this.#writing) return
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
    this.#around.report.raise('LEASE_LOST', `${record.key} now has the value ${record.value.slice(0, 200)}`)
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
    const backoff = new Backoff()
    while (held !== undefined && this.#held === held) {
      try {
        if (await this.#rewrite(held, because)) return
      } catch (error) {
        if (!isStoreTrouble(error)) throw error
        this.#around.log.warn({ lease: held.key, reason: reasonOf(error) }, 'our lease can not be written again yet')
      }
      await backoff.pause(this.#ended.signal)
    }
  }

  /** One attempt; false when the key changed under it and is worth another look. */
  async #rewrite(held: Held, because: string): Promise<boolean> {
    const there = await this.#keys.get(held.key)
    const owner = there && takenBy(readRecord(there))
    if (there !== undefined && owner !== undefined && !isNobodys(owner)) {
      if (this.#held === held) this.#written(held, there)
      return true
    }
    const etcdLease = await this.#grant()
    const write = { key: held.key, value: held.value, lease: etcdLease }
    const modified = await (there === undefined ? this.#keys.create(write) : this.#keys.replace(there, write))
    if (modified === undefined) {
      await this.#keys.revoke(etcdLease)
      return false
    }
    const alone = await this.#isAlone({ key: held.key, modified }, held.lease, 0, this.#ended.signal)
    if (this.#held !== held) return true
    if (alone) {
      this.#hold({ ...held, etcdLease, modified, ttlSeconds: this.#options.ttlSeconds }, because)
      this.#around.log.warn({ lease: held.key, because }, 'our lease was gone and is written again')
    } else {
      this.#lost = true
      this.#around.report.raise(
        'LEASE_LOST',
        `${held.key} was gone, and meanwhile another node has leased a part of it`
      )
    }
    return true
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ended.abort()
    await this.#retaking?.catch(() => undefined)
  }
}

const leaseFor = (wish: Wish, subnet: Lease['subnet'], before: Lease | undefined): Lease => ({
  subnet,
  publicIp: wish.publicIp,
  backendType: wish.backendType,
  backendData: wish.backendData(before),
  node: wish.node
})

const sameKey = (key: string, lease: Lease): boolean => {
  const subnet = parseLeaseKey(key)
  return subnet !== undefined && leaseKey({ subnet }) === leaseKey(lease)
}

/** Seconds until the next renewal: the margin before the end, or a third of the life where that is shorter than the margin. */
const renewAfter = (ttlSeconds: number, { renewMarginSeconds }: HoldingOptions): number =>
  Math.max(ttlSeconds - renewMarginSeconds, ttlSeconds / 3)

const isStoreTrouble = (error: unknown): boolean => error instanceof WeftError && error.code.startsWith('STORE_')

/** Asks until etcd answers. The conditions are raised by the connection. */
async function answered<T>(ask: () => Promise<T>, signal: AbortSignal): Promise<T> {
  const backoff = new Backoff()
  for (;;) {
    try {
      return await ask()
    } catch (error) {
      if (!isStoreTrouble(error)) throw error
    }
    await backoff.pause(signal)
  }
}

const isNobodys = (lease: Lease): boolean => perFamily(lease.publicIp).length === 0

function overlapping(lease: Lease, key: string): boolean {
  const other = parseLeaseKey(key)
  return perFamily(lease.subnet).some(
    ([family, prefix]) => other?.[family] !== undefined && overlaps(prefix, other[family])
  )
}
