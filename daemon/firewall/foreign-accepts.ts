// Finds chains of other programs that drop pods' packets, and the accept rules to insert there. An accept in our own
// table can't undo such a drop.
import { type Family, formatPrefix, type PerFamily, type Prefix, perFamily } from '../../ipam/address.ts'
import { type Fate, type ForeignTable, fateIn, isPolicyTable } from '../state/foreign-chain.ts'
import type { ForeignAccept } from '../state/object.ts'
import { NFT_TABLE } from '../state/ownership.ts'

/** A chain of another program that drops pods' packets, for the condition FORWARD_DROPPED. */
export type ForeignDrop = {
  readonly table: ForeignTable
  /** The chain at hook forward that drops. */
  readonly chain: string
  /** The chain that gets the accept: the same, or DOCKER-USER. */
  readonly acceptChain: string
  readonly prefix: Prefix
  /** One sentence with the program, the chain and the rule. */
  readonly text: string
}

/**
 * Docker jumps to this chain first and does not change its rules (Docker's documentation, "Packet filtering and
 * firewalls").
 */
const DOCKER_USER = 'DOCKER-USER'

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
export function foreignDrops(tables: readonly ForeignTable[], cluster: PerFamily<Prefix>): readonly ForeignDrop[] {
  return tables.flatMap((table) => {
    if (isPolicyTable(table) || (table.table === NFT_TABLE && table.tool === 'nft')) return []
    const prefixes = perFamily(cluster).flatMap(([family, prefix]) =>
      families[table.family].includes(family) ? [prefix] : []
    )
    return [...table.chains.values()].flatMap((chain) =>
      chain.policy === undefined ? [] : prefixes.flatMap((prefix) => dropIn(table, chain.name, prefix))
    )
  })
}

function dropIn(table: ForeignTable, chain: string, prefix: Prefix): readonly ForeignDrop[] {
  const fate = fateIn(table, chain, prefix)
  if (fate.end !== 'drops') return []
  const rule = table.chains.get(chain)?.rules[fate.at]
  const by = rule === undefined ? 'its policy' : `"${rule.text}"`
  const text = `${programOf(table)}: chain ${table.family} ${table.table} ${chain} (${table.tool}) drops forwarded packets by ${by}`
  return [{ table, chain, acceptChain: acceptChainFor(table, chain, fate), prefix, text }]
}

/** DOCKER-USER when the chain jumps to it before it drops, with no rule in between that drops on purpose. */
function acceptChainFor(table: ForeignTable, chain: string, fate: Fate): string {
  const call = table.chains
    .get(chain)
    ?.rules.findIndex(({ branches }) =>
      branches.some(
        ({ conditions, verdict }) => conditions.length === 0 && verdict.kind === 'jump' && verdict.chain === DOCKER_USER
      )
    )
  return call !== undefined && call >= 0 && call <= fate.at && fate.after <= call + 1 ? DOCKER_USER : chain
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

/** The accepts against these drops: from and to each network, once per chain. */
export function foreignAccepts(drops: readonly ForeignDrop[]): readonly ForeignAccept[] {
  return drops.flatMap(({ table, acceptChain, prefix, text }) =>
    (['source', 'destination'] as const).map((match) => ({
      kind: 'accept' as const,
      tool: table.tool,
      family: table.family,
      table: table.table,
      chain: acceptChain,
      match,
      prefix,
      effective: true,
      because: text
    }))
  )
}

/** The reasons alone, each once: the detail of FORWARD_DROPPED; empty when nobody drops. */
export const dropReasons = (drops: readonly ForeignDrop[]): readonly string[] => [
  ...new Set(drops.map((drop) => drop.text))
]

/** The cure of FORWARD_DROPPED, with the networks and the chains. */
export function dropCure(drops: readonly ForeignDrop[]): string {
  const each = (name: (drop: ForeignDrop) => string) => [...new Set(drops.map(name))].join(' and ')
  const chains = each(({ table, chain }) => `${chain} (${table.tool}, ${table.family} ${table.table})`)
  return `no action needed unless pods can't reach each other; then allow ${each(({ prefix }) => formatPrefix(prefix))} in the chain ${chains}`
}
