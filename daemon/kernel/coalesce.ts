// Drops link notifications that a later one repeats: a pod's start brings twenty about three links, each with the
// link's whole state.
import { hasAttribute, linkIdentity } from './netlink/decode.ts'
import type { Message } from './netlink/message.ts'
import { AF_BRIDGE, IFF_UP, IFLA, RTM } from './netlink/uapi.ts'

/** `ifi_flags` in struct ifinfomsg, <linux/rtnetlink.h>. */
const FLAGS_AT = 8

/**
 * Drops a message if a later one of the same batch describes the same link again or its deletion. Kept are the first
 * message about a link that `isKnown` does not know, since later messages name it by index only, and every change
 * between up and down, because the kernel removes IPv4 routes with it without a notification. Messages that can't be
 * parsed are kept, so that parsing them reports the error.
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
    if (state?.is === 'gone') later.set(`${state.of}${BARE}`, 'gone')
    const isRepeated = state !== undefined && (after === 'gone' || after === state.is)
    if (!isRepeated || introduces[at] === true) kept.push(one)
  }
  return kept.reverse()
}

/** A change of a bridge's own VLANs is followed by a message without them (cache.ts): neither repeats the other. */
const BARE = ' without VLANs'

type State = { readonly index: number; readonly of: string; readonly is: 'up' | 'down' | 'gone' }

/**
 * Messages about a link and about it as a bridge port are separate series. `undefined`: not about a link, or malformed.
 */
function stateIn(message: Message): State | undefined {
  if (message.type !== RTM.newLink && message.type !== RTM.deleteLink) return undefined
  if (message.body.length < FLAGS_AT + 4) return undefined
  const { index, af } = linkIdentity(message)
  const isUp = (message.body.readUInt32LE(FLAGS_AT) & IFF_UP) !== 0
  const isBare = af === AF_BRIDGE && message.type === RTM.newLink && !hasAttribute(message, IFLA.afSpec)
  return {
    index,
    of: `${af} ${index}${isBare ? BARE : ''}`,
    is: message.type === RTM.deleteLink ? 'gone' : isUp ? 'up' : 'down'
  }
}
