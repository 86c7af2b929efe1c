// Removes chains and tables of another program that a daemon of its kind left behind, with the rules that jump there:
// from nftables, iptables on nftables, and iptables-legacy.
import { entriesOf, isRecord, type NftJson } from './parse-own-tables.ts'
import type { RunNft } from './session.ts'

/** `ip nat FLANNEL-POSTRTG`, or a whole table, `ip flannel-ipv4`. */
export type Named = { readonly family: string; readonly table: string; readonly chain?: string }

export type Wanted = {
  readonly isTable: (name: string) => boolean
  readonly isChain: (name: string) => boolean
}

export const textOfNamed = ({ family, table, chain }: Named): string => [family, table, chain].filter(Boolean).join(' ')

/** What exists of it. Errors: an Error with the kernel's complaint. */
export async function otherChains(run: RunNft, { isTable, isChain }: Wanted): Promise<readonly Named[]> {
  const chains = entriesOf(await outputOf(run, 'list chains')).flatMap((entry) => chainOf(entry))
  const tables = entriesOf(await outputOf(run, 'list tables')).flatMap(({ table }) =>
    isRecord(table) && isTable(String(table.name)) ? [{ family: String(table.family), table: String(table.name) }] : []
  )
  return [...tables, ...chains.filter(({ table, chain }) => !isTable(table) && isChain(chain))]
}

const chainOf = ({ chain }: NftJson) =>
  isRecord(chain) ? [{ family: String(chain.family), table: String(chain.table), chain: String(chain.name) }] : []

/** Removes them in one transaction. Errors: an Error with the kernel's complaint; nothing is removed then. */
export async function removeOtherChains(run: RunNft, found: readonly Named[]): Promise<void> {
  const commands: string[] = []
  const flushes: string[] = []
  const deletions: string[] = []
  for (const { family, table, chain } of found) {
    if (chain === undefined) {
      deletions.push(`delete table ${family} ${table}`)
      continue
    }
    flushes.push(`flush chain ${family} ${table} ${chain}`)
    deletions.push(`delete chain ${family} ${table} ${chain}`)
  }
  const names = new Set(found.map(textOfNamed))
  for (const place of new Set(found.filter(({ chain }) => chain).map(({ family, table }) => `${family} ${table}`))) {
    for (const { rule } of entriesOf(await outputOf(run, `list table ${place}`))) {
      if (!isRecord(rule) || names.has(`${place} ${rule.chain}`)) continue
      if (jumpsOf(rule).some((target) => names.has(`${place} ${target}`)))
        commands.push(`delete rule ${place} ${rule.chain} handle ${rule.handle}`)
    }
  }
  const all = [...commands, ...flushes, ...deletions]
  if (all.length > 0) await outputOf(run, all.join('; '))
}

function jumpsOf({ expr }: NftJson): readonly string[] {
  if (!Array.isArray(expr)) return []
  return expr
    .filter(isRecord)
    .flatMap(({ jump, goto }) => [jump, goto].flatMap((verdict) => (isRecord(verdict) ? [String(verdict.target)] : [])))
}

async function outputOf(run: RunNft, commands: string): Promise<string> {
  const result = await run(commands)
  if (result.done) return result.output
  throw new Error(result.complaints.map(({ words }) => words).join('; '))
}

/**
 * The input of `iptables-restore --noflush` that removes the chains from what `iptables-save` printed; empty where
 * there are none.
 */
export function legacyRemoval(saved: string, isChain: (name: string) => boolean): string {
  const parts = saved.split(/^(?=\*)/m).flatMap((part) => {
    const lines = part.split('\n')
    const chains = lines.flatMap((line) => (/^:(\S+) /.exec(line)?.[1] ?? '') || []).filter(isChain)
    if (chains.length === 0) return []
    const jumps = lines.flatMap((line) => {
      const [, chain = '', rest = ''] = /^-A (\S+) (.*)$/.exec(line) ?? []
      const target = / -[jg] (\S+)/.exec(` ${rest}`)?.[1] ?? ''
      return chains.includes(target) && !chains.includes(chain) ? [`-D ${chain} ${rest}`] : []
    })
    const table = lines[0] ?? ''
    return [
      [table, ...jumps, ...chains.map((name) => `-F ${name}`), ...chains.map((name) => `-X ${name}`), 'COMMIT', '']
    ]
  })
  return parts.flat().join('\n')
}
