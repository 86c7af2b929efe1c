// Reads and changes iptables-legacy, which nftables neither shows nor notifies, through its own programs: without a
// shell, and never for a pod.
import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { FAMILIES, type Family, formatPrefix, network } from '../../../ipam/address.ts'
import { reasonOf, WeftError } from '../../base/error.ts'
import type { Change } from '../../state/difference.ts'
import type { ForeignRule, ForeignTable, PodSide } from '../../state/foreign-chain.ts'
import { placeFor } from '../../state/foreign-course.ts'
import { type AdminCall, type ForeignAccept, keyOf } from '../../state/object.ts'
import { textOf } from '../../state/text.ts'
import { savedTables } from './iptables-save.ts'
import { COMMENT } from './parse-own-tables.ts'

/**
 * Which legacy tables exist in this network namespace. The kernel creates them at first use, even by listing, so this
 * file is read first.
 */
const namesFile: Readonly<Record<Family, string>> = { 4: '/proc/net/ip_tables_names', 6: '/proc/net/ip6_tables_names' }
const program: Readonly<Record<Family, string>> = { 4: 'iptables', 6: 'ip6tables' }
/** Tables with a chain at hook forward. */
const forwarding = new Set(['filter', 'mangle', 'security'])

/** Seconds that iptables waits for its lock; milliseconds for the whole call. */
const LOCK_SECONDS = '5'
const CALL_MS = 10_000

type Ran = {
  readonly stdout: string
  readonly stderr: string
  readonly failed: Error | undefined
  readonly missing: boolean
}

function run(file: string, args: readonly string[]): Promise<Ran> {
  return new Promise((resolve) => {
    const options = {
      timeout: CALL_MS,
      maxBuffer: 64 << 20,
      env: { LC_ALL: 'C', PATH: '/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/sbin:/usr/local/bin' }
    }
    execFile(file, args, options, (failed, stdout, stderr) => {
      resolve({ stdout, stderr, failed: failed ?? undefined, missing: failed?.code === 'ENOENT' })
    })
  })
}

const missingTool = (family: Family): WeftError =>
  new WeftError(
    'IPTABLES_MISSING',
    `another program uses legacy iptables tables (${namesFile[family]}), but neither ${program[family]}-legacy nor a legacy ${program[family]} is installed: weftd can't see whether they drop pods' packets`,
    'install the package iptables (Debian, Ubuntu) or iptables-legacy (Alpine, Fedora)'
  )

export class LegacyIptables {
  readonly #tools = new Map<Family, string>()

  /**
   * The legacy tables of both families that can drop forwarded packets; where none exists, nothing is run. Errors:
   * IPTABLES_MISSING, IPTABLES_FAILED.
   */
  async read(): Promise<readonly ForeignTable[]> {
    const each = await Promise.all(FAMILIES.map((family) => this.#read(family)))
    return each.flat()
  }

  async #read(family: Family): Promise<readonly ForeignTable[]> {
    const names = await readFile(namesFile[family], 'utf8').catch(() => '')
    if (!names.split('\n').some((name) => forwarding.has(name))) return []
    const tool = await this.#tool(family)
    const saved = await run(`${tool}-save`, [])
    if (saved.failed) throw this.#failed(`${tool}-save`, saved)
    return savedTables(saved.stdout, family).filter(({ table }) => forwarding.has(table))
  }

  /** `iptables-legacy`, or `iptables` where that is the legacy one. */
  async #tool(family: Family): Promise<string> {
    const known = this.#tools.get(family)
    if (known) return known
    for (const name of [`${program[family]}-legacy`, program[family]]) {
      const { stdout, failed } = await run(name, ['--version'])
      // Before 1.8 there was only this variant, and --version did not name it.
      if (failed === undefined && !stdout.includes('nf_tables')) {
        this.#tools.set(family, name)
        return name
      }
    }
    throw missingTool(family)
  }

  /** Adds or removes one accept, or the call of an administrator's chain. Errors: IPTABLES_MISSING, IPTABLES_FAILED. */
  async apply(change: Change & { readonly object: ForeignAccept | AdminCall }, side: PodSide): Promise<void> {
    const { object } = change
    const family = object.family === 'ip6' ? 6 : 4
    const tables = await this.#read(family)
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
    const gone = chain.rules.slice(0, at).filter(isOld).length
    const place = at >= chain.rules.length ? ['-A', object.chain] : ['-I', object.chain, String(at + 1 - gone)]
    await this.#call(family, object, place)
  }

  #call(family: Family, object: ForeignAccept | AdminCall, verb: readonly string[]): Promise<void> {
    const comment = ['-m', 'comment', '--comment', COMMENT]
    if (object.kind === 'admin-call') return this.#run(family, object, [...verb, ...comment, '-j', object.target])
    const prefix = formatPrefix(network(object.prefix))
    const source = object.match === 'destination' ? [] : ['-s', prefix]
    const destination = object.match === 'source' ? [] : ['-d', prefix]
    return this.#run(family, object, [...verb, ...source, ...destination, ...comment, '-j', 'ACCEPT'])
  }

  async #run(family: Family, { table }: { readonly table: string }, words: readonly string[]): Promise<void> {
    const tool = await this.#tool(family)
    const args = ['-w', LOCK_SECONDS, '-t', table, ...words]
    const ran = await run(tool, args)
    if (ran.failed) throw this.#failed([tool, ...args].join(' '), ran)
  }

  #failed(command: string, ran: Ran): WeftError {
    const output = ran.stderr.trim() || reasonOf(ran.failed)
    return new WeftError(
      'IPTABLES_FAILED',
      `${command} failed: ${output}`,
      'run the quoted command as root; if its error names a kernel module, load that',
      {
        cause: ran.failed
      }
    )
  }
}

const isOurs =
  (object: ForeignAccept | AdminCall) =>
  ({ ours, oursTo }: ForeignRule): boolean =>
    object.kind === 'admin-call'
      ? oursTo === object.target
      : ours !== undefined && keyOf({ ...object, ...ours }) === keyOf(object)
