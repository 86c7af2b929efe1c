// Reads Weft's nftables tables in full, and finds Weft's rules in other programs' tables.
import { type ForeignTable, NO_SIDE, type PodSide } from '../../state/foreign-chain.ts'
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
import { Attributes } from '../netlink/message.ts'
import { NFGENMSG, NFNL_SUBSYS, netfilterRequest, nftFamilyOf } from '../netlink/nfnetlink.ts'
import type { RequestSocket } from '../netlink/request-socket.ts'
import { entriesOf, tableObjects } from './parse-own-tables.ts'
import type { RunNft } from './session.ts'
import { NFT_MSG, NFTA_TABLE_NAME } from './uapi.ts'

type TableName = { readonly family: NftFamily; readonly name: string }

/** All objects of the tables of which `interest` accepts a chain. Errors: KERNEL_REFUSED. */
export async function readOwn(
  run: RunNft,
  socket: RequestSocket,
  interest: (object: KernelObject) => boolean
): Promise<readonly KernelObject[]> {
  const objects: KernelObject[] = []
  for (const { family, name } of await listTables(socket)) {
    if (!interest({ kind: 'nft-chain', family, table: name, chain: '', digests: [] })) continue
    const result = await run(`list table ${family} ${name}`)
    // Otherwise it was deleted after the tables were listed.
    if (result.done) objects.push(...tableObjects(entriesOf(result.output)))
  }
  return objects
}

/** The families in which Weft has a table of this name. Errors: KERNEL_REFUSED. */
export async function familiesOfOwn(socket: RequestSocket, table = NFT_TABLE): Promise<readonly NftFamily[]> {
  return (await listTables(socket)).filter(({ name }) => name === table).map(({ family }) => family)
}

/** Not by libnftables: for `list tables` version 1.0.6 loads every rule and set element of every table. */
async function listTables(socket: RequestSocket): Promise<readonly TableName[]> {
  const tables: TableName[] = []
  const request = netfilterRequest(NFNL_SUBSYS.nftables, NFT_MSG.getTable, 0).done()
  await socket.pieces(request, 'the tables of nf_tables', (messages) => {
    for (const message of messages) {
      const family = nftFamilyOf(message)
      const name = new Attributes(message.body, NFGENMSG).text(NFTA_TABLE_NAME)
      if ((message.type & 255) === NFT_MSG.newTable && family !== undefined && name !== undefined)
        tables.push({ family, name })
    }
    return true
  })
  return tables
}

/**
 * Weft's rules in other programs' chains. Of several equal accepts each must be in its place; one call of a chain
 * suffices.
 */
export function acceptsIn(
  tables: readonly ForeignTable[],
  side: PodSide = NO_SIDE
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
