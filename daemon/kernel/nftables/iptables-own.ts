// Reads and writes Weft's chains in iptables, of either kind: whole, by one call of iptables-restore, and only when
// something says that they changed. Nothing is run on hosts that have no such chain.
import { FAMILIES, type Family } from '../../../ipam/address.ts'
import { toError } from '../../base/error.ts'
import { SerialQueue } from '../../base/serial-queue.ts'
import type { Change } from '../../state/difference.ts'
import type { IptablesChain, IptablesTool } from '../../state/object.ts'
import { IPTABLES_CHAINS } from '../../state/ownership.ts'
import { KernelError } from '../netlink/error.ts'
import { NETLINK_NETFILTER, NFNL_SUBSYS, NFPROTO, netfilterRequest } from '../netlink/nfnetlink.ts'
import { RequestSocket } from '../netlink/request-socket.ts'
import { linesOfOurs, observedChain, restoreText, type SavedOwn, withoutRandomFully } from './iptables-own-text.ts'
import { feed, IptablesPrograms, iptablesMissing, LOCK_SECONDS, readLines } from './iptables-program.ts'
import { chainsIn, digestOf, type LegacySize, LegacyTables, legacyTables } from './legacy-table.ts'
import type { Touched } from './notification.ts'
import { type Pace, paceAfter, rested } from './pace.ts'
import { NFT_MSG, NFTA_CHAIN, NFTA_TABLE_NAME } from './uapi.ts'

const TOOLS = ['iptables-nft', 'iptables-legacy'] as const
const TABLES = ['nat', 'filter'] as const
type Table = (typeof TABLES)[number]

/** Octets of a legacy table whose rules are compared at every look; larger ones take one part in SHARE of the time. */
const SMALL = 256 << 10
const SHARE = 100

type Place = { readonly tool: IptablesTool; readonly family: Family; readonly table: Table }
type OwnChange = Change & { readonly object: IptablesChain }

/** What was read of one table. */
type Known = {
  readonly chain: IptablesChain | undefined
  readonly pace: Pace
  readonly legacy?: { readonly size: LegacySize; readonly digest: string }
}

const PLACES: readonly Place[] = TOOLS.flatMap((tool) =>
  FAMILIES.flatMap((family) => TABLES.map((table) => ({ tool, family, table })))
)
const keyOf = ({ tool, family, table }: Place): string => `${tool} ${nameOf(family)} ${table}`
const nameOf = (family: Family): 'ip' | 'ip6' => (family === 4 ? 'ip' : 'ip6')

export class OwnIptables implements Disposable {
  readonly #programs = new IptablesPrograms()
  readonly #socket = new RequestSocket(new SerialQueue(), NETLINK_NETFILTER)
  readonly #kernel = new LegacyTables()
  readonly #queue = new SerialQueue()
  readonly #known = new Map<string, Known>()
  /** The places in nftables that are to be read. */
  readonly #stale = new Set<string>(PLACES.map(keyOf))

  /** Marks what a transaction of another process changed; returns whether it may be about Weft's chains. */
  touch({ tables, chains, added, removed, hooked }: Omit<Touched, 'by'>): boolean {
    let isOurs = false
    for (const place of PLACES) {
      const where = `${nameOf(place.family)} ${place.table}`
      if (place.tool !== 'iptables-nft' || !tables.has(where)) continue
      const names = Object.values(IPTABLES_CHAINS[place.table]).map((chain) => `${where} ${chain}`)
      if (!hooked && !names.some((name) => chains.has(name) || added.has(name) || removed.has(name))) continue
      this.#stale.add(keyOf(place))
      isOurs = true
    }
    return isOurs
  }

  /** Marks everything: notifications were lost. */
  touchAll(): void {
    for (const place of PLACES) this.#stale.add(keyOf(place))
  }

  /** Milliseconds until what is marked may be read; `undefined`: nothing is. */
  due(now = performance.now()): number | undefined {
    const times = PLACES.filter((place) => place.tool === 'iptables-nft' && this.#stale.has(keyOf(place))).map(
      (place) => this.#known.get(keyOf(place))?.pace.next ?? 0
    )
    return times.length === 0 ? undefined : Math.max(0, Math.min(...times) - now)
  }

  /** Weft's chains in both kinds of iptables. Errors: IPTABLES_MISSING, IPTABLES_FAILED, KernelError. */
  read(what: 'all' | 'due' = 'all'): Promise<readonly IptablesChain[]> {
    return this.#queue.take(async () => {
      const read = (place: Place) =>
        place.tool === 'iptables-nft' ? this.#nft(place, what === 'due') : this.#legacy(place)
      const found = await Promise.all(PLACES.map(read))
      return found.filter((chain) => chain !== undefined)
    })
  }

  async #nft(place: Place, dueOnly: boolean): Promise<IptablesChain | undefined> {
    const key = keyOf(place)
    const known = this.#known.get(key)
    const start = performance.now()
    if (!this.#stale.has(key) || (dueOnly && start < (known?.pace.next ?? 0))) return known?.chain
    // What changes from here on is marked again.
    this.#stale.delete(key)
    try {
      const chain = (await this.#hasChain(place)) ? await this.#saved(place) : undefined
      this.#known.set(key, { chain, pace: paceAfter(start, known?.pace ?? rested) })
      return chain
    } catch (error) {
      this.#stale.add(key)
      throw error
    }
  }

  async #hasChain({ family, table }: Place): Promise<boolean> {
    const { chain } = IPTABLES_CHAINS[table]
    const request = netfilterRequest(NFNL_SUBSYS.nftables, NFT_MSG.getChain, NFPROTO[nameOf(family)])
      .text(NFTA_TABLE_NAME, table)
      .text(NFTA_CHAIN.name, chain)
      .done()
    try {
      await this.#socket.ask(request, `chain ${nameOf(family)} ${table} ${chain}`)
      return true
    } catch (error) {
      if (error instanceof KernelError && error.errnoName === 'ENOENT') return false
      throw error
    }
  }

  async #legacy(place: Place): Promise<IptablesChain | undefined> {
    const { family, table } = place
    const key = keyOf(place)
    const known = this.#known.get(key)
    if (!(await legacyTables(family)).includes(table)) {
      this.#known.delete(key)
      return undefined
    }
    const start = performance.now()
    const size = await this.#kernel.size(family, table)
    const before = known?.legacy
    const isSameSize = before?.size.entries === size.entries && before.size.octets === size.octets
    if (known !== undefined && isSameSize && size.octets > SMALL && start < known.pace.next) return known.chain
    const entries = await this.#kernel.entries(family, table, size)
    const digest = entries && digestOf(entries)
    const isKnown = known !== undefined && isSameSize && digest !== undefined && digest === before?.digest
    // Where the table changed just now nothing is known of it; it is read at the next look.
    const isThere = entries === undefined || chainsIn(entries, family).includes(IPTABLES_CHAINS[table].chain)
    const chain = isKnown ? known.chain : isThere ? await this.#saved(place) : undefined
    const took = performance.now() - start
    const pace = { pause: took, next: start + took * (1 + SHARE) }
    this.#known.set(key, { chain, pace, ...(digest !== undefined && { legacy: { size, digest } }) })
    return chain
  }

  async #saved(place: Place): Promise<IptablesChain | undefined> {
    const { tool, family, table } = place
    return observedChain({ tool, family: nameOf(family), table }, await this.#lines(place))
  }

  async #lines(place: Place): Promise<SavedOwn> {
    const file = `${await this.#program(place)}-save`
    return readLines(file, ['-t', place.table], (lines) => linesOfOurs(lines, IPTABLES_CHAINS[place.table]))
  }

  async #program({ tool, family }: Pick<Place, 'tool' | 'family'>): Promise<string> {
    const found = await this.#programs.find(tool, family)
    if (found !== undefined) return found
    const chains = Object.values(IPTABLES_CHAINS).map(({ chain }) => chain)
    throw iptablesMissing(tool, family, `weftd can't read or change its chains ${chains.join(' and ')} there`)
  }

  /** Whether the programs of one kind are installed. */
  async isInstalled(tool: IptablesTool): Promise<boolean> {
    return (await this.#programs.find(tool, 4)) !== undefined
  }

  /** Applies changes: one call of iptables-restore for each kind and family. Errors by change; never rejects. */
  apply(changes: readonly OwnChange[]): Promise<ReadonlyMap<Change, Error>> {
    return this.#queue.take(async () => {
      const failures = new Map<Change, Error>()
      const groups = Map.groupBy(changes, ({ object }) => `${object.tool} ${object.family}`)
      // One after the other: two transactions of nf_tables at a time make one of them begin anew.
      for (const group of groups.values()) {
        try {
          await this.#restore(group)
        } catch (error) {
          for (const change of group) failures.set(change, toError(error))
        }
      }
      return failures
    })
  }

  async #restore(changes: readonly OwnChange[]): Promise<void> {
    const [first] = changes
    if (first === undefined) return
    const { tool } = first.object
    const family = first.object.family === 'ip6' ? 6 : 4
    const attempt = async (edit: (text: string) => string): Promise<void> => {
      const tables = tool === 'iptables-nft' ? TABLES : await legacyTables(family)
      const part = async (change: OwnChange): Promise<string> => {
        const place = { tool, family, table: change.object.table as Table } as const
        // Listing a legacy table would create it.
        const exists = tables.includes(place.table)
        return restoreText(change, exists ? await this.#lines(place) : { exists: false, rules: [], calls: [] })
      }
      const text = edit((await Promise.all(changes.map(part))).join(''))
      if (text === '') return
      await feed(`${await this.#program({ tool, family })}-restore`, ['--noflush', '-w', LOCK_SECONDS], text)
    }
    const whole = (text: string) => text
    try {
      await attempt(whole)
    } catch (error) {
      // Another program changed the table between the look and the call; or the option is unknown (before 1.6.2).
      await attempt(/random-fully/.test(String(error)) ? withoutRandomFully : whole)
    } finally {
      for (const table of TABLES) this.#stale.add(keyOf({ tool, family, table }))
    }
  }

  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]()
    this.#kernel[Symbol.dispose]()
  }
}
