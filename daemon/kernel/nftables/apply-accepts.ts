// Adds and removes Weft's accepts in other programs' nftables chains, as one transaction where possible.
import type { Change } from '../../state/difference.ts'
import type { PodSide } from '../../state/foreign-chain.ts'
import type { ForeignAccept } from '../../state/object.ts'
import { textOf } from '../../state/text.ts'
import { KernelError } from '../netlink/error.ts'
import { batch, NFNL_SUBSYS } from '../netlink/nfnetlink.ts'
import type { Failure, RequestSocket } from '../netlink/request-socket.ts'
import { acceptMessages } from './accept-rule.ts'
import type { ForeignReader } from './foreign-reader.ts'
import type { Failures } from './transaction.ts'

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
  const messages = changes.flatMap((change) => acceptMessages(change, tables, side))
  if (messages.length === 0) return undefined
  const failed = (await socket.transact(batch(NFNL_SUBSYS.nftables, messages))).find((one) => one !== undefined)
  // Our own transactions are not notified.
  const chains = new Set(changes.map(({ object }) => `${object.family} ${object.table} ${object.chain}`))
  reader.touch({ chains, added: new Set(), removed: new Set(), hooked: false })
  return failed
}
