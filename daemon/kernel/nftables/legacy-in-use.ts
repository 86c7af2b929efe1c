// Which tables of iptables-legacy have rules: a trace of nftables does not show what they do with a packet.
import type { Family } from '../../../ipam/address.ts'
import { LegacyTables, legacyTables } from './legacy-table.ts'

/** Entries of a table without rules: the policies of its chains, and one at the end. */
export const EMPTY: Readonly<Record<string, number>> = { filter: 4, nat: 5, mangle: 6, raw: 3, security: 4 }

/** As `filter`; empty where none has a rule. */
export async function legacyTablesWithRules(family: Family): Promise<readonly string[]> {
  using tables = new LegacyTables()
  const used: string[] = []
  for (const name of await legacyTables(family)) {
    // What can't be asked may have rules.
    const size = await tables.size(family, name).catch(() => undefined)
    if (size === undefined || size.entries > (EMPTY[name] ?? 0)) used.push(name)
  }
  return used
}
