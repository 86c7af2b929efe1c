// Reservations in host-local's format, byte for byte, so that a node moves between flannel and Weft without losing an
// address or giving one twice. A reservation is a file named after its address; the index in memory only saves reading
// the directory again. All work is done under host-local's lock and synchronously: some ten system calls on the page
// cache. Nothing is synced to disk, since a reboot ends every reservation anyway.
import { linkSync, readdirSync, statSync, unlinkSync } from 'node:fs'
import { join } from 'node:path'
import { formatIp, type Ip, inRange, parseIp } from './address.ts'
import { type Boot, BootNote, dated } from './boot.ts'
import { codeOf, makeDirectory, regularContentOf, rewrite, write } from './files.ts'
import { assign, describe, nextFree, type PoolAddress, type RangeSet, requestedFrom } from './pool.ts'
import { Probe } from './read-file.ts'
import { NotAllRemoved, type Reservation, ReservationsUnusable } from './unusable.ts'

export type Owner = { readonly containerId: string; readonly ifname: string }

export type Reserving =
  | { readonly kind: 'reserved'; readonly addresses: readonly PoolAddress[] }
  /** This owner already holds an address of one of the sets. */
  | { readonly kind: 'held'; readonly ip: Ip }
  | { readonly kind: 'exhausted'; readonly set: RangeSet }
  /** A requested address can't be given; `why` names it. */
  | { readonly kind: 'refused'; readonly why: string }

export type Deps = {
  /** Takes the exclusive flock of the file at `path` (made when missing). */
  readonly lock: (path: string) => Promise<Disposable>
  /** Resolves once the file system of the path answers. All other work is synchronous and would wait for it. */
  readonly answers?: (path: string) => Promise<void>
  /** This boot, and a callback for addresses that are free because of it. */
  readonly boot: Boot & { readonly freed?: (ips: readonly Ip[]) => void }
}

/** `text` is the trimmed content; `undefined` for what is no file, which only blocks its address. */
type Entry = { readonly ip: Ip; readonly name: string; readonly text: string | undefined }
/** One call of reserve(): owner, sets, the requested address of each set, and addresses in use in other networks. */
type Request = {
  readonly owner: Owner
  readonly sets: readonly RangeSet[]
  readonly requested: readonly (Ip | undefined)[]
  readonly elsewhere: (ip: Ip) => boolean
}
type Waiting = { readonly work: () => void; readonly fail: (error: unknown) => void }

/**
 * Where the boot is noted, next to the networks' directories: host-local reads all files inside those, and no network's
 * name begins with a dot.
 */
export const BOOT_DIRECTORY = '.weft-boot'
/**
 * The next reservation while it is being written; it gets its address as its name once it is complete. One left by a
 * crash is removed.
 */
const UNFINISHED = '.new'
/** Bytes of a reservation: a container id and an interface name. */
const LONGEST = 4_096

export class Reservations {
  readonly directory: string
  readonly #deps: Deps
  readonly #waiting: Waiting[] = []
  #draining = false
  readonly #index = new Map<string, Entry>()
  /**
   * The address each set gave last. Another program that gives one also makes a file in the directory, so this is as
   * current as the index.
   */
  readonly #lasts = new Map<number, Ip | undefined>()
  /** Modification time of the directory when the index was right. */
  #indexed: bigint | undefined
  readonly #boot: BootNote
  readonly #probe: Probe

  /** `dataDir` is host-local's (usually /var/lib/cni/networks), `network` the name of the CNI network. */
  constructor(dataDir: string, network: string, deps: Deps) {
    this.directory = join(dataDir, network)
    this.#deps = deps
    this.#probe = new Probe(this.directory, deps.answers)
    this.#boot = new BootNote(join(dataDir, BOOT_DIRECTORY, network), deps.boot)
  }

  /**
   * Reserves one address from each set, `requested` ones where they belong, and none that is taken `elsewhere`; all or
   * nothing. Errors: ReservationsUnusable.
   */
  async reserve(
    owner: Owner,
    sets: readonly RangeSet[],
    requested: readonly Ip[] = [],
    elsewhere: (ip: Ip) => boolean = () => false
  ): Promise<Reserving> {
    await this.#answers()
    this.#make()
    return this.#locked(() => {
      const { bySet, unserved } = assign(sets, requested)
      const outside = unserved.map((ip) => formatIp(ip)).join(', ')
      if (outside !== '')
        return {
          kind: 'refused',
          why: `failed to allocate all requested IPs: ${outside}: in no range set of this network, or in one that gives another`
        }
      const held = (this.#of(owner).length === 0 ? [] : this.#ofSurely(owner)).find(({ ip }) =>
        sets.some((set) => set.some((range) => inRange(range, ip)))
      )
      return held === undefined
        ? this.#reserveAll({ owner, sets, requested: bySet, elsewhere })
        : { kind: 'held', ip: held.ip }
    })
  }

  /**
   * Frees what the owner holds, by host-local's rule: files with its id and interface, else those with its id alone.
   * Resolves with the addresses.
   */
  release(owner: Owner): Promise<readonly Ip[]> {
    return this.#lockedIfThere(() => {
      const entries = this.#ofSurely(owner)
      this.#remove(entries)
      return entries.map(({ ip }) => ip)
    })
  }

  /** What the owner holds; empty when nothing. */
  of(owner: Owner): Promise<readonly Ip[]> {
    return this.#lockedIfThere(() => this.#ofSurely(owner).map((entry) => entry.ip))
  }

  /** The owner of an address when the directory was last read; reservations made here are known at once. */
  holderOf(ip: Ip): Reservation['owner'] {
    const entry = this.#index.get(formatIp(ip))
    return entry && reservationOf(entry).owner
  }

  /** Every reservation, in no order. */
  list(): Promise<readonly Reservation[]> {
    return this.#lockedIfThere(() => [...this.#index.values()].map(reservationOf))
  }

  /**
   * Frees every reservation that `isGone` accepts, and empty files: those are written under the lock that is held here,
   * so their writer is dead and has reported the address to nobody.
   */
  collect(isGone: (reservation: Reservation) => boolean): Promise<readonly Reservation[]> {
    return this.#lockedIfThere(() => {
      this.#readDirectory()
      const gone = [...this.#index.values()].filter(
        (entry) => entry.text === '' || (entry.text !== undefined && isGone(reservationOf(entry)))
      )
      this.#remove(gone)
      return gone.map(reservationOf)
    })
  }

  /** Errors: ReservationsUnusable when the file system does not answer. */
  #answers(): Promise<void> {
    return this.#probe.answers().catch((cause) => {
      throw this.#unusable(cause)
    })
  }

  #make(): void {
    try {
      if (!this.#exists()) makeDirectory(this.directory, 0o755)
    } catch (cause) {
      throw this.#unusable(cause)
    }
  }

  #exists(): boolean {
    return statSync(this.directory, { throwIfNoEntry: false })?.isDirectory() ?? false
  }

  async #lockedIfThere<T>(work: () => readonly T[]): Promise<readonly T[]> {
    await this.#answers()
    return this.#exists() ? this.#locked(work) : []
  }

  /** Runs `work` under the lock; calls that come while the lock is awaited are served with it, in order. */
  #locked<T>(work: () => T): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>()
    const fail = (error: unknown) => {
      this.#indexed = undefined
      reject(error instanceof Error && 'cure' in error ? error : this.#unusable(error)) // a held lock has its own cure
    }
    this.#waiting.push({ work: () => resolve(this.#indexedAround(work)), fail })
    if (!this.#draining) void this.#drain()
    return promise
  }

  /**
   * Not base/serial-queue: ipam imports no room of the daemon, and one drain serves a batch of calls under one file
   * lock.
   */
  async #drain(): Promise<void> {
    this.#draining = true
    try {
      using _lock = await this.#deps.lock(join(this.directory, 'lock'))
      for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) {
        try {
          next.work()
        } catch (error) {
          next.fail(error)
        }
      }
    } catch (error) {
      for (const { fail } of this.#waiting.splice(0)) fail(error)
    } finally {
      this.#draining = false
    }
  }

  #indexedAround<T>(work: () => T): T {
    if (this.#boot.isDue) this.#emptyAfterReboot()
    if (this.#indexed === undefined || this.#indexed !== this.#changedAt()) this.#readDirectory()
    const answer = work()
    this.#indexed = this.#changedAt()
    return answer
  }

  #unusable(cause: unknown): ReservationsUnusable {
    return new ReservationsUnusable(this.directory, cause)
  }

  #changedAt(): bigint {
    return statSync(this.directory, { bigint: true }).mtimeNs
  }

  /**
   * Reads the directory. Other names than addresses are ignored: `lock`, `last_reserved_ip.0`, other programs' files.
   */
  #readDirectory(): void {
    this.#index.clear()
    this.#lasts.clear()
    for (const entry of readdirSync(this.directory, { withFileTypes: true })) {
      const { name } = entry
      const ip = parseIp(name)
      if (ip !== undefined)
        this.#index.set(formatIp(ip), { ip, name, text: entry.isFile() ? this.#textOf(name) : undefined })
      else if (name === UNFINISHED) this.#unlink(name)
    }
  }

  #textOf(name: string): string | undefined {
    return regularContentOf(join(this.directory, name), LONGEST)?.trim()
  }

  #of({ containerId, ifname }: Owner): readonly Entry[] {
    const entries = [...this.#index.values()]
    const exact = entries.filter((entry) => entry.text === `${containerId}\r\n${ifname}`)
    return exact.length > 0 ? exact : entries.filter((entry) => entry.text === containerId)
  }

  /**
   * The index may lack a file made within the clock tick of the last read, and a file that is rewritten in place does
   * not change its directory: if nothing is found, or what is found now belongs to another, read again.
   */
  #ofSurely(owner: Owner): readonly Entry[] {
    const found = this.#of(owner)
    if (found.length === 0 || found.some(({ name, text }) => this.#textOf(name) !== text)) this.#readDirectory()
    return this.#of(owner)
  }

  #reserveAll(request: Request): Reserving {
    const addresses: PoolAddress[] = []
    const undo = () => this.#remove(addresses.flatMap(({ prefix }) => this.#index.get(formatIp(prefix.ip)) ?? []))
    try {
      for (const [at, set] of request.sets.entries()) {
        const answer = this.#reserveOne(request, set, at)
        if (answer.kind === 'reserved') addresses.push(...answer.addresses)
        else {
          undo()
          return answer
        }
      }
      return { kind: 'reserved', addresses }
    } catch (error) {
      undo()
      throw error
    }
  }

  #reserveOne({ owner, requested: bySet, elsewhere }: Request, set: RangeSet, at: number): Reserving {
    const requested = bySet[at]
    if (requested !== undefined) {
      const found = requestedFrom(set, requested)
      if (found?.kind === 'never') return { kind: 'refused', why: found.why }
      if (
        found !== undefined &&
        !this.#index.has(formatIp(requested)) &&
        !elsewhere(requested) &&
        this.#create(found.address.prefix.ip, owner, at)
      ) {
        return { kind: 'reserved', addresses: [found.address] }
      }
      const holder = this.#index.get(formatIp(requested))
      return {
        kind: 'refused',
        why: `requested IP address ${formatIp(requested)} is not available in range set ${describe(set)}${holder ? `: ${heldBy(holder)}` : elsewhere(requested) ? ': a container of another network has it' : ''}`
      }
    }
    for (;;) {
      const next = nextFree(set, this.#last(at), (ip) => this.#index.has(formatIp(ip)) || elsewhere(ip))
      if (next === undefined) {
        return { kind: 'exhausted', set }
      }
      if (this.#create(next.prefix.ip, owner, at)) return { kind: 'reserved', addresses: [next] }
      this.#readDirectory()
    }
  }

  #last(at: number): Ip | undefined {
    if (!this.#lasts.has(at)) this.#lasts.set(at, parseIp(this.#textOf(`last_reserved_ip.${at}`) ?? ''))
    return this.#lasts.get(at)
  }

  /**
   * `false`: the file already exists. link(2) makes name and content appear together, so that a crash leaves no file
   * without an owner.
   */
  #create(ip: Ip, owner: Owner, at: number): boolean {
    const name = formatIp(ip)
    const text = `${owner.containerId}\r\n${owner.ifname}`
    this.#writeUnfinished(text)
    try {
      linkSync(join(this.directory, UNFINISHED), join(this.directory, name))
    } catch (error) {
      if (codeOf(error) !== 'EEXIST') throw error
      return false
    } finally {
      this.#unlink(UNFINISHED)
    }
    const entry = { ip, name, text }
    this.#index.set(name, entry)
    try {
      rewrite(join(this.directory, `last_reserved_ip.${at}`), name)
      this.#lasts.set(at, ip)
    } catch (error) {
      this.#remove([entry])
      throw error
    }
    return true
  }

  #writeUnfinished(text: string): void {
    const path = join(this.directory, UNFINISHED)
    try {
      write(path, text)
    } catch (error) {
      if (codeOf(error) !== 'EEXIST') throw error
      // Not overwritten: after a crash it may be a second name of a reservation.
      this.#unlink(UNFINISHED)
      write(path, text)
    }
  }

  /** Goes on after each error. Errors: NotAllRemoved. */
  #remove(entries: readonly Entry[]): void {
    const errors: Error[] = []
    const removed: Entry[] = []
    for (const entry of entries) {
      try {
        this.#unlink(entry.name)
        this.#index.delete(formatIp(entry.ip))
        removed.push(entry)
      } catch (error) {
        errors.push(error instanceof Error ? error : new Error(String(error)))
      }
    }
    if (errors.length > 0) throw new NotAllRemoved(errors, removed.map(reservationOf))
  }

  #unlink(name: string): void {
    try {
      unlinkSync(join(this.directory, name))
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') throw error
    }
  }

  /** No container survives a reboot, so no reservation should. */
  #emptyAfterReboot(): void {
    this.#readDirectory()
    const files = [...this.#index.values()].flatMap(({ name, text }) => (text === undefined ? [] : name))
    const names = new Set(this.#boot.old(dated(this.directory, files), Date.now()))
    if (names.size === 0) return
    const old = [...this.#index.values()].filter(({ name }) => names.has(name))
    this.#remove(old)
    this.#deps.boot.freed?.(old.map(({ ip }) => ip))
    this.#indexed = undefined
  }
}

function reservationOf({ ip, text }: Entry): Reservation {
  const [containerId = '', ifname] = (text ?? '').split(/\r?\n/)
  return containerId === '' ? { ip } : { ip, owner: ifname === undefined ? { containerId } : { containerId, ifname } }
}

function heldBy(entry: Entry): string {
  const { owner } = reservationOf(entry)
  return owner === undefined ? 'it is reserved without an owner' : `container ${owner.containerId} has it`
}
