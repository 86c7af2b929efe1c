// Reads nf_tables: Weft's tables in full, other programs' tables with a chain at hook forward, and Weft's accepts in
// those.
import { WeftError } from '../../base/error.ts'
import { type ForeignTable, isPolicyTable, type PodSide } from '../../state/foreign-chain.ts'
import { judgeAccepts, precedesAccepts } from '../../state/foreign-course.ts'
import {
  type AdminCall,
  type ForeignAccept,
  type KernelObject,
  type Key,
  keyOf,
  type NftFamily
} from '../../state/object.ts'
import { NFT_TABLE } from '../../state/ownership.ts'
import { foreignTable, textsOf } from './parse-foreign-tables.ts'
import { entriesOf, isRecord, type NftJson, tableObjects } from './parse-own-tables.ts'
import type { RunNft } from './session.ts'

/** All objects of the tables of which `interest` accepts a chain. Errors: KERNEL_REFUSED. */
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
    // Otherwise it was deleted after the tables were listed.
    if (result.done) objects.push(...tableObjects(entriesOf(result.output)))
  }
  return objects
}

/** The families in which Weft has a table. Errors: KERNEL_REFUSED. */
export async function familiesOfOwn(run: RunNft): Promise<readonly NftFamily[]> {
  const tables = (await listed(run, 'list tables')).map((entry) => entry.table).filter(isRecord)
  return tables.filter(({ name }) => name === NFT_TABLE).map(({ family }) => family as NftFamily)
}

/**
 * Other programs' tables with a chain at hook forward, or one of `adminChains`; `names` (as `ip filter`) also has those
 * of policy engines, which are not read. Errors: KERNEL_REFUSED.
 */
export async function readForeign(
  run: RunNft,
  adminChains: readonly string[] = []
): Promise<{ readonly tables: readonly ForeignTable[]; readonly names: ReadonlySet<string> }> {
  const chains = (await listed(run, 'list chains')).map((entry) => entry.chain).filter(isRecord)
  const hooked = chains.filter(
    ({ hook, name, family }) =>
      (hook === 'forward' || adminChains.includes(String(name))) && /^(inet|ip|ip6)$/.test(String(family))
  )
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

/**
 * Weft's rules in other programs' chains. Of several equal accepts each must be in its place; one call of a chain
 * suffices.
 */
export function acceptsIn(
  tables: readonly ForeignTable[],
  side: PodSide = { devices: [], adminChains: [] }
): readonly (ForeignAccept | AdminCall)[] {
  const found = new Map<Key, ForeignAccept | AdminCall>()
  for (const own of tables.flatMap((table) => ownRules(table, side))) {
    const before = found.get(keyOf(own))
    if (before === undefined || (own.kind === 'accept') === before.effective) found.set(keyOf(own), own)
  }
  return [...found.values()]
}

function ownRules(table: ForeignTable, side: PodSide): readonly (ForeignAccept | AdminCall)[] {
  const isEffective = judgeAccepts(table, side)
  return [...table.chains.values()].flatMap((chain) => {
    const place = { tool: table.tool, family: table.family, table: table.table, chain: chain.name }
    return chain.rules.flatMap(({ ours, oursTo }, index): readonly (ForeignAccept | AdminCall)[] => {
      if (ours !== undefined)
        return [{ kind: 'accept', ...place, ...ours, effective: isEffective({ chain: chain.name, index }, ours) }]
      if (oursTo === undefined) return []
      return [{ kind: 'admin-call', ...place, target: oursTo, effective: precedesAccepts(table, chain, index) }]
    })
  })
}
