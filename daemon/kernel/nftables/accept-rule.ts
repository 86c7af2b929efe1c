// Encodes Weft's accepts in other programs' chains as nf_tables messages: libnftables would load every rule of every
// table to insert one before another (112 MB and a second for 50,000 rules, version 1.0.6).
import { type Family, ipBytes, netmask, network, type Prefix } from '../../../ipam/address.ts'
import type { Change } from '../../state/difference.ts'
import { type ForeignTable, isRuleOf, type PodSide } from '../../state/foreign-chain.ts'
import { placeFor } from '../../state/foreign-course.ts'
import type { ForeignAccept } from '../../state/object.ts'
import { type MessageWriter, NLM_F } from '../netlink/message.ts'
import { NFNL_SUBSYS, NFPROTO, netfilterRequest } from '../netlink/nfnetlink.ts'
import { COMMENT } from './parse-own-tables.ts'
import {
  NFT_MSG,
  NFT_PAYLOAD,
  NFTA_BITWISE,
  NFTA_CMP,
  NFTA_DATA,
  NFTA_EXPR,
  NFTA_IMMEDIATE,
  NFTA_LIST_ELEM,
  NFTA_META,
  NFTA_PAYLOAD,
  NFTA_RULE,
  NFTA_TABLE_NAME,
  NFTA_VERDICT,
  NFTNL_UDATA_RULE_COMMENT,
  REGISTER_1,
  REGISTER_VERDICT,
  VERDICT
} from './uapi.ts'

const NFT_META_NFPROTO = 15
const NFT_CMP_EQ = 0
/** Where addresses begin in the headers, by side. */
const OFFSET = { source: { 4: 12, 6: 8 }, destination: { 4: 16, 6: 24 } } as const

/** What a change does to its chain: deletes the rules with these handles, then adds one before another, or none. */
export type AcceptEdit = {
  readonly messages: readonly Buffer[]
  readonly deleted: readonly number[]
  /** The handle of the rule before which one is added; `undefined`: it becomes the last. */
  readonly before: number | undefined
}

/**
 * The messages of one change: deletes existing rules of this accept and inserts one where it belongs now; none if it
 * has no place. `foreign`: other programs' tables as they are now, `side` what their rules are judged by.
 */
export function acceptEdit(
  { do: verb, object: accept }: Change & { readonly object: ForeignAccept },
  foreign: readonly ForeignTable[],
  side: PodSide
): AcceptEdit {
  const table = foreign.find((one) => one.family === accept.family && one.table === accept.table)
  const chain = table?.chains.get(accept.chain)
  const deleted = (chain?.rules ?? [])
    .filter((rule) => rule.ours && isRuleOf(rule.ours, accept))
    .map(({ handle = 0 }) => handle)
  const messages = deleted.map((handle) =>
    ruleRequest(NFT_MSG.deleteRule, 0, accept).bytes(NFTA_RULE.handle, u64(handle)).done()
  )
  const place = table && placeFor(table, accept, side)
  if (verb === 'remove' || place === undefined) return { messages, deleted, before: undefined }
  const before = chain?.rules[place]?.handle
  return { messages: [...messages, newRule(accept, before)], deleted, before }
}

const ruleRequest = (type: number, flags: number, { family, table, chain }: ForeignAccept): MessageWriter =>
  netfilterRequest(NFNL_SUBSYS.nftables, type, NFPROTO[family], flags)
    .text(NFTA_TABLE_NAME, table)
    .text(NFTA_RULE.chain, chain)

/** Without the handle of another rule it becomes the last one. */
function newRule(accept: ForeignAccept, before: number | undefined): Buffer {
  const flags = NLM_F.create | NLM_F.echo | (before === undefined ? NLM_F.append : 0)
  const writer = ruleRequest(NFT_MSG.newRule, flags, accept)
  if (before !== undefined) writer.bytes(NFTA_RULE.position, u64(before))
  const comment = Buffer.from(`${COMMENT}\0`)
  return writer
    .nest(NFTA_RULE.expressions, (list) => {
      if (accept.family === 'inet') matchFamily(list, accept.prefix.ip.family)
      for (const side of ['source', 'destination'] as const) {
        if (accept.match === 'pair' || accept.match === side) matchAddress(list, side, network(accept.prefix))
      }
      // With a counter it looks like a rule of iptables-nft: `iptables -S` and `iptables -D` handle it (tried with
      // 1.8.9).
      expression(list, 'counter', () => undefined)
      expression(list, 'immediate', (data) =>
        data
          .bytes(NFTA_IMMEDIATE.register, u32(REGISTER_VERDICT))
          .nest(NFTA_IMMEDIATE.data, (value) =>
            value.nest(NFTA_DATA.verdict, (verdict) =>
              verdict.bytes(NFTA_VERDICT.code, u32(VERDICT[accept.verdict ?? 'accept']))
            )
          )
      )
    })
    .bytes(NFTA_RULE.userdata, [NFTNL_UDATA_RULE_COMMENT, comment.length, ...comment])
    .done()
}

/** As nft writes them: whole octets of a prefix are compared without a mask, which iptables-nft reads, too. */
function matchAddress(list: MessageWriter, side: keyof typeof OFFSET, { ip, length }: Prefix): void {
  const whole = ipBytes(ip)
  const isMasked = length % 8 !== 0
  const octets = isMasked ? whole.length : length / 8
  expression(list, 'payload', (data) =>
    data
      .bytes(NFTA_PAYLOAD.to, u32(REGISTER_1))
      .bytes(NFTA_PAYLOAD.base, u32(NFT_PAYLOAD.network))
      .bytes(NFTA_PAYLOAD.offset, u32(OFFSET[side][ip.family]))
      .bytes(NFTA_PAYLOAD.length, u32(octets))
  )
  if (isMasked) {
    expression(list, 'bitwise', (data) =>
      data
        .bytes(NFTA_BITWISE.from, u32(REGISTER_1))
        .bytes(NFTA_BITWISE.to, u32(REGISTER_1))
        .bytes(NFTA_BITWISE.length, u32(octets))
        .nest(NFTA_BITWISE.mask, (mask) => mask.bytes(NFTA_DATA.value, ipBytes(netmask({ ip, length }))))
        .nest(NFTA_BITWISE.xor, (xor) => xor.bytes(NFTA_DATA.value, new Uint8Array(octets)))
    )
  }
  compare(list, whole.subarray(0, octets))
}

function matchFamily(list: MessageWriter, family: Family): void {
  expression(list, 'meta', (data) =>
    data.bytes(NFTA_META.to, u32(REGISTER_1)).bytes(NFTA_META.key, u32(NFT_META_NFPROTO))
  )
  compare(list, [family === 4 ? NFPROTO.ip : NFPROTO.ip6])
}

const compare = (list: MessageWriter, value: ArrayLike<number>): void =>
  expression(list, 'cmp', (data) =>
    data
      .bytes(NFTA_CMP.from, u32(REGISTER_1))
      .bytes(NFTA_CMP.operator, u32(NFT_CMP_EQ))
      .nest(NFTA_CMP.data, (nested) => nested.bytes(NFTA_DATA.value, value))
  )

function expression(list: MessageWriter, name: string, fill: (data: MessageWriter) => unknown): void {
  list.nest(NFTA_LIST_ELEM, (one) => one.text(NFTA_EXPR.name, name).nest(NFTA_EXPR.data, (data) => void fill(data)))
}

/** nf_tables' numbers are in network order. */
const u32 = (value: number): readonly number[] => [value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255]
const u64 = (value: number): Buffer => {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(BigInt(value))
  return bytes
}
