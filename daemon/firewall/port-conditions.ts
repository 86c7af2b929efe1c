// Conditional host ports (`conditionsV4` and `conditionsV6` of portmap): separate maps and lookup chains for each list
// of conditions.
//
// Containers of one network share a list, so a port costs no more than one without conditions. The names of maps and
// chains contain the list, from which a restarted weftd knows the rules.
import { contains, type Family, formatPrefix, network, type Prefix } from '../../ipam/address.ts'
import { prefixOf, prefixWord, protocol } from './match.ts'

/** Parsed by the plugin: source, destination, or incoming device; `name` may end in `*`. */
export type PortCondition =
  | { readonly kind: 'source' | 'destination'; readonly prefixes: readonly Prefix[]; readonly not?: true }
  | { readonly kind: 'device'; readonly name: string; readonly not?: true }

const words = { source: 'from', destination: 'to', device: 'by' } as const
const kinds = { from: 'source', to: 'destination', by: 'device' } as const

/** The ending of the names of maps and chains: `__not_to_c0000200_24`. Empty without conditions. */
export const endingOf = (conditions: readonly PortCondition[]): string =>
  conditions
    .map((condition) => `__${condition.not ? 'not_' : ''}${words[condition.kind]}_${valueWord(condition)}`)
    .join('')

const valueWord = (condition: PortCondition): string =>
  condition.kind === 'device'
    ? [...condition.name].map((letter) => letter.charCodeAt(0).toString(16).padStart(2, '0')).join('')
    : condition.prefixes.map((prefix) => prefixWord(network(prefix))).join('_or_')

/** The conditions of a map; `undefined` for one without conditions, and for other maps. */
export function conditionsOf(
  map: string
): { readonly family: Family; readonly conditions: readonly PortCondition[] } | undefined {
  const found = /^host_ports_(?:at_)?([46])((?:__(?:not_)?(?:from|to|by)_[0-9a-f_or]+)+)$/.exec(map)
  if (found === null) return undefined
  const family = Number(found[1]) as Family
  const conditions = (found[2] ?? '')
    .split('__')
    .slice(1)
    .map((word) => conditionIn(word, family))
  return conditions.every((each) => each !== undefined) ? { family, conditions } : undefined
}

function conditionIn(word: string, family: Family): PortCondition | undefined {
  const found = /^(not_)?(from|to|by)_(.*)$/.exec(word)
  if (found === null) return undefined
  const [kind, value = ''] = [kinds[found[2] as keyof typeof kinds], found[3]]
  const sense = found[1] === undefined ? {} : { not: true as const }
  if (kind === 'device') {
    const octets = value.match(/../g) ?? []
    return { kind, name: String.fromCharCode(...octets.map((octet) => Number.parseInt(octet, 16))), ...sense }
  }
  const prefixes = value.split('_or_').map((each) => prefixOf(each, family))
  return prefixes.every((each) => each !== undefined) ? { kind, prefixes, ...sense } : undefined
}

/** nft syntax for all conditions, each followed by a space. */
export const matchOf = (conditions: readonly PortCondition[]): string => conditions.map(matchOne).join('')

function matchOne(condition: PortCondition): string {
  const operator = condition.not ? '!= ' : ''
  if (condition.kind === 'device') return `iifname ${operator}"${condition.name}" `
  const { kind, prefixes } = condition
  // Of two overlapping prefixes one contains the other, and nft accepts only disjoint ones.
  const disjoint = prefixes.filter(
    (each, at) => !prefixes.some((other, n) => n !== at && contains(other, each) && !(contains(each, other) && n > at))
  )
  const side = kind === 'source' ? 'saddr' : 'daddr'
  const texts = disjoint.map((prefix) => formatPrefix(network(prefix)))
  return `${protocol(prefixes[0]?.ip.family ?? 4)} ${side} ${operator}${texts.length === 1 ? texts[0] : `{ ${texts.join(', ')} }`} `
}
