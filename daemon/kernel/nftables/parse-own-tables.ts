// Parses Weft's nftables tables from libnftables-json(5) into chains, sets and elements.
import type { KernelObject, NftChain, NftElement, NftFamily, NftSet } from '../../state/object.ts'

/** First word of the comment of each of Weft's rules; the rule's digest follows. */
export const COMMENT = 'weft'

/** A JSON value as libnftables documents it; each function below checks what it needs. */
export type NftJson = { readonly [key: string]: unknown }

/** The entries of a listing, each a record with one key (`chain`, `rule` …). Errors: SyntaxError for invalid JSON. */
export function entriesOf(output: string): readonly NftJson[] {
  // Some versions print nothing for an empty ruleset.
  if (output.trim() === '') return []
  const list: unknown = (JSON.parse(output) as NftJson).nftables
  return Array.isArray(list) ? list.filter(isRecord) : []
}

export const isRecord = (value: unknown): value is NftJson =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** Named priorities, those of NAT at one hook only (nft(8), "Priority"); the bridge family is not used. */
const priorities: readonly (readonly [string, number, hook?: string])[] = [
  ['raw', -300],
  ['mangle', -150],
  ['dstnat', -100, 'prerouting'],
  ['filter', 0],
  ['security', 50],
  ['srcnat', 100, 'postrouting']
]

/** `srcnat`, `filter - 5`, `-200`: as nft prints a priority. */
function priorityText(priority: number, hook: string): string {
  const near = priorities.find(([, value, only = hook]) => only === hook && Math.abs(priority - value) <= 10)
  if (near === undefined) return String(priority)
  const [name, value] = near
  if (priority === value) return name
  return `${name} ${priority > value ? '+' : '-'} ${Math.abs(priority - value)}`
}

/**
 * A base chain's hook as nft prints it, the policy only when it is not accept; `undefined` for chains without a hook.
 */
function hookText(chain: NftJson): string | undefined {
  const { type, hook, prio, policy } = chain
  if (typeof hook !== 'string') return undefined
  const text = `type ${type} hook ${hook} priority ${priorityText(Number(prio), hook)}`
  return policy === undefined || policy === 'accept' ? text : `${text}; policy ${policy}`
}

/** What is compared of a rule: the digest in its comment; another program's rule is identified by its handle. */
function digestOf(rule: NftJson): string {
  const [mark, digest] = String(rule.comment ?? '').split(' ')
  return mark === COMMENT && digest !== undefined ? digest : `not ours (handle ${rule.handle})`
}

/** Chains, sets and elements of one listed table. */
export function tableObjects(entries: readonly NftJson[]): readonly KernelObject[] {
  const chains = new Map<string, NftChain & { readonly digests: string[] }>()
  const objects: KernelObject[] = []
  for (const { chain, rule, set, map } of entries) {
    if (isRecord(chain)) {
      const hook = hookText(chain)
      const name = String(chain.name)
      chains.set(name, {
        kind: 'nft-chain',
        ...placeOf(chain),
        chain: name,
        ...(hook === undefined ? {} : { hook }),
        digests: []
      })
    } else if (isRecord(rule)) chains.get(String(rule.chain))?.digests.push(digestOf(rule))
    else if (isRecord(set)) objects.push(...setObjects(set, 'set'))
    else if (isRecord(map)) objects.push(...setObjects(map, 'map'))
  }
  return [...chains.values(), ...objects]
}

const placeOf = (entry: NftJson): { readonly family: NftFamily; readonly table: string } => ({
  family: entry.family as NftFamily,
  table: String(entry.table)
})

function setObjects(set: NftJson, form: NftSet['form']): readonly KernelObject[] {
  const name = String(set.name)
  const place = placeOf(set)
  const keyTypes = typesOf(set.type)
  const valueTypes = typesOf(set.map)
  const elements = Array.isArray(set.elem) ? (set.elem as readonly unknown[]) : []
  return [
    { kind: 'nft-set', ...place, set: name, form },
    ...elements.map((element): NftElement => {
      const [key, value] = form === 'map' && Array.isArray(element) ? element : [element, undefined]
      const comment = isRecord(key) && isRecord(key.elem) ? key.elem.comment : undefined
      return {
        kind: 'nft-element',
        ...place,
        set: name,
        key: valueText(key, keyTypes),
        ...(value === undefined ? {} : { value: valueText(value, valueTypes) }),
        ...(typeof comment === 'string' ? { comment } : {})
      }
    })
  ]
}

/** `["inet_proto","inet_service"]` and `"ipv4_addr . inet_service"` alike. */
const typesOf = (type: unknown): readonly string[] =>
  Array.isArray(type) ? type.map(String) : String(type ?? '').split(' . ')

/** Without /etc/protocols, as in small container images, nft accepts names but prints numbers. */
const protocolNames: { readonly [number: string]: string } = { 6: 'tcp', 17: 'udp', 132: 'sctp' }

/** An element's key or value as nft prints it; types tell which words are in quotes. */
function valueText(value: unknown, types: readonly string[]): string {
  if (!isRecord(value)) {
    if (types[0] === 'ifname') return `"${value}"`
    return (types[0] === 'inet_proto' && protocolNames[String(value)]) || String(value)
  }
  const { elem, concat, prefix, range, jump, goto } = value
  if (isRecord(elem)) return valueText(elem.val, types)
  if (Array.isArray(concat)) return concat.map((part, at) => valueText(part, types.slice(at))).join(' . ')
  if (isRecord(prefix)) return `${prefix.addr}/${prefix.len}`
  if (Array.isArray(range)) return range.map((end) => valueText(end, types)).join('-')
  if (isRecord(jump)) return `jump ${jump.target}`
  if (isRecord(goto)) return `goto ${goto.target}`
  return Object.keys(value)[0] ?? ''
}
