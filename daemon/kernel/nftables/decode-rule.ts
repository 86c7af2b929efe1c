// Decodes a rule of nf_tables' netlink messages into the statements of libnftables-json(5) that decide about packets.
//
// Why not libnftables: it loads all rules and set elements of all tables before some commands (`list tables`, `insert
// rule … handle`: 112 MB for 50,000 rules, version 1.0.6), prints a table in one piece, and its JSON lacks what only
// iptables can express.
import type { NameOf } from '../netlink/decode.ts'
import { Attributes, type Message } from '../netlink/message.ts'
import { NFGENMSG } from '../netlink/nfnetlink.ts'
import { elementValues, type SetElement } from './decode-set.ts'
import {
  addressOf,
  type Loaded,
  maskLength,
  prefixJson,
  rangeJson,
  statesIn,
  UNTRACKED,
  valueJson
} from './decode-value.ts'
import { loadedBy, type Version } from './loads.ts'
import type { NftJson } from './parse-own-tables.ts'
import type { Region, Variable } from './rule-template.ts'
import {
  NFT_LOOKUP_F_INV,
  NFTA_BITWISE,
  NFTA_CMP,
  NFTA_COUNTER,
  NFTA_DATA,
  NFTA_EXPR,
  NFTA_EXTENSION,
  NFTA_IMMEDIATE,
  NFTA_LIST_ELEM,
  NFTA_LOOKUP,
  NFTA_OBJREF_TYPE,
  NFTA_QUEUE,
  NFTA_RANGE,
  NFTA_RULE,
  NFTA_VERDICT,
  NFTNL_UDATA_RULE_COMMENT,
  REGISTER_VERDICT,
  slotOf,
  VERDICT
} from './uapi.ts'

/** A lookup in an anonymous set, whose elements are part of the rule; `fill` puts them into its statement. */
export type Lookup = { readonly set: string; readonly fill: (elements: readonly SetElement[]) => void }

export type DecodedRule = {
  readonly chain: string
  /** As libnftables-json(5) has a rule. */
  readonly json: { readonly handle: number; readonly expr: readonly NftJson[]; readonly comment?: string }
  readonly lookups: readonly Lookup[]
  readonly variable: Variable
}

/** nft's names for sets without one; no other set may be called that. */
const anonymous = /^__(set|map)\d+$/

/** A rule from NFT_MSG_NEWRULE in a table of this family; `nameOf` maps devices. Errors: MalformedMessage. */
export function decodeRule(message: Message, family: string, nameOf: NameOf): DecodedRule {
  const attributes = new Attributes(message.body, NFGENMSG)
  const regionOf = (bytes: Buffer): Region => ({
    at: bytes.byteOffset - message.body.byteOffset,
    octets: bytes.length
  })
  const decoding = new Decoding(family === 'ip' ? 4 : family === 'ip6' ? 6 : undefined, regionOf, nameOf)
  for (const bytes of attributes.nested(NFTA_RULE.expressions)?.all(NFTA_LIST_ELEM) ?? []) {
    const expression = new Attributes(bytes)
    const data = expression.nested(NFTA_EXPR.data) ?? new Attributes(new Uint8Array(0) as Buffer)
    decoding.take(expression.text(NFTA_EXPR.name) ?? '', data)
  }
  const comment = commentIn(attributes.bytes(NFTA_RULE.userdata)) ?? decoding.comment
  return {
    chain: attributes.text(NFTA_RULE.chain) ?? '',
    json: {
      handle: Number(attributes.u64BigEndian(NFTA_RULE.handle) ?? 0n),
      expr: decoding.statements,
      ...(comment === undefined ? {} : { comment })
    },
    lookups: decoding.lookups,
    variable: {
      ignored: [attributes.bytes(NFTA_RULE.handle), attributes.bytes(NFTA_RULE.position), ...decoding.counters]
        .filter((bytes) => bytes !== undefined)
        .map(regionOf),
      addresses: decoding.addresses
    }
  }
}

/** User data is a list of type, length and value, each of the first two one octet. */
function commentIn(userdata: Buffer | undefined): string | undefined {
  for (let at = 0; userdata !== undefined && at + 2 <= userdata.length; at += 2 + (userdata[at + 1] ?? 0)) {
    const value = userdata.subarray(at + 2, at + 2 + (userdata[at + 1] ?? 0))
    if (userdata[at] === NFTNL_UDATA_RULE_COMMENT) return value.toString('utf8').replace(/\0.*$/s, '')
  }
  return undefined
}

const operators = ['==', '!=', '<', '<=', '>', '>='] as const
/** Expressions that let every packet go on, and change what is loaded at most in its octets' order. */
const SILENT = /^(log|notrack|dup|flow_offload|secmark|last|byteorder)$/
/** Those that load a register, or change the packet; any other one may be a condition. */
const LOADS = /^(meta|ct|payload|fib|rt|socket|osf|numgen|hash|exthdr|xfrm|tunnel)$/
/** Statements that match by a rate or an amount, as libnftables-json(5) names them. */
const rates: Readonly<Record<string, string>> = { limit: 'limit', quota: 'quota', connlimit: 'ct count' }
/** NFT_OBJECT_QUOTA, _LIMIT, _CONNLIMIT. */
const objectRates = new Map([
  [2, 'quota'],
  [4, 'limit'],
  [5, 'ct count']
])

class Decoding {
  readonly statements: NftJson[] = []
  readonly lookups: Lookup[] = []
  readonly counters: Buffer[] = []
  readonly addresses: Variable['addresses'][number][] = []
  comment: string | undefined
  readonly #regionOf: (bytes: Buffer) => Region
  readonly #nameOf: NameOf
  readonly #registers = new Map<number, Loaded>()
  #order = 0
  #version: Version
  #protocol: string | undefined

  constructor(version: Version, regionOf: (bytes: Buffer) => Region, nameOf: NameOf) {
    this.#version = version
    this.#nameOf = nameOf
    this.#regionOf = regionOf
  }

  take(name: string, data: Attributes): void {
    const rate = rates[name]
    if (rate !== undefined) this.statements.push({ [rate]: {} })
    else if (name === 'immediate') this.#immediate(data)
    else if (name === 'cmp') this.#compare(data)
    else if (name === 'bitwise') this.#mask(data)
    else if (name === 'range') this.#range(data)
    else if (name === 'lookup') this.#lookup(data)
    else if (name === 'match' || name === 'target') this.#extension(name, data)
    else if (name === 'reject') this.statements.push({ reject: null })
    else if (name === 'queue') this.statements.push({ queue: queueOf(data) })
    else if (name === 'objref') this.#object(data)
    else if (name === 'counter') this.#counter(data)
    else if (LOADS.test(name)) this.#load(name, data)
    else if (!SILENT.test(name)) this.statements.push({ [name === 'dynset' ? 'set' : name]: {} })
  }

  #counter(data: Attributes): void {
    for (const type of Object.values(NFTA_COUNTER)) {
      const value = data.bytes(type)
      if (value !== undefined) this.counters.push(value)
    }
  }

  /** A named limit, quota or number of connections. */
  #object(data: Attributes): void {
    const rate = objectRates.get(data.u32BigEndian(NFTA_OBJREF_TYPE) ?? 0)
    if (rate !== undefined) this.statements.push({ [rate]: {} })
  }

  #load(name: string, data: Attributes): void {
    // Attribute 1 is the register in all of them. Without one the expression changes the packet.
    const to = data.bytes(1)?.length === 4 ? data.u32BigEndian(1) : undefined
    if (to !== undefined)
      this.#registers.set(slotOf(to), {
        ...loadedBy(name, data, this.#version),
        order: this.#order++,
        nameOf: this.#nameOf
      })
  }

  /** What a register holds, and that it is used now; something unknown is a decision about other packets than pods'. */
  #used(register: number | undefined): Loaded {
    const slot = slotOf(register ?? 0)
    const found = this.#registers.get(slot)
    if (found === undefined) return { json: { unknown: {} }, form: 'number', octets: 4, order: this.#order++ }
    const next = this.#registers.get(slot + Math.ceil(found.octets / 4))
    this.#order++
    return next?.order === found.order + 1
      ? { ...found, json: { concat: [found.json, next.json] }, form: 'number' }
      : found
  }

  #match(left: Loaded, op: string, right: unknown): void {
    this.#eliminate(left)
    const statement = { match: { op, left: left.json, right } }
    this.statements.push(statement)
    const { meta } = left.json as { readonly meta?: { readonly key?: unknown } }
    if (op === '==' && meta?.key === 'nfproto') this.#version = right === 'ipv4' ? 4 : 6
    if (op === '==' && meta?.key === 'l4proto') this.#protocol = typeof right === 'string' ? right : undefined
  }

  /** Like nft, leaves out a match that the next one implies: of the family before its header, of TCP before a port. */
  #eliminate(left: Loaded): void {
    const payload = left.json.payload as { protocol: string; field: string } | undefined
    const before = this.statements.at(-1)?.match as { left?: { meta?: { key?: unknown } }; op?: unknown } | undefined
    const key = before?.op === '==' ? before.left?.meta?.key : undefined
    if (payload?.protocol === 'th' && this.#protocol !== undefined) {
      payload.protocol = this.#protocol
      if (this.#protocol.startsWith('icmp') && payload.field === 'sport') payload.field = 'type'
      if (key === 'l4proto') this.statements.pop()
    } else if (payload?.protocol.startsWith('ip') && key === 'nfproto') this.statements.pop()
  }

  #compare(data: Attributes): void {
    const left = this.#used(data.u32BigEndian(NFTA_CMP.from))
    const op = operators[data.u32BigEndian(NFTA_CMP.operator) ?? 0] ?? '=='
    const bytes = data.nested(NFTA_CMP.data)?.bytes(NFTA_DATA.value) ?? Buffer.alloc(0)
    if (left.form === 'state' && left.mask !== undefined) this.#states(left, left.mask, op, bytes)
    else if (left.form !== 'address') this.#match(left, op, valueJson(left, bytes))
    else if (op === '==' || op === '!=') {
      const length = maskedLength(left)
      this.#match(left, op, prefixJson(addressOf(left, bytes, length)))
      this.addresses.push({ ...this.#regionOf(bytes), loaded: left, length })
    } else this.#bound(left, op, bytes)
  }

  /** `ct state established,related` is a mask and a comparison with zero. */
  #states(left: Loaded, mask: Buffer, op: string, bytes: Buffer): void {
    const zero = bytes.every((octet) => octet === 0)
    const states = statesIn(mask.readUInt32LE(0), UNTRACKED.nftables)
    if (zero) this.#match(left, op === '!=' ? 'in' : '!=', states.length === 1 ? states[0] : states)
    else this.#match(left, op, valueJson(left, bytes))
  }

  /** A range of addresses is two comparisons, of which the first is the lower bound. */
  #bound(left: Loaded, op: string, bytes: Buffer): void {
    const before = this.statements.at(-1) as { match?: { left?: unknown; from?: Buffer } } | undefined
    const from = before?.match?.from
    if (op === '<=' && from !== undefined && before?.match?.left === left.json) {
      this.statements.pop()
      this.#match(left, '==', rangeJson(left, from, bytes))
      return
    }
    const edge = Buffer.alloc(bytes.length, op.startsWith('<') ? 0 : 255)
    const range = op.startsWith('<') ? rangeJson(left, edge, bytes) : rangeJson(left, bytes, edge)
    this.#match(left, '==', range)
    const statement = this.statements.at(-1)?.match
    if (op === '>=') Object.defineProperty(statement, 'from', { value: Buffer.from(bytes) })
  }

  #mask(data: Attributes): void {
    const [from, to] = [data.u32BigEndian(NFTA_BITWISE.from), data.u32BigEndian(NFTA_BITWISE.to)]
    const mask = data.nested(NFTA_BITWISE.mask)?.bytes(NFTA_DATA.value)
    if (to === undefined) return
    const found = this.#registers.get(slotOf(from ?? 0))
    const what = found ?? ({ json: { unknown: {} }, form: 'number', octets: 4 } as const)
    const xored =
      data
        .nested(NFTA_BITWISE.xor)
        ?.bytes(NFTA_DATA.value)
        ?.some((octet) => octet !== 0) ?? false
    const plain =
      mask !== undefined &&
      !xored &&
      (what.form === 'state' || (what.form === 'address' && maskLength(mask) !== undefined))
    const order = this.#order++
    const isHost = what.form === 'host'
    const masked: Loaded = plain
      ? { ...what, mask: Buffer.from(mask), order }
      : { json: { '&': [what.json, hexOf(what, mask)] }, form: isHost ? 'host' : 'number', octets: what.octets, order }
    this.#registers.set(slotOf(to), masked)
  }

  #range(data: Attributes): void {
    const left = this.#used(data.u32BigEndian(NFTA_RANGE.from))
    const op = operators[data.u32BigEndian(NFTA_RANGE.operator) ?? 0] ?? '=='
    const bytes = (type: number) => data.nested(type)?.bytes(NFTA_DATA.value) ?? Buffer.alloc(0)
    const [first, last] = [bytes(NFTA_RANGE.first), bytes(NFTA_RANGE.last)]
    const right =
      left.form === 'address'
        ? rangeJson(left, first, last)
        : { range: [valueJson(left, first), valueJson(left, last)] }
    this.#match(left, op, right)
  }

  #lookup(data: Attributes): void {
    const left = this.#used(data.u32BigEndian(NFTA_LOOKUP.from))
    const set = data.text(NFTA_LOOKUP.set) ?? ''
    const to = data.u32BigEndian(NFTA_LOOKUP.to)
    const isMap = to === REGISTER_VERDICT
    // A map whose values are no verdicts loads a register.
    if (to !== undefined && !isMap) {
      this.#registers.set(slotOf(to), { json: { map: {} }, form: 'number', octets: 4, order: this.#order++ })
      return
    }
    this.#eliminate(left)
    const inverted = ((data.u32BigEndian(NFTA_LOOKUP.flags) ?? 0) & NFT_LOOKUP_F_INV) !== 0
    const content: { [key: string]: unknown } = isMap
      ? { key: left.json, data: `@${set}` }
      : { op: inverted ? '!=' : '==', left: left.json, right: `@${set}` }
    this.statements.push(isMap ? { vmap: content } : { match: content })
    if (!anonymous.test(set)) return
    const fill = (elements: readonly SetElement[]): void => {
      const values = elementValues(left, elements)
      if (isMap) content.data = { set: values.map(([value, { verdict }]) => [value, verdictJson(verdict) ?? {}]) }
      else content.right = { set: values.map(([value]) => value) }
    }
    this.lookups.push({ set, fill })
  }

  #immediate(data: Attributes): void {
    const to = data.u32BigEndian(NFTA_IMMEDIATE.register)
    const verdict = verdictJson(data.nested(NFTA_IMMEDIATE.data)?.nested(NFTA_DATA.verdict))
    if (to === REGISTER_VERDICT && verdict !== undefined) this.statements.push(verdict)
  }

  #extension(type: 'match' | 'target', data: Attributes): void {
    const name = data.text(NFTA_EXTENSION.name) ?? ''
    const info = data.bytes(NFTA_EXTENSION.info) ?? Buffer.alloc(0)
    if (type === 'match' && name === 'comment') this.comment ??= info.toString('utf8').replace(/\0.*$/s, '')
    else if (name === 'NFQUEUE') this.statements.push({ xt: { type, name, queue: targetQueueOf(info) } })
    else this.statements.push((type === 'match' && trackedStates(name, info)) || { xt: { type, name } })
  }
}

/** The flag by which packets pass while no program listens, NFQNL bypass. */
const BYPASS = 1

/** The numbers of the queues of a `queue` expression; `null` where packets pass without a program. */
function queueOf(data: Attributes): NftJson | null {
  const [first, total = 1, flags = 0] = [NFTA_QUEUE.number, NFTA_QUEUE.total, NFTA_QUEUE.flags].map((type) => {
    const bytes = data.bytes(type)
    return bytes?.length === 2 ? bytes.readUInt16BE(0) : undefined
  })
  return first === undefined || flags & BYPASS ? null : { first, last: first + total - 1 }
}

/**
 * The same of struct xt_NFQ_info to xt_NFQ_info_v3 (<linux/netfilter/xt_NFQUEUE.h>), whose fields were added in turn.
 */
function targetQueueOf(info: Buffer): NftJson | null {
  if (info.length < 2) return null
  const first = info.readUInt16LE(0)
  const total = info.length < 4 ? 1 : Math.max(1, info.readUInt16LE(2))
  const flags = info.length < 6 ? 0 : info.readUInt16LE(4)
  return flags & BYPASS ? null : { first, last: first + total - 1 }
}

const hexOf = ({ form }: Pick<Loaded, 'form'>, mask: Buffer | undefined): string =>
  (form === 'host' ? Buffer.from(mask ?? []).reverse() : mask)?.toString('hex') ?? ''

const maskedLength = (left: Loaded): number | undefined => (left.mask === undefined ? undefined : maskLength(left.mask))

const verdictNames = new Map<number, string>(Object.entries(VERDICT).map(([name, code]) => [code, name]))

function verdictJson(verdict: Attributes | undefined): NftJson | undefined {
  const code = verdict?.u32BigEndian(NFTA_VERDICT.code)
  if (verdict === undefined || code === undefined) return undefined
  const name = verdictNames.get(code | 0)
  if (name === undefined) return undefined
  return { [name]: name === 'jump' || name === 'goto' ? { target: verdict.text(NFTA_VERDICT.chain) ?? '' } : null }
}

/**
 * Where struct xt_conntrack_mtinfo1 to 3 (<linux/netfilter/xt_conntrack.h>) have their flags and the mask of states,
 * which is one octet in the first.
 */
const CONNTRACK = { flags: 146, inverted: 148, states: 150, stateFlag: 1 } as const

/** The states of iptables' matches conntrack, where it matches nothing else, and state. */
function trackedStates(name: string, info: Buffer): NftJson | undefined {
  const match = (inverted: boolean, states: readonly string[]): NftJson => ({
    match: { op: inverted ? '!=' : 'in', left: { ct: { key: 'state' } }, right: states }
  })
  if (name === 'state' && info.length >= 4) return match(false, statesIn(info.readUInt32LE(0), UNTRACKED.nftables))
  if (name !== 'conntrack' || info.length < CONNTRACK.states + 4) return undefined
  if (info.readUInt16LE(CONNTRACK.flags) !== CONNTRACK.stateFlag) return undefined
  const states = statesIn(info.readUInt16LE(CONNTRACK.states), UNTRACKED.iptables)
  // SNAT and DNAT are states for iptables alone.
  if (states.some((state) => state.startsWith('0x'))) return undefined
  return match((info.readUInt16LE(CONNTRACK.inverted) & 1) !== 0, states)
}
