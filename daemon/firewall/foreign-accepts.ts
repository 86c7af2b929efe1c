// Finds chains of other programs that drop pods' packets, and the accept rules to insert there. An accept in our own
// table can't undo such a drop.
import { type Family, formatPrefix, type PerFamily, type Prefix, perFamily } from '../../ipam/address.ts'
import { type ForeignRule, type ForeignTable, isPolicyTable, NO_SIDE, type PodSide } from '../state/foreign-chain.ts'
import { type Course, courseIn } from '../state/foreign-course.ts'
import { Verdicts } from '../state/foreign-verdict.ts'
import type { Place } from '../state/foreign-walk.ts'
import type { ForeignAccept } from '../state/object.ts'
import { NFT_TABLE } from '../state/ownership.ts'

/** A chain at hook forward of another program that drops pods' packets. */
export type ForeignDrop = {
  readonly table: ForeignTable
  readonly chain: string
  readonly prefix: Prefix
  /** The accepts that let pods' packets through, each with its chain. */
  readonly accepts: readonly Pick<ForeignAccept, 'match' | 'verdict' | 'chain'>[]
  /** One sentence with the program, the chain and the rule that drops. */
  readonly text: string
  /** The same, where no accept may be: the rule names pods, or one that must stay in force comes later. */
  readonly unanswered?: string
}

const families: Readonly<Record<ForeignTable['family'], readonly Family[]>> = {
  inet: [4, 6],
  ip: [4],
  ip6: [6],
  bridge: []
}

/**
 * Every chain at hook forward that drops packets from or to a network of the cluster. Those of policy engines drop on
 * purpose and are not changed.
 */
export function foreignDrops(
  tables: readonly ForeignTable[],
  cluster: PerFamily<Prefix>,
  side: PodSide = NO_SIDE
): readonly ForeignDrop[] {
  return tables.flatMap((table) => {
    if (isPolicyTable(table) || (table.table === NFT_TABLE && table.tool === 'nft')) return []
    const prefixes = perFamily(cluster).flatMap(([family, prefix]) =>
      families[table.family].includes(family) ? [prefix] : []
    )
    return [...table.chains.values()].flatMap((chain) =>
      chain.policy === undefined ? [] : prefixes.flatMap((prefix) => dropIn(table, chain.name, prefix, side))
    )
  })
}

function dropIn(table: ForeignTable, chain: string, prefix: Prefix, side: PodSide): readonly ForeignDrop[] {
  const course = courseIn(table, chain, prefix, side)
  const cutOff = cutOffIn(table, chain, course, prefix, side)
  const shown = course.firstDrop ?? cutOff
  if (shown === undefined) return []
  const accepts = course.inserts.flatMap(({ match, verdict, places }) => {
    const best = places.at(-1)
    return best === undefined ? [] : [{ match, chain: best.chain, ...(verdict && { verdict }) }]
  })
  const unanswered = unansweredIn(table, course, side) ?? cutOff
  const sentence = (place: Place): string => dropText(table, chain, place)
  return [
    {
      ...{ table, chain, prefix, accepts, text: sentence(shown) },
      ...(unanswered === undefined ? {} : { unanswered: sentence(unanswered) })
    }
  ]
}

/**
 * A drop that no packet between this host's pods and those of other nodes escapes, in one direction at least; where no
 * other node is known, a rule that drops all packets of pods by naming them.
 */
function cutOffIn(
  table: ForeignTable,
  chain: string,
  { inserts, cutOff }: Course,
  pods: Prefix,
  { local = [], remote = [] }: PodSide
): Place | undefined {
  if (local.length === 0 || remote.length === 0) return cutOff[0]
  const verdicts = new Verdicts(table, chain, inserts, pods)
  for (const here of local) {
    for (const there of remote) {
      const drop = verdicts.certainDrop({ in: there, out: here }) ?? verdicts.certainDrop({ in: here, out: there })
      if (drop !== undefined) return drop
    }
  }
  return undefined
}

function dropText(table: ForeignTable, chain: string, place: Place): string {
  const rule = ruleAt(table, place)
  const by = rule === undefined ? 'its policy' : `"${rule.text}"`
  return `${programOf(table)}: chain ${table.family} ${table.table} ${chain} (${table.tool}) drops forwarded packets by ${by}`
}

const ruleAt = ({ chains }: ForeignTable, { chain, index }: Place): ForeignRule | undefined =>
  chains.get(chain)?.rules[index]

/**
 * A narrowed rule matters only where other nodes' packets enter by a device that it names; see cutOffIn where the
 * devices to other nodes are known.
 */
function unansweredIn(
  table: ForeignTable,
  course: Course,
  { carriers, local = [], remote = [] }: PodSide
): Place | undefined {
  const { pair, source, destination } = course.unanswered
  const isMet = (place: Place): boolean =>
    ruleAt(table, place)?.branches.some(({ conditions }) =>
      conditions.every(
        (condition) =>
          condition.kind !== 'interface' ||
          condition.side !== 'in' ||
          condition.negated ||
          carriers === undefined ||
          condition.names.some((name) => carriers.includes(name))
      )
    ) ?? true
  const isKnown = local.length > 0 && remote.length > 0
  return source[0] ?? destination[0] ?? (isKnown ? undefined : pair.find(isMet))
}

const marks: readonly (readonly [string, RegExp])[] = [
  ['firewalld', /^(firewalld|filter_FORWARD|FORWARD_direct|FWD[IO]?_.*)$/],
  ['ufw', /^ufw6?-/],
  ['Docker', /^DOCKER(-|$)/],
  ['Podman', /^(NETAVARK|CNI-FORWARD)/],
  ['libvirt', /^(LIBVIRT_|libvirt_network$)/],
  ['LXD', /^(lxd|incus)$/]
]

/** The programs that the table probably belongs to; several share the iptables table. */
function programOf(table: ForeignTable): string {
  const names = [table.table, ...table.chains.keys()]
  const found = marks.filter(([, mark]) => names.some((name) => mark.test(name))).map(([program]) => program)
  return found.length === 0 ? 'another program or the administrator' : found.join(' or ')
}

/** The accepts against these drops, each once. */
export function foreignAccepts(drops: readonly ForeignDrop[]): readonly ForeignAccept[] {
  return drops.flatMap(({ table, accepts, prefix, text }) =>
    accepts.map(({ match, chain, verdict }) => ({
      kind: 'accept' as const,
      tool: table.tool,
      family: table.family,
      table: table.table,
      chain,
      match,
      prefix,
      ...(verdict && { verdict }),
      effective: true,
      because: text
    }))
  )
}

/** The reasons alone, each once, for the log; empty when nobody drops. */
export const dropReasons = (drops: readonly ForeignDrop[]): readonly string[] => [
  ...new Set(drops.map((drop) => drop.text))
]

/** The drops that stay in force although they cut pods off: the detail of FORWARD_DROPPED. */
export const unansweredReasons = (drops: readonly ForeignDrop[]): readonly string[] => [
  ...new Set(drops.flatMap(({ unanswered }) => unanswered ?? []))
]

/** The cure of FORWARD_DROPPED, with the networks and the chains. */
export function dropCure(drops: readonly ForeignDrop[]): string {
  const unanswered = drops.filter((drop) => drop.unanswered !== undefined)
  const open = unanswered.length > 0 ? unanswered : drops
  const each = (name: (drop: ForeignDrop) => string) => [...new Set(open.map(name))].join(' and ')
  const chains = each(({ table, chain }) => `${chain} (${table.tool}, ${table.family} ${table.table})`)
  return `weftd does not overrule this rule: if pods are to reach each other, accept ${each(({ prefix }) => formatPrefix(prefix))} before it in the chain ${chains}`
}
