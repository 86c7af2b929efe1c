// Adds and removes Weft's accepts in other programs' nftables chains, as one transaction where possible.
import type { Change } from '../../state/difference.ts'
import { type ForeignRule, isRuleOf, type PodSide } from '../../state/foreign-chain.ts'
import type { ForeignAccept } from '../../state/object.ts'
import { textOf } from '../../state/text.ts'
import { KernelError } from '../netlink/error.ts'
import { Attributes, type Message } from '../netlink/message.ts'
import { batch, NFGENMSG, NFNL_SUBSYS, nftFamilyOf } from '../netlink/nfnetlink.ts'
import type { Failure, RequestSocket } from '../netlink/request-socket.ts'
import { acceptEdit } from './accept-rule.ts'
import { decodeRule } from './decode-rule.ts'
import type { ForeignReader } from './foreign-reader.ts'
import { foreignRule } from './parse-foreign-tables.ts'
import { ruleText } from './rule-text.ts'
import type { Failures } from './transaction.ts'
import { NFT_MSG, NFTA_TABLE_NAME } from './uapi.ts'

type AcceptChange = Change & { readonly object: ForeignAccept }

/** Errors by change; changes without an entry are done. */
export async function applyAccepts(
  socket: RequestSocket,
  reader: ForeignReader,
  changes: readonly AcceptChange[],
  side: PodSide
): Promise<Failures> {
  const failures: Failures = new Map()
  const attempt = (some: readonly AcceptChange[]): Promise<Failure> => applyOnce(socket, reader, some, side)
  if ((await attempt(changes)) === undefined) return failures
  for (const change of changes) {
    // Another program may have changed the chain since it was read: then it is read again.
    const failure = (await attempt([change])) && (await attempt([change]))
    if (failure === undefined) continue
    const operation = change.do === 'put' ? 'add' : 'remove'
    failures.set(change, new KernelError({ operation, object: textOf(change.object), ...failure }))
  }
  return failures
}

async function applyOnce(
  socket: RequestSocket,
  reader: ForeignReader,
  changes: readonly AcceptChange[],
  side: PodSide
): Promise<Failure> {
  const tables = await reader.read()
  const edits = changes.map((change) => ({ place: change.object, ...acceptEdit(change, tables, side) }))
  const messages = edits.flatMap((edit) => edit.messages)
  if (messages.length === 0) return undefined
  const added: OwnRule[] = []
  // The kernel echoes NFT_MSG_NEWGEN, too, when somebody listens.
  const answers = await socket.transact(batch(NFNL_SUBSYS.nftables, messages), (message) => {
    if ((message.type & 255) === NFT_MSG.newRule) added.push(ownRule(message))
  })
  const failed = answers.find((one) => one !== undefined)
  // Our own transactions are not notified.
  for (const { place, deleted, before } of edits) {
    const rule = added.find((one) => isFor(one, place))?.rule
    reader.edit(`${place.family} ${place.table} ${place.chain}`, failed ? undefined : { deleted, before, rule })
  }
  return failed
}

type OwnRule = { readonly table: string; readonly chain: string; readonly rule: ForeignRule }

/** The rule in the kernel's echo, which has its handle. */
function ownRule(message: Message): OwnRule {
  const name = nftFamilyOf(message) ?? ''
  const { chain, json } = decodeRule(message, name, () => undefined)
  const rule = foreignRule(json, new Map([[json.handle, ruleText(json.expr, json.comment)]]))
  const table = new Attributes(message.body, NFGENMSG).text(NFTA_TABLE_NAME)
  return { table: `${name} ${table}`, chain, rule }
}

const isFor = ({ table, chain, rule: { ours } }: OwnRule, accept: ForeignAccept): boolean =>
  table === `${accept.family} ${accept.table}` && chain === accept.chain && ours !== undefined && isRuleOf(ours, accept)
