// Reads and changes iptables-legacy, which nftables neither shows nor notifies, through its own programs: without a
// shell, never for a pod, and only when the kernel says that a table changed.
import { FAMILIES, type Family, formatPrefix, network } from '../../../ipam/address.ts'
import { WeftError } from '../../base/error.ts'
import type { Change } from '../../state/difference.ts'
import { type ForeignRule, type ForeignTable, isRuleOf, type PodSide } from '../../state/foreign-chain.ts'
import { placeFor } from '../../state/foreign-course.ts'
import type { AdminCall, ForeignAccept } from '../../state/object.ts'
import { textOf } from '../../state/text.ts'
import { IptablesPrograms, iptablesFailed, iptablesMissing, LOCK_SECONDS, readLines, run } from './iptables-program.ts'
import { savedTable } from './legacy-lines.ts'
import { LEGACY_NAMES, type LegacySize, LegacyTables, legacyTables } from './legacy-table.ts'
import { COMMENT } from './parse-own-tables.ts'

const program: Readonly<Record<Family, string>> = { 4: 'iptables', 6: 'ip6tables' }
/** Tables with a chain at hook forward. */
const forwarding = new Set(['filter', 'mangle', 'security'])

/** Octets of a table whose rules are compared at every look; larger ones take at most one part in SHARE of the time. */
const SMALL = 256 << 10
const SHARE = 100

/** A table as it was read: its size and digest from before, so that a change meanwhile is seen at the next look. */
type Known = {
  readonly size: LegacySize | undefined
  readonly digest: string | undefined
  /** Milliseconds of performance.now() from which a large table's rules are compared again. */
  readonly next: number
  readonly table: ForeignTable | undefined
  readonly partly: readonly string[]
}

export class LegacyIptables implements Disposable {
  readonly #programs = new IptablesPrograms()
  readonly #kernel = new LegacyTables()
  /** By family and table. */
  readonly #known = new Map<string, Known>()
  #version = 0

  /** Grows whenever a table was read anew. */
  get version(): number {
    return this.#version
  }

  /** Chains that were not read rule by rule. */
  get partly(): readonly string[] {
    return [...this.#known.values()].flatMap(({ partly }) => partly)
  }

  /**
   * The legacy tables of both families that can drop forwarded packets; where none exists, nothing is run. Errors:
   * IPTABLES_MISSING, IPTABLES_FAILED.
   */
  async read(): Promise<readonly ForeignTable[]> {
    const each = await Promise.all(FAMILIES.map((family) => this.#read(family, false)))
    return each.flat()
  }

  async #read(family: Family, isExact: boolean): Promise<readonly ForeignTable[]> {
    const exist = (await legacyTables(family)).filter((name) => forwarding.has(name))
    for (const table of forwarding) if (!exist.includes(table)) this.#forget(family, table)
    const tables: ForeignTable[] = []
    for (const name of exist) {
      const table = await this.#table(family, name, isExact)
      if (table !== undefined) tables.push(table)
    }
    return tables
  }

  #forget(family: Family, table: string): void {
    if (this.#known.delete(`${family} ${table}`)) this.#version++
  }

  async #table(family: Family, table: string, isExact: boolean): Promise<ForeignTable | undefined> {
    const key = `${family} ${table}`
    const known = this.#known.get(key)
    // What can't be asked is read every time.
    const size = await this.#kernel.size(family, table).catch(() => undefined)
    const sameSize = size !== undefined && known?.size?.entries === size.entries && known.size.octets === size.octets
    const start = performance.now()
    if (known !== undefined && sameSize && !isExact && size.octets > SMALL && start < known.next) return known.table
    const digest = size && (await this.#kernel.digest(family, table, size).catch(() => undefined))
    const end = performance.now()
    const now = { size, digest, next: end + (end - start) * SHARE }
    if (known !== undefined && sameSize && digest !== undefined && digest === known.digest) {
      this.#known.set(key, { ...known, ...now })
      return known.table
    }
    const saved = await this.#saved(family, table)
    const partly = saved?.partly.map((chain) => `${program[family]}-legacy ${table} ${chain}`) ?? []
    this.#known.set(key, { ...now, table: saved?.table, partly })
    this.#version++
    return saved?.table
  }

  async #saved(family: Family, table: string): ReturnType<typeof savedTable> {
    return readLines(`${await this.#tool(family)}-save`, ['-t', table], (lines) => savedTable(lines, family))
  }

  async #tool(family: Family): Promise<string> {
    const tool = await this.#programs.find('iptables-legacy', family)
    if (tool !== undefined) return tool
    const why = `another program uses legacy iptables tables (${LEGACY_NAMES[family]}), and weftd can't see whether they drop pods' packets`
    throw iptablesMissing('iptables-legacy', family, why)
  }

  /** Adds or removes one accept, or the call of an administrator's chain. Errors: IPTABLES_MISSING, IPTABLES_FAILED. */
  async apply(change: Change & { readonly object: ForeignAccept | AdminCall }, side: PodSide): Promise<void> {
    const { object } = change
    const family = object.family === 'ip6' ? 6 : 4
    const tables = await this.#read(family, true)
    const table = tables.find((one) => one.table === object.table)
    const chain = table?.chains.get(object.chain)
    if (!table || !chain) {
      if (change.do === 'remove') return
      throw new WeftError(
        'IPTABLES_FAILED',
        `can't set up ${textOf(object)}: its chain no longer exists`,
        'no action needed: weftd reads the chains again'
      )
    }
    const isOld = isOurs(object)
    for (const _ of chain.rules.filter(isOld)) await this.#call(family, object, ['-D', object.chain])
    if (change.do === 'remove') return
    if (object.kind === 'admin-call') {
      if (!table.chains.has(object.target)) await this.#run(family, object, ['-N', object.target])
      await this.#call(family, object, ['-I', object.chain, '1'])
      return
    }
    const at = placeFor(table, object, side)
    if (at === undefined) return
    const before = chain.rules.slice(0, at)
    const number = 1 + before.reduce((sum, rule) => sum + (isOld(rule) ? 0 : (rule.count ?? 1)), 0)
    const place = at >= chain.rules.length ? ['-A', object.chain] : ['-I', object.chain, String(number)]
    await this.#call(family, object, place)
  }

  #call(family: Family, object: ForeignAccept | AdminCall, verb: readonly string[]): Promise<void> {
    const comment = ['-m', 'comment', '--comment', COMMENT]
    if (object.kind === 'admin-call') return this.#run(family, object, [...verb, ...comment, '-j', object.target])
    const prefix = formatPrefix(network(object.prefix))
    const source = object.match === 'destination' ? [] : ['-s', prefix]
    const destination = object.match === 'source' ? [] : ['-d', prefix]
    const target = object.verdict === 'return' ? 'RETURN' : 'ACCEPT'
    return this.#run(family, object, [...verb, ...source, ...destination, ...comment, '-j', target])
  }

  async #run(family: Family, { table }: { readonly table: string }, words: readonly string[]): Promise<void> {
    const tool = await this.#tool(family)
    const args = ['-w', LOCK_SECONDS, '-t', table, ...words]
    const ran = await run(tool, args)
    if (ran.failed) throw iptablesFailed([tool, ...args].join(' '), ran)
  }

  [Symbol.dispose](): void {
    this.#kernel[Symbol.dispose]()
  }
}

const isOurs =
  (object: ForeignAccept | AdminCall) =>
  ({ ours, oursTo }: ForeignRule): boolean =>
    object.kind === 'admin-call' ? oursTo === object.target : ours !== undefined && isRuleOf(ours, object)
