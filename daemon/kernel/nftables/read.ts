// What stands in nf_tables: our tables in full, others' tables as far as they meet forwarded packets, and our accepts inside those.
import { WeftError } from '../../base/error.ts'
import { type ForeignTable, fateIn, isPolicyTable } from '../../state/foreign-chain.ts'
import { type ForeignAccept, type KernelObject, type Key, keyOf, type NftFamily } from '../../state/object.ts'
import { NFT_TABLE } from '../../state/ownership.ts'
import { foreignTable, textsOf } from './foreign-tables.ts'
import { entriesOf, isRecord, type NftJson, tableObjects } from './own-tables.ts'
import type { RunNft } from './session.ts'

/** Everything in the tables that `interest` accepts a chain of. Errors: KERNEL_REFUSED. */
export async function readOwn(
  run: RunNft,
  interest: (object: KernelObject) => boolean
): Promise<readonly KernelObject[]> {
  const tables = (await listed(run, 'list tables')).map((entry) => entry.table).filter(isRecord)
  const objects: KernelObject[] = []
  for (const table of tables) {
    const [family, name] = [table.family as NftFamily, String(table.name)]
    if (!interest({ kind: 'nft-chain', family, table: name, chain: '', digests: [] })) continue
    const result = await run(`list table ${family} ${name}`)
    // Otherwise it went since the list was made: nothing to read.
    if (result.done) objects.push(...tableObjects(entriesOf(result.output)))
  }
  return objects
}

/** The families in which there is a table of ours. Errors: KERNEL_REFUSED. */
export async function familiesOfOwn(run: RunNft): Promise<readonly NftFamily[]> {
  const tables = (await listed(run, 'list tables')).map((entry) => entry.table).filter(isRecord)
  return tables.filter(({ name }) => name === NFT_TABLE).map(({ family }) => family as NftFamily)
}

/** Others' tables that have a chain at hook forward; `names` (as `ip filter`) has those too that are a policy engine's and so are not read. Errors: KERNEL_REFUSED. */
export async function readForeign(
  run: RunNft
): Promise<{ readonly tables: readonly ForeignTable[]; readonly names: ReadonlySet<string> }> {
  const chains = (await listed(run, 'list chains')).map((entry) => entry.chain).filter(isRecord)
  const hooked = chains.filter((chain) => chain.hook === 'forward' && /^(inet|ip|ip6)$/.test(String(chain.family)))
  const names = new Set(hooked.map((chain) => `${chain.family} ${chain.table}`))
  names.delete(`inet ${NFT_TABLE}`)
  const tables: ForeignTable[] = []
  for (const name of names) {
    const [family, table = ''] = name.split(' ')
    if (isPolicyTable({ table })) continue
    const listing = await run(`list table ${name}`)
    const texts = await run(`list table ${name}`, 'text')
    if (!listing.done) continue
    tables.push(
      foreignTable(family as NftFamily, table, entriesOf(listing.output), textsOf(texts.done ? texts.output : ''))
    )
  }
  return { tables, names }
}

async function listed(run: RunNft, command: string): Promise<readonly NftJson[]> {
  const result = await run(command)
  if (result.done) return entriesOf(result.output)
  const words = result.complaints.map((one) => one.words).join('; ')
  const cure = words.includes('not permitted')
    ? 'run weftd as root or with CAP_NET_ADMIN'
    : 'load the kernel module nf_tables'
  throw new WeftError('KERNEL_REFUSED', `nf_tables can't be read (nft ${command}): ${words}`, cure)
}

/** Our accepts in others' chains; of several under one key the effective one counts. */
export function acceptsIn(tables: readonly ForeignTable[]): readonly ForeignAccept[] {
  const found = new Map<Key, ForeignAccept>()
  for (const table of tables) {
    for (const chain of table.chains.values()) {
      for (const [index, { ours }] of chain.rules.entries()) {
        if (ours === undefined) continue
        const { at, after } = fateIn(table, chain.name, ours.prefix)
        const { tool, family } = table
        const effective = index >= after && index < at
        const accept: ForeignAccept = {
          kind: 'accept',
          tool,
          family,
          table: table.table,
          chain: chain.name,
          ...ours,
          effective
        }
        if (!found.get(keyOf(accept))?.effective) found.set(keyOf(accept), accept)
      }
    }
  }
  return [...found.values()]
}
