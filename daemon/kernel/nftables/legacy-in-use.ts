// Which tables of iptables-legacy have rules: a trace of nftables does not show what they do with a packet.
import { readFile } from 'node:fs/promises'
import type { Family } from '../../../ipam/address.ts'
import { LegacyTables } from './legacy-table.ts'

/** The tables that exist: asking for another one would create it. */
const NAMES = { 4: '/proc/net/ip_tables_names', 6: '/proc/net/ip6_tables_names' } as const
/** Entries of a table without rules: the policies of its chains, and one at the end. */
const EMPTY: Readonly<Record<string, number>> = { filter: 4, nat: 5, mangle: 6, raw: 3, security: 4 }

/** As `filter`; empty where none has a rule. */
export async function legacyTablesWithRules(family: Family): Promise<readonly string[]> {
  using tables = new LegacyTables()
  const names = (await readFile(NAMES[family], 'utf8').catch(() => '')).split('\n').filter((name) => name !== '')
  const used: string[] = []
  for (const name of names) {
    // What can't be asked may have rules.
    const size = await tables.size(family, name).catch(() => undefined)
    if (size === undefined || size.entries > (EMPTY[name] ?? 0)) used.push(name)
  }
  return used
}
