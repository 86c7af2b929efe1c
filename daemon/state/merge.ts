// What several owners want of one object, merged by field: two pods' bridge, portmap's hairpin flag on a pod's link.
import { samePrefix } from '../../ipam/address.ts'
import { differingFields, type KernelObject, type Link } from './object.ts'
import { mergeVlans } from './vlans.ts'
import { sortedPrefixes, type WgPeer } from './wireguard.ts'

/** Flags of a link that are on if one owner wants them: `false` says only that this owner does not need them. */
const FLAGS: ReadonlySet<string> = new Set(['hairpin', 'promiscuous', 'allMulticast', 'vlanFiltering'])

/**
 * Entries that say where another node is: the latest counts. A node that moved has a new lease while the old one lasts,
 * and two nodes with one MAC are a condition of their own (peers/conflicts.ts).
 */
const isLatestRight = ({ kind }: KernelObject): boolean => kind === 'fdb' || kind === 'neighbour'

/** All fields of both; where they contradict each other, those of `first`. */
export function merge(first: KernelObject, second: KernelObject): KernelObject {
  if (first.kind === 'vlans' && second.kind === 'vlans') return mergeVlans(first, second)
  if (first.kind === 'wg-peer' && second.kind === 'wg-peer') return mergePeers(first, second)
  return isLatestRight(second) ? second : (union(first, second) as KernelObject)
}

/** Fields in which `wanted` is not what was merged, such as `mac` or `discipline.rate`. */
export const contradictions = (wanted: KernelObject, merged: KernelObject): readonly string[] =>
  isLatestRight(wanted) || wanted.kind === 'wg-peer'
    ? []
    : differingFields(wanted, merged).filter((field) => !FLAGS.has(field))

/** A node with two leases, as after a change of its subnet: the addresses of both, and the rest as the latest says. */
function mergePeers(first: WgPeer, second: WgPeer): WgPeer {
  const others = first.allowedIps.filter((prefix) => !second.allowedIps.some((other) => samePrefix(prefix, other)))
  return others.length === 0 ? second : { ...second, allowedIps: sortedPrefixes([...others, ...second.allowedIps]) }
}

type Fields = Readonly<Record<string, unknown>>

function union(first: object, second: object): object {
  const [one, other] = [first as Fields, second as Fields]
  // Of another form all fields are different: none may be mixed in.
  if (one.type !== undefined && other.type !== undefined && one.type !== other.type) return first
  const added = Object.entries(other).flatMap(([field, value]): readonly (readonly [string, unknown])[] => {
    const known = one[field]
    if (known === undefined) return [[field, value]]
    if (FLAGS.has(field)) return value === true ? [[field, true]] : []
    return isRecord(known) && isRecord(value) ? [[field, union(known, value)]] : []
  })
  return added.every(([field, value]) => one[field] === value) ? first : { ...first, ...Object.fromEntries(added) }
}

const isRecord = (value: unknown): value is object =>
  typeof value === 'object' && value !== null && !Array.isArray(value) && !('family' in value)

/** The link without the fields that `set` has, so that all of them differ. */
export const without = (link: Link, set: Link): Link => ({
  ...(Object.fromEntries(Object.entries(link).filter(([field]) => !(field in set))) as Link),
  ...{ kind: 'link', name: link.name }
})
