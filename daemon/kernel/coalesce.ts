// Which notifications need not be read: a pod's start brings twenty about three links, each of which tells all there is to tell.
import { linkIdentity } from './netlink/decode.ts'
import type { Message } from './netlink/message.ts'
import { IFF_UP, RTM } from './netlink/uapi.ts'

/** `ifi_flags` in struct ifinfomsg, <linux/rtnetlink.h>. */
const FLAGS_AT = 8

/**
 * Leaves out what a later message of the same batch says again: a link as it was before it was changed once more, or before it went. Kept are the first word
 * about a link that `isKnown` does not know, since what follows names it by its index only, and every change between up and down: IPv4 routes go with
 * that, without a word. Messages that can't be read are kept, so that whoever reads them says so.
 */
export function coalesce<T extends { readonly message?: Message }>(
  batch: readonly T[],
  isKnown: (index: number) => boolean
): readonly T[] {
  const states = batch.map(({ message }) => message && stateIn(message))
  const seen = new Set<number>()
  const introduces = states.map((state) => {
    if (state === undefined || seen.has(state.index)) return false
    seen.add(state.index)
    return !isKnown(state.index)
  })
  const later = new Map<string, State['is']>()
  const kept: T[] = []
  for (let at = batch.length - 1; at >= 0; at--) {
    const [one, state] = [batch[at], states[at]]
    if (one === undefined) continue
    const after = state && later.get(state.of)
    if (state !== undefined) later.set(state.of, state.is)
    const isOvertaken = state !== undefined && (after === 'gone' || after === state.is)
    if (!isOvertaken || introduces[at] === true) kept.push(one)
  }
  return kept.reverse()
}

type State = { readonly index: number; readonly of: string; readonly is: 'up' | 'down' | 'gone' }

/** A link is told of as itself and as a bridge's port: two stories. `undefined`: the message is about no link, or can't be read. */
function stateIn(message: Message): State | undefined {
  if (message.type !== RTM.newLink && message.type !== RTM.deleteLink) return undefined
  if (message.body.length < FLAGS_AT + 4) return undefined
  const { index, af } = linkIdentity(message)
  const isUp = (message.body.readUInt32LE(FLAGS_AT) & IFF_UP) !== 0
  return { index, of: `${af} ${index}`, is: message.type === RTM.deleteLink ? 'gone' : isUp ? 'up' : 'down' }
}
