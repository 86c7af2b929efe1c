// Framing shared by conntrack's and nf_tables' messages (<linux/netfilter/nfnetlink.h>, <linux/netfilter.h>).
import type { NftFamily } from '../../state/object.ts'
import { type Message, MessageWriter, NLM_F } from './message.ts'

/** <linux/netlink.h>. */
export const NETLINK_NETFILTER = 12
export const NFNL_SUBSYS = { conntrack: 1, nftables: 10 } as const
/** Octets of struct nfgenmsg: family, version, resource id. */
export const NFGENMSG = 4
/** NFPROTO_*, by the names that nft has for them. */
export const NFPROTO = { inet: 1, ip: 2, bridge: 7, ip6: 10 } as const

/** The family of a message; `undefined` for one that nothing here has (arp, netdev). */
export function nftFamilyOf({ body }: Message): NftFamily | undefined {
  const number = body.readUInt8(0)
  return (Object.keys(NFPROTO) as NftFamily[]).find((name) => NFPROTO[name] === number)
}

/** A request to a subsystem, its struct nfgenmsg written; `family` is NFPROTO_* or AF_*. */
export const netfilterRequest = (subsystem: number, type: number, family: number, flags = 0): MessageWriter =>
  new MessageWriter((subsystem << 8) | type, NLM_F.request | flags).fixed([1, family], [1, 0], [2, 0])

const NFNL_MSG_BATCH = { begin: 16, end: 17 } as const

/** Marks around messages that are one transaction of a subsystem, whose number is the resource id of both. */
export function batch(subsystem: number, messages: readonly Buffer[]): readonly Buffer[] {
  const mark = (type: number): Buffer =>
    new MessageWriter(type, NLM_F.request).fixed([1, 0], [1, 0], [1, subsystem >> 8], [1, subsystem]).done()
  return [mark(NFNL_MSG_BATCH.begin), ...messages, mark(NFNL_MSG_BATCH.end)]
}
