// Parses other programs' nftables tables, made by nft or by iptables-nft, from libnftables-json(5) for
// state/foreign-chain.ts.
import { hostPrefix, type Prefix, parseIp, parsePrefix } from '../../../ipam/address.ts'
import type {
  ForeignBranch,
  ForeignChain,
  ForeignCondition,
  ForeignRule,
  ForeignTable,
  ForeignVerdict
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

function foreignRule(rule: NftJson, texts: ReadonlyMap<number, string>): ForeignRule {
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
    else if ('limit' in statement || 'quota' in statement || 'ct count' in statement)
      conditions.push({ kind: 'deliberate' })
    else if (verdict) branches.push({ conditions: [...conditions], verdict })
  }
  const ours = rule.comment === COMMENT ? acceptOf(statements) : undefined
  return { handle, branches, text, ...(ours === undefined ? {} : { ours }) }
}

function verdictOf(statement: NftJson): ForeignVerdict | undefined {
  const { jump, goto, xt } = statement
  if (isRecord(jump)) return { kind: 'jump', chain: String(jump.target) }
  if (isRecord(goto)) return { kind: 'goto', chain: String(goto.target) }
  if ('drop' in statement || 'reject' in statement) return { kind: 'drop' }
  if ('accept' in statement) return { kind: 'accept' }
  if ('return' in statement) return { kind: 'return' }
  if ('queue' in statement) return { kind: 'queue' }
  if (isRecord(xt) && xt.type === 'target') {
    if (xt.name === 'REJECT') return { kind: 'drop' }
    if (xt.name === 'NFQUEUE') return { kind: 'queue' }
  }
  return undefined
}

/** A verdict map: one branch for each element. The elements of a named map are not known, so it may drop anything. */
function mapBranches(vmap: NftJson): readonly ForeignBranch[] {
  const elements = isRecord(vmap.data) && Array.isArray(vmap.data.set) ? vmap.data.set : undefined
  if (elements === undefined) return [{ conditions: conditionOf(vmap.key, '==', ''), verdict: { kind: 'drop' } }]
  return elements.flatMap((element) => {
    if (!Array.isArray(element) || !isRecord(element[1])) return []
    const verdict = verdictOf(element[1])
    return verdict === undefined ? [] : [{ conditions: conditionOf(vmap.key, '==', element[0]), verdict }]
  })
}

const deliberate: readonly ForeignCondition[] = [{ kind: 'deliberate' }]
const other: readonly ForeignCondition[] = [{ kind: 'other' }]

/**
 * meta keys about a packet's origin, destination or protocol; the others (marks, users, time) are a deliberate choice.
 */
const broadKeys = new Set([
  'iif',
  'oif',
  'iifname',
  'oifname',
  'iifgroup',
  'oifgroup',
  'iiftype',
  'oiftype',
  'iifkind',
  'oifkind',
  'ibrname',
  'obrname',
  'l4proto',
  'protocol',
  'pkttype',
  'length'
])

function conditionOf(left: unknown, op: string, right: unknown): readonly ForeignCondition[] {
  if (!isRecord(left)) return other
  const { payload, meta, ct, '&': masked } = left
  if (Array.isArray(masked))
    return isRecord(masked[0]) && isRecord(masked[0].payload) ? other : conditionOf(masked[0], op, right)
  if (isRecord(payload)) return payloadCondition(payload, op, right)
  if (isRecord(ct)) return stateCondition(ct, op, right)
  if (isRecord(meta)) {
    const key = String(meta.key)
    if (key === 'nfproto' && op === '==') return [{ kind: 'family', family: right === 'ipv6' ? 6 : 4 }]
    return broadKeys.has(key) || key === 'nfproto' ? other : deliberate
  }
  // Concatenations with ports, fib expressions, sets of both.
  return deliberate
}

function payloadCondition(payload: NftJson, op: string, right: unknown): readonly ForeignCondition[] {
  const { protocol, field } = payload
  if (protocol !== 'ip' && protocol !== 'ip6') return protocol === 'ether' ? other : deliberate
  const family = { kind: 'family', family: protocol === 'ip' ? 4 : 6 } as const
  if (field === 'protocol' || field === 'nexthdr') return [family, ...other]
  if (field !== 'saddr' && field !== 'daddr') return [family, ...deliberate]
  const prefixes = prefixesOf(right)
  // A named set is maintained deliberately.
  if (prefixes === undefined)
    return [family, ...(typeof right === 'string' && right.startsWith('@') ? deliberate : other)]
  return [family, { kind: 'address', prefixes, negated: op === '!=' }]
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
  // The smallest prefix around a range: if in doubt it overlaps.
  if (Array.isArray(range)) return coveringPrefix(prefixesOf(range[0])?.[0], prefixesOf(range[1])?.[0])
  if (!Array.isArray(set)) return undefined
  const each = set.map(prefixesOf)
  return each.includes(undefined) ? undefined : each.flatMap((prefixes) => prefixes ?? [])
}

function coveringPrefix(first: Prefix | undefined, last: Prefix | undefined): readonly Prefix[] | undefined {
  if (first === undefined || last === undefined) return undefined
  const differing = (first.ip.value ^ last.ip.value).toString(2)
  return [{ ip: first.ip, length: first.length - (differing === '0' ? 0 : differing.length) }]
}

/** conntrack states that packets of a working connection never have. */
const broken = new Set(['invalid', 'untracked'])

function stateCondition(ct: NftJson, op: string, right: unknown): readonly ForeignCondition[] {
  if (ct.key !== 'state') return ct.key === 'mark' || ct.key === 'label' ? deliberate : other
  const set = isRecord(right) && Array.isArray(right.set) ? right.set : Array.isArray(right) ? right : [right]
  return op !== '!=' && set.every((state) => broken.has(String(state))) ? deliberate : other
}

/** iptables matches that are not narrow: bridge ports, address types, policies. */
const broadExtensions = new Set(['conntrack', 'state', 'physdev', 'addrtype', 'policy'])

/**
 * An iptables match, which nft can't express in JSON; of conntrack, nft's text has the states, if its version can
 * translate them.
 */
function extensionCondition(name: string, text: string): readonly ForeignCondition[] {
  if (name === 'comment') return []
  const states = /\bct state (?!!)([a-z,]+)/.exec(text)?.[1]?.split(',')
  if (name === 'conntrack' && states?.every((state) => broken.has(state))) return deliberate
  return broadExtensions.has(name) ? other : deliberate
}

/** Exactly the form of Weft's accepts: one address match, perhaps a counter, accept. */
function acceptOf(statements: readonly NftJson[]): ForeignRule['ours'] {
  const [first, ...rest] = statements.filter((statement) => !('counter' in statement))
  const match = first?.match
  if (
    rest.length !== 1 ||
    rest[0]?.accept === undefined ||
    !isRecord(match) ||
    match.op !== '==' ||
    !isRecord(match.left)
  )
    return undefined
  const payload = match.left.payload
  const prefix = prefixesOf(match.right)?.[0]
  if (!isRecord(payload) || prefix === undefined) return undefined
  return { match: payload.field === 'saddr' ? 'source' : 'destination', prefix }
}
