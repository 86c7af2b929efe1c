// Parses other programs' nftables tables, made by nft or by iptables-nft, from libnftables-json(5) for
// state/foreign-chain.ts.
import {
  hostPrefix,
  type Ip,
  type Prefix,
  parseIp,
  parsePrefix,
  rangePrefixes,
  samePrefix
} from '../../../ipam/address.ts'
import type {
  ForeignBranch,
  ForeignChain,
  ForeignCondition,
  ForeignRule,
  ForeignTable,
  ForeignVerdict,
  OurAccept
} from '../../state/foreign-chain.ts'
import type { NftFamily } from '../../state/object.ts'
import { COMMENT, isRecord, type NftJson } from './parse-own-tables.ts'

/**
 * Table names of iptables-nft. Tables that look like its own are shown by `iptables -S` and get rules that it can
 * print.
 */
const iptablesTable = /^(filter|mangle|raw|security|nat)$/

/** One table from its JSON listing; `texts` are the rules as nft prints them, by handle. */
export function foreignTable(
  family: NftFamily,
  table: string,
  entries: readonly NftJson[],
  texts: ReadonlyMap<number, string>
): ForeignTable {
  const chains = new Map<string, ForeignChain & { readonly rules: ForeignRule[] }>()
  for (const { chain, rule } of entries) {
    if (isRecord(chain)) {
      const name = String(chain.name)
      const policy = chain.policy === 'drop' ? 'drop' : 'accept'
      chains.set(name, { name, ...(chain.hook === 'forward' ? { policy } : {}), rules: [] })
    } else if (isRecord(rule)) chains.get(String(rule.chain))?.rules.push(foreignRule(rule, texts))
  }
  const byIptables = (family === 'ip' || family === 'ip6') && iptablesTable.test(table) && !chains.has('forward')
  return { tool: byIptables ? 'iptables-nft' : 'nft', family, table, chains }
}

/** The rules of `nft -a list table …` by handle. */
export function textsOf(listing: string): ReadonlyMap<number, string> {
  return new Map(
    [...listing.matchAll(/^\s*(.*[^{\s]) # handle (\d+)$/gm)].map(([, text = '', handle]) => [
      Number(handle),
      text
        .replaceAll(/\s+/g, ' ')
        .replaceAll(/counter packets \d+ bytes \d+ /g, '')
        .replace('counter ', '')
    ])
  )
}

/** Statements that let every packet go on; of others (limit, quota, a set that is filled) some may be a condition. */
const neutral = new Set([
  ...['counter', 'log', 'mangle', 'notrack', 'flow', 'dup', 'secmark', 'last', 'xt'],
  ...['ct helper', 'ct timeout', 'ct expectation']
])

/** One rule; see foreignTable. */
export function foreignRule(rule: NftJson, texts: ReadonlyMap<number, string>): ForeignRule {
  const handle = Number(rule.handle)
  const text = texts.get(handle) ?? JSON.stringify(rule.expr)
  const conditions: ForeignCondition[] = []
  const branches: ForeignBranch[] = []
  const statements = Array.isArray(rule.expr) ? rule.expr.filter(isRecord) : []
  for (const statement of statements) {
    const { match, vmap, xt } = statement
    const verdict = verdictOf(statement)
    if (isRecord(match)) conditions.push(...conditionOf(match.left, String(match.op), match.right))
    else if (isRecord(vmap))
      branches.push(
        ...mapBranches(vmap).map((branch) => ({ ...branch, conditions: [...conditions, ...branch.conditions] }))
      )
    else if (isRecord(xt) && xt.type === 'match') conditions.push(...extensionCondition(String(xt.name), text))
    else if (verdict) branches.push({ conditions: [...conditions], verdict })
    else if (!Object.keys(statement).every((key) => neutral.has(key))) conditions.push(...deliberate)
  }
  return { handle, branches, text, ...(rule.comment === COMMENT ? ownPart(statements) : {}) }
}

/** Targets of iptables that keep packets, some of them of xtables-addons. */
export const consumingTarget = /^(NFQUEUE|QUEUE|SYNPROXY|TARPIT|DELUDE|CHAOS|STEAL|ECHO)$/

function verdictOf(statement: NftJson): ForeignVerdict | undefined {
  const { jump, goto, xt } = statement
  if (isRecord(jump)) return { kind: 'jump', chain: String(jump.target) }
  if (isRecord(goto)) return { kind: 'goto', chain: String(goto.target) }
  if ('drop' in statement || 'reject' in statement) return { kind: 'drop' }
  if ('accept' in statement) return { kind: 'accept' }
  if ('return' in statement) return { kind: 'return' }
  if ('synproxy' in statement) return { kind: 'queue' }
  if ('queue' in statement) return queueVerdict(statement.queue)
  if (isRecord(xt) && xt.type === 'target') {
    if (xt.name === 'REJECT') return { kind: 'drop' }
    if (consumingTarget.test(String(xt.name))) return queueVerdict(xt.queue)
  }
  return undefined
}

/** `queue` as decode-rule.ts has it: numbers only where packets are dropped while no program listens. */
function queueVerdict(queue: unknown): ForeignVerdict {
  if (!isRecord(queue) || typeof queue.first !== 'number' || typeof queue.last !== 'number') return { kind: 'queue' }
  return { kind: 'queue', numbers: [queue.first, queue.last] }
}

/** A verdict map: one branch for each element. Those of a named map are not known: it may drop or accept anything. */
function mapBranches(vmap: NftJson): readonly ForeignBranch[] {
  const elements = isRecord(vmap.data) && Array.isArray(vmap.data.set) ? vmap.data.set : undefined
  if (elements === undefined)
    return [
      { conditions: conditionOf(vmap.key, '==', ''), verdict: { kind: 'drop' } },
      { conditions: deliberate, verdict: { kind: 'accept' } }
    ]
  return elements.flatMap((element) => {
    if (!Array.isArray(element) || !isRecord(element[1])) return []
    const verdict = verdictOf(element[1])
    return verdict === undefined ? [] : [{ conditions: conditionOf(vmap.key, '==', element[0]), verdict }]
  })
}

const deliberate: readonly ForeignCondition[] = [{ kind: 'deliberate' }]
const other: readonly ForeignCondition[] = [{ kind: 'other' }]

/** meta keys with the name of a device. */
const interfaceKeys: Readonly<Record<string, 'in' | 'out'>> = { iif: 'in', iifname: 'in', oif: 'out', oifname: 'out' }

/** meta keys about what a packet is; the others (groups of devices, marks, users, time) may be about pods. */
const broadKeys = new Set(['l4proto', 'protocol', 'pkttype', 'length'])

function conditionOf(left: unknown, op: string, right: unknown): readonly ForeignCondition[] {
  if (!isRecord(left)) return other
  const { payload, meta, ct, '&': masked } = left
  // Addresses under a mask that is no prefix may be those of pods.
  if (Array.isArray(masked))
    return isRecord(masked[0]) && isRecord(masked[0].payload) ? deliberate : conditionOf(masked[0], op, right)
  if (isRecord(payload)) return payloadCondition(payload, op, right)
  if (isRecord(ct)) return stateCondition(ct, op, right)
  if (isRecord(meta)) {
    const key = String(meta.key)
    if (key === 'nfproto' && op === '==') return [{ kind: 'family', family: right === 'ipv6' ? 6 : 4 }]
    const side = interfaceKeys[key]
    if (side !== undefined) return interfaceCondition(side, op, right)
    return broadKeys.has(key) || key === 'nfproto' ? other : deliberate
  }
  // Concatenations with ports, fib expressions, sets of both.
  return deliberate
}

function interfaceCondition(side: 'in' | 'out', op: string, right: unknown): readonly ForeignCondition[] {
  const set = isRecord(right) && Array.isArray(right.set) ? right.set : [right]
  const names = set.filter((name) => typeof name === 'string')
  // A named set may have pods' devices. A device that is gone is printed as a number.
  if (names.some((name) => name.startsWith('@')) || set.some(isRecord)) return deliberate
  return [{ kind: 'interface', names, negated: op === '!=', side }]
}

function payloadCondition(payload: NftJson, op: string, right: unknown): readonly ForeignCondition[] {
  const { protocol, field } = payload
  if (protocol !== 'ip' && protocol !== 'ip6') return deliberate
  const family = { kind: 'family', family: protocol === 'ip' ? 4 : 6 } as const
  if (field === 'protocol' || field === 'nexthdr') return [family, ...other]
  if (field !== 'saddr' && field !== 'daddr') return [family, ...deliberate]
  const prefixes = prefixesOf(right)
  // A named set is maintained deliberately.
  if (prefixes === undefined) {
    if (typeof right !== 'string' || !right.startsWith('@')) return [family, ...other]
    return [family, { kind: 'deliberate', set: { name: right.slice(1), negated: op === '!=' } }]
  }
  const side = field === 'saddr' ? 'source' : 'destination'
  return [family, { kind: 'address', prefixes, negated: op === '!=', side }]
}

/** Addresses on the right side; `undefined` when they are not literal. */
function prefixesOf(right: unknown): readonly Prefix[] | undefined {
  if (typeof right === 'string') {
    const ip = parseIp(right)
    return ip === undefined ? undefined : [hostPrefix(ip)]
  }
  if (!isRecord(right)) return undefined
  const { prefix, set, range } = right
  if (isRecord(prefix)) {
    const parsed = parsePrefix(`${prefix.addr}/${prefix.len}`)
    return parsed === undefined ? undefined : [parsed]
  }
  if (Array.isArray(range)) {
    const [first, last] = range.map(ipOf)
    return first === undefined || last === undefined ? undefined : rangePrefixes({ first, last })
  }
  if (!Array.isArray(set)) return undefined
  const each = set.map(prefixesOf)
  return each.includes(undefined) ? undefined : each.flatMap((prefixes) => prefixes ?? [])
}

const ipOf = (value: unknown): Ip | undefined => (typeof value === 'string' ? parseIp(value) : undefined)

/** conntrack states that packets of a working connection never have. */
const broken = new Set(['invalid', 'untracked'])
/** States that the first packet of a connection never has. */
const later = new Set(['established', 'related', 'invalid'])

function stateCondition(ct: NftJson, op: string, right: unknown): readonly ForeignCondition[] {
  if (ct.key !== 'state') return ct.key === 'mark' || ct.key === 'label' ? deliberate : other
  const set = isRecord(right) && Array.isArray(right.set) ? right.set : Array.isArray(right) ? right : [right]
  return [statesCondition(set.map(String), op === '!=')]
}

/** A list of conntrack states: in which no packet of a working connection is, the first of each, or others. */
export function statesCondition(states: readonly string[], negated: boolean): ForeignCondition {
  const lower = states.map((state) => state.toLowerCase())
  if (!negated && lower.every((state) => broken.has(state))) return { kind: 'broken' }
  if (lower.includes('new') !== negated) return { kind: 'new' }
  // Packets that are not tracked, or translated ones (of iptables), may be the first.
  return negated || lower.every((state) => later.has(state)) ? { kind: 'other', isFirst: false } : { kind: 'other' }
}

/** iptables matches that name neither addresses nor devices. */
const broadExtensions = new Set(['conntrack', 'state', 'addrtype', 'policy'])

/**
 * An iptables match, which nft can't express in JSON; of conntrack, nft's text has the states, if its version can
 * translate them.
 */
function extensionCondition(name: string, text: string): readonly ForeignCondition[] {
  if (name === 'comment') return []
  const states = [...text.matchAll(/\bct (\w+) ([a-z,]+)/g)]
  const [only, ...more] = states
  if (name === 'conntrack' && only?.[1] === 'state' && more.length === 0)
    return [statesCondition((only[2] ?? '').split(','), false)]
  return broadExtensions.has(name) ? other : deliberate
}

/** What Weft's rules are: an accept for one or two addresses, or the call of an administrator's chain. */
function ownPart(statements: readonly NftJson[]): Pick<ForeignRule, 'ours' | 'oursTo'> {
  const parts = statements.filter((statement) => !('counter' in statement))
  const [first, ...rest] = parts
  if (first !== undefined && rest.length === 0 && isRecord(first.jump)) return { oursTo: String(first.jump.target) }
  const last = parts.at(-1)
  if (last === undefined || !('accept' in last || 'return' in last)) return {}
  const ours = acceptOf(parts.slice(0, -1).map(({ match }) => addressOf(match)))
  return ours === undefined ? {} : { ours: 'return' in last ? { ...ours, verdict: 'return' } : ours }
}

type AddressMatch = Omit<OurAccept, 'verdict'>

/** An accept's form: the pod network as source, as destination, or as both. */
export function acceptOf(matches: readonly (AddressMatch | undefined)[]): AddressMatch | undefined {
  const [first, second, ...more] = matches
  if (first === undefined || more.length > 0) return undefined
  if (matches.length === 1) return first
  const isPair = second !== undefined && first.match !== second.match && samePrefix(first.prefix, second.prefix)
  return isPair ? { match: 'pair', prefix: first.prefix } : undefined
}

function addressOf(match: unknown): AddressMatch | undefined {
  if (!isRecord(match) || match.op !== '==' || !isRecord(match.left)) return undefined
  const { payload } = match.left
  const [prefix, ...more] = prefixesOf(match.right) ?? []
  if (!isRecord(payload) || prefix === undefined || more.length > 0) return undefined
  if (payload.field !== 'saddr' && payload.field !== 'daddr') return undefined
  return { match: payload.field === 'saddr' ? 'source' : 'destination', prefix }
}
