// Receives nftables notifications: the tables that a transaction touched, and its sender. The kernel sends pid and name
// at the end of each transaction.
import type { Sender } from '../../state/kernel.ts'
import { Attributes, type Message } from '../netlink/message.ts'
import { NETLINK_NETFILTER, NFGENMSG, NFNL_SUBSYS, nftFamilyOf } from '../netlink/nfnetlink.ts'
import { NotificationSocket } from '../netlink/notification-socket.ts'
import { NFT_MSG, NFTA_CHAIN, NFTA_RULE, NFTA_TABLE_NAME } from './uapi.ts'

/** <linux/netfilter/nfnetlink.h>, <linux/netfilter/nf_tables.h>. */
const NFNLGRP_NFTABLES = 7
const NFTA_GEN_PROC_PID = 2
const NFTA_GEN_PROC_NAME = 3

/** One finished transaction of another process; tables as `inet weft`. */
export type Touched = {
  readonly tables: ReadonlySet<string>
  /** Chains of which rules were added or deleted, as `ip filter FORWARD`. */
  readonly chains: ReadonlySet<string>
  /** Chains that were added or changed, and those deleted. */
  readonly added: ReadonlySet<string>
  readonly removed: ReadonlySet<string>
  /** Whether a base chain was added or changed, or a table deleted. */
  readonly hooked: boolean
  readonly by: Sender
}

export type Notified =
  | { readonly kind: 'touched'; readonly touched: Touched }
  /** The kernel dropped notifications, or one could not be parsed. */
  | { readonly kind: 'lost'; readonly why: string }

type Open = {
  readonly tables: Set<string>
  readonly chains: Set<string>
  readonly added: Set<string>
  readonly removed: Set<string>
  hooked: boolean
}

/** Collects the messages of each transaction until its end. */
export class Transactions {
  readonly #open = new Map<number, Open>()

  /** The transaction that this message ends, if it ends one. `own`: whether a port id is weftd's. */
  take(message: Message, own: (port: number) => boolean): Touched | undefined {
    if (message.type >> 8 !== NFNL_SUBSYS.nftables) return undefined
    if (own(message.port)) return undefined
    const type = message.type & 255
    const attributes = new Attributes(message.body, NFGENMSG)
    const open = this.#open.get(message.port) ?? {
      tables: new Set<string>(),
      chains: new Set<string>(),
      added: new Set<string>(),
      removed: new Set<string>(),
      hooked: false
    }
    if (type === NFT_MSG.newGeneration) {
      this.#open.delete(message.port)
      const pid = attributes.u32BigEndian(NFTA_GEN_PROC_PID) ?? 0
      return { ...open, by: { self: false, pid, name: attributes.text(NFTA_GEN_PROC_NAME) ?? '' } }
    }
    this.#open.set(message.port, open)
    const family = nftFamilyOf(message)
    const table = attributes.text(NFTA_TABLE_NAME)
    if (family === undefined || table === undefined) return undefined
    const place = `${family} ${table}`
    open.tables.add(place)
    if (type === NFT_MSG.newRule || type === NFT_MSG.deleteRule)
      open.chains.add(`${place} ${attributes.text(NFTA_RULE.chain)}`)
    else if (type === NFT_MSG.deleteChain) open.removed.add(`${place} ${attributes.text(NFTA_CHAIN.name)}`)
    else if (type === NFT_MSG.newChain) {
      open.added.add(`${place} ${attributes.text(NFTA_CHAIN.name)}`)
      open.hooked ||= attributes.has(NFTA_CHAIN.hook)
    } else if (type === NFT_MSG.deleteTable) open.hooked = true
    return undefined
  }

  /** Forgets transactions whose end was lost. */
  clear(): void {
    this.#open.clear()
  }
}

/** Rulesets are loaded in large transactions; after an overrun everything is read again. */
const RECEIVE_BYTES = 4 << 20

/** Listens in the daemon's network namespace. `own`: whether a port id is weftd's. */
export function listenToNftables(own: (port: number) => boolean, notify: (notified: Notified) => void): Disposable {
  const transactions = new Transactions()
  return new NotificationSocket(
    {
      message(message) {
        const touched = transactions.take(message, own)
        if (touched) notify({ kind: 'touched', touched })
      },
      lost(why) {
        transactions.clear()
        notify({ kind: 'lost', why: `nftables notifications: ${why}` })
      }
    },
    { protocol: NETLINK_NETFILTER, groups: [NFNLGRP_NFTABLES], receiveBytes: RECEIVE_BYTES, keepsNothing: true }
  )
}
