// Reads other programs' chains at hook forward and the chains that these call, by netlink and piece by piece: a chain
// is read again only after a notification that it changed, the elements of named sets never.
import { reasonOf, WeftError } from '../../base/error.ts'
import { SerialQueue } from '../../base/serial-queue.ts'
import { type ForeignRule, type ForeignTable, isPolicyTable } from '../../state/foreign-chain.ts'
import { NFT_TABLE } from '../../state/ownership.ts'
import { KernelError } from '../netlink/error.ts'
import { Attributes, type Message } from '../netlink/message.ts'
import { NETLINK_NETFILTER, NFGENMSG, NFNL_SUBSYS, netfilterRequest, nftFamilyOf } from '../netlink/nfnetlink.ts'
import { RequestSocket } from '../netlink/request-socket.ts'
import { type Asked, type ChainContent, ChainReader, type Place } from './chain-reader.ts'
import type { Touched } from './notification.ts'
import { type Pace, paceAfter, rested } from './pace.ts'
import { foreignTable } from './parse-foreign-tables.ts'
import { mostKept } from './rule-list.ts'
import { HOOK_FORWARD, NF_DROP, NFT_MSG, NFTA_CHAIN, NFTA_HOOK, NFTA_TABLE_NAME } from './uapi.ts'

/** Chains that are read; what a call of any other one does is unknown. */
const MOST_CHAINS = 2_000

/** A base chain at hook forward, as libnftables-json(5) has it; or a chain of the administrator, without a hook. */
type Base = Place & {
  readonly type?: string
  readonly hook?: 'forward'
  readonly prio?: number
  readonly policy?: 'accept' | 'drop'
}

/** Rules that Weft deleted, by handle, and one that it added before another, or as the last. */
type OwnEdit = {
  readonly deleted: readonly number[]
  readonly before: number | undefined
  readonly rule: ForeignRule | undefined
}

type ReadChain = ChainContent & { readonly pace: Pace }

export class ForeignReader implements Disposable {
  readonly #socket = new RequestSocket(new SerialQueue(), NETLINK_NETFILTER)
  readonly #reader = new ChainReader()
  readonly #queue = new SerialQueue()
  #bases: readonly Base[] = []
  #adminChains: readonly string[] = []
  #basesStale = true
  #chainDumps = 0
  #version = 0
  #basesPace: Pace = rested
  /** By chain, as `ip filter FORWARD`. */
  #chains = new Map<string, ReadChain>()
  /** How many calls of each chain were read. */
  #calls: ReadonlyMap<string, number> = new Map()
  readonly #stale = new Set<string>()

  /** Marks what a transaction changed; returns whether a chain that matters is among it. */
  touch({ chains, added, removed, hooked }: Pick<Touched, 'chains' | 'added' | 'removed' | 'hooked'>): boolean {
    const changed = [...chains].filter((chain) => this.#chains.has(chain))
    for (const chain of changed) this.#stale.add(chain)
    const bases =
      hooked ||
      this.#bases.some(({ family, table, name }) => removed.has(`${family} ${table} ${name}`)) ||
      [...added].some((chain) => this.#adminChains.includes(chain.slice(chain.lastIndexOf(' ') + 1)))
    if (bases) this.#basesStale = true
    return bases || changed.length > 0
  }

  /**
   * Takes over what Weft itself did to a chain, whose other rules need not be read again for that; `undefined`: what it
   * did is not known.
   */
  edit(key: string, edit: OwnEdit | undefined): void {
    const chain = this.#chains.get(key)
    if (chain === undefined) return
    this.#version++
    // What is being read may or may not have it yet.
    if (edit === undefined || !this.#queue.idle) {
      this.#stale.add(key)
      return
    }
    const { deleted, before, rule } = edit
    const rules = chain.rules.filter(({ handle }) => handle === undefined || !deleted.includes(handle))
    const at = before === undefined ? rules.length : rules.findIndex(({ handle }) => handle === before)
    if (rule !== undefined) rules.splice(at < 0 ? rules.length : at, 0, rule)
    this.#chains.set(key, { ...chain, rules })
  }

  /** From now on chains of these names are read, too, whether or not something calls them. */
  alsoRead(adminChains: readonly string[]): void {
    if (adminChains.join() === this.#adminChains.join()) return
    this.#adminChains = adminChains
    this.#basesStale = true
  }

  /** Marks the list of chains: a table that belongs to one process goes with it without a notification. */
  touchBases(): void {
    this.#basesStale = true
  }

  /** Marks everything: notifications were lost. */
  touchAll(): void {
    this.#basesStale = true
    for (const chain of this.#chains.keys()) this.#stale.add(chain)
  }

  /** Milliseconds until something that is marked may be read again; `undefined`: nothing is marked. */
  due(now = performance.now()): number | undefined {
    const times = [...this.#stale].map((chain) => this.#chains.get(chain)?.pace.next ?? 0)
    if (this.#basesStale) times.push(this.#basesPace.next)
    return times.length === 0 ? undefined : Math.max(0, Math.min(...times) - now)
  }

  /**
   * Other programs' tables, of which only what is marked is read: all of it, or what is due. Errors: KERNEL_REFUSED.
   */
  read(what: 'all' | 'due' = 'all'): Promise<readonly ForeignTable[]> {
    const dueOnly = what === 'due'
    return this.#queue.take(async () => {
      try {
        await this.#readBases(dueOnly)
        await this.#readChains(dueOnly)
      } catch (error) {
        throw error instanceof KernelError ? unreadable(error) : error
      }
      return this.#tables()
    })
  }

  /** Grows with everything that is read. */
  get version(): number {
    return this.#version
  }

  /** What the kernel was asked for so far. */
  get asked(): Asked & { readonly chainDumps: number } {
    return { ...this.#reader.asked, chainDumps: this.#chainDumps }
  }

  /** Chains that were not read rule by rule. */
  get partly(): readonly string[] {
    return [...this.#chains].filter(([, { isPartial }]) => isPartial).map(([name]) => name)
  }

  async #readBases(dueOnly: boolean): Promise<void> {
    if (!this.#basesStale || (dueOnly && performance.now() < this.#basesPace.next)) return
    this.#basesStale = false
    const start = performance.now()
    const bases: Base[] = []
    this.#chainDumps++
    try {
      const request = netfilterRequest(NFNL_SUBSYS.nftables, NFT_MSG.getChain, 0).done()
      await this.#socket.pieces(request, 'the chains of nf_tables', (messages) => {
        bases.push(...messages.flatMap((message) => baseOf(message, this.#adminChains)))
        return true
      })
    } catch (error) {
      this.#basesStale = true
      throw error
    }
    this.#version++
    this.#bases = bases
    this.#basesPace = paceAfter(start, this.#basesPace)
  }

  /** Reads along the calls from the base chains; forgets chains that nothing calls any more. */
  async #readChains(dueOnly: boolean): Promise<void> {
    const reached = new Map<string, ReadChain>()
    const left = this.#bases.map(({ family, table, name }) => ({ family, table, name }))
    const calls = new Map<string, number>()
    let kept = 0
    for (let place = left.shift(); place !== undefined; place = left.shift()) {
      const { family, table, name } = place
      const key = `${family} ${table} ${name}`
      if (reached.has(key)) continue
      const known = this.#chains.get(key)
      const isCurrent = known && (!this.#stale.has(key) || (dueOnly && performance.now() < known.pace.next))
      // Changes are marked from here on, also of a chain that is read for the first time.
      this.#chains.set(key, known ?? unread)
      const readNow = () => this.#readChain({ family, table, name }, kept, known?.pace ?? rested)
      const chain = isCurrent ? known : reached.size >= MOST_CHAINS ? unread : await readNow()
      kept += chain.rules.length
      for (const name of chain.calls) {
        const called = `${family} ${table} ${name}`
        calls.set(called, (calls.get(called) ?? 0) + 1)
      }
      reached.set(key, chain)
      left.push(...chain.calls.map((called) => ({ family, table, name: called })))
    }
    for (const key of this.#chains.keys()) if (!reached.has(key)) this.#stale.delete(key)
    this.#chains = reached
    this.#calls = calls
  }

  async #readChain(place: Place, kept: number, pace: Pace): Promise<ReadChain> {
    const key = `${place.family} ${place.table} ${place.name}`
    // What is changed from here on is marked again.
    this.#stale.delete(key)
    const start = performance.now()
    try {
      const read = await this.#reader.read(place, mostKept({ kept }))
      this.#version++
      return { ...read, pace: paceAfter(start, pace) }
    } catch (error) {
      this.#stale.add(key)
      throw error
    }
  }

  #tables(): readonly ForeignTable[] {
    const places = new Map(this.#bases.map(({ family, table }) => [`${family} ${table}`, { family, table }]))
    return [...places.values()].map((place) => this.#table(place))
  }

  #table({ family, table }: Pick<Place, 'family' | 'table'>): ForeignTable {
    const start = `${family} ${table} `
    const read = [...this.#chains]
      .filter(([key]) => key.startsWith(start))
      .map(([key, chain]) => [key.slice(start.length), chain] as const)
    const baseOf = (name: string): Base | undefined =>
      this.#bases.find((base) => base.family === family && base.table === table && base.name === name)
    const entries = read.map(([name]) => ({ chain: baseOf(name) ?? { family, table, name } }))
    const empty = foreignTable(family, table, entries, new Map())
    const filled = read.flatMap(([name, { rules, uses }]) => {
      const chain = empty.chains.get(name)
      const isCalledElsewhere = uses > (this.#calls.get(start + name) ?? 0)
      return chain ? [[name, { ...chain, rules, ...(isCalledElsewhere && { isCalledElsewhere }) }] as const] : []
    })
    return { ...empty, chains: new Map(filled) }
  }

  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]()
    this.#reader[Symbol.dispose]()
  }
}

/** A chain beyond the bound: it may drop some packets of pods. */
const unread: ReadChain = {
  rules: [
    {
      branches: [{ conditions: [{ kind: 'deliberate' }], verdict: { kind: 'drop' } }],
      text: 'a chain that is not read'
    }
  ],
  calls: [],
  uses: 0,
  isPartial: true,
  pace: rested
}

/** The chain in an NFT_MSG_NEWCHAIN, if it is another program's at hook forward, or one of the administrator's. */
function baseOf(message: Message, adminChains: readonly string[]): readonly Base[] {
  const family = nftFamilyOf(message)
  if ((message.type & 255) !== NFT_MSG.newChain || family === undefined || family === 'bridge') return []
  const attributes = new Attributes(message.body, NFGENMSG)
  const hook = attributes.nested(NFTA_CHAIN.hook)
  const [table, name] = [attributes.text(NFTA_TABLE_NAME), attributes.text(NFTA_CHAIN.name)]
  if (table === undefined || name === undefined) return []
  if ((family === 'inet' && table === NFT_TABLE) || isPolicyTable({ table })) return []
  if (hook?.u32BigEndian(NFTA_HOOK.number) !== HOOK_FORWARD)
    return adminChains.includes(name) ? [{ family, table, name }] : []
  return [
    {
      family,
      table,
      name,
      type: attributes.text(NFTA_CHAIN.type) ?? 'filter',
      hook: 'forward',
      prio: (hook.u32BigEndian(NFTA_HOOK.priority) ?? 0) | 0,
      policy: attributes.u32BigEndian(NFTA_CHAIN.policy) === NF_DROP ? 'drop' : 'accept'
    }
  ]
}

const unreadable = (error: KernelError): WeftError =>
  new WeftError(
    'KERNEL_REFUSED',
    `nf_tables can't be read: ${reasonOf(error)}`,
    error.errnoName === 'EPERM' ? 'run weftd as root or with CAP_NET_ADMIN' : 'load the kernel module nf_tables',
    { cause: error }
  )
