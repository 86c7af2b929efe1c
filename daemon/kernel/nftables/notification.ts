// Receives nftables notifications: the tables that a transaction touched, and its sender. The kernel sends pid and name
// at the end of each transaction.
import type { Sender } from '../../state/kernel.ts'
import { Attributes, type Message } from '../netlink/message.ts'
import { NETLINK_NETFILTER, NFGENMSG, NFNL_SUBSYS, NFPROTO } from '../netlink/nfnetlink.ts'
import { NotificationSocket } from '../netlink/notification-socket.ts'

/** <linux/netfilter/nfnetlink.h>, <linux/netfilter/nf_tables.h>. */
const NFNLGRP_NFTABLES = 7
const NFT_MSG_NEWCHAIN = 3
const NFT_MSG_NEWGEN = 15
const NFTA_CHAIN_HOOK = 4
const NFTA_GEN_PROC_PID = 2
const NFTA_GEN_PROC_NAME = 3

const familyNames = new Map<number, string>(Object.entries(NFPROTO).map(([name, number]) => [number, name]))

/** One finished transaction of another process; tables as `inet weft`. */
export type Touched = {
  readonly tables: ReadonlySet<string>
  /** Whether a base chain was added or changed. */
  readonly hooked: boolean
  readonly by: Sender
}

export type Notified =
  | { readonly kind: 'touched'; readonly touched: Touched }
  /** The kernel dropped notifications, or one could not be parsed. */
  | { readonly kind: 'lost'; readonly why: string }

/** Collects the messages of each transaction until its end. */
export class Transactions {
  readonly #open = new Map<number, { readonly tables: Set<string>; hooked: boolean }>()

  /** The transaction that this message ends, if it ends one. `own`: whether a port id is weftd's. */
  take(message: Message, own: (port: number) => boolean): Touched | undefined {
    if (message.type >> 8 !== NFNL_SUBSYS.nftables) return undefined
    if (own(message.port)) return undefined
    const type = message.type & 255
    const attributes = new Attributes(message.body, NFGENMSG)
    const open = this.#open.get(message.port) ?? { tables: new Set<string>(), hooked: false }
    if (type === NFT_MSG_NEWGEN) {
      this.#open.delete(message.port)
      const pid = attributes.u32BigEndian(NFTA_GEN_PROC_PID) ?? 0
      return { ...open, by: { self: false, pid, name: attributes.text(NFTA_GEN_PROC_NAME) ?? '' } }
    }
    this.#open.set(message.port, open)
    const family = familyNames.get(message.body.readUInt8(0))
    // Attribute 1 is the table's name in every message of nf_tables (NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_TABLE
    // …).
    const table = attributes.text(1)
    if (family !== undefined && table !== undefined) open.tables.add(`${family} ${table}`)
    if (type === NFT_MSG_NEWCHAIN && attributes.has(NFTA_CHAIN_HOOK)) open.hooked = true
    return undefined
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
      lost: (why) => notify({ kind: 'lost', why: `nftables notifications: ${why}` })
    },
    { protocol: NETLINK_NETFILTER, groups: [NFNLGRP_NFTABLES], receiveBytes: RECEIVE_BYTES }
  )
}
