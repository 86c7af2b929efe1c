// Which chains of other programs drop pods' packets, and the accepts that must stand inside them. An accept in our own table can't undo such a drop.
import { type Family, type PerFamily, type Prefix, perFamily } from '../../ipam/address.ts'
import { type Fate, type ForeignTable, fateIn, isPolicyTable } from '../state/foreign-chain.ts'
import type { ForeignAccept } from '../state/object.ts'
import { NFT_TABLE } from '../state/ownership.ts'

/** One chain of another program that drops pods' packets, for doctor and the condition FORWARD_DROPPED. */
export type ForeignDrop = {
  readonly table: ForeignTable
  /** The chain at hook forward that drops. */
  readonly chain: string
  /** The chain that gets the accept: the same, or DOCKER-USER. */
  readonly answeredIn: string
  readonly prefix: Prefix
  /** A sentence: who drops what, where and by which rule. */
  readonly text: string
}

/** Docker calls this chain first and leaves what is in it alone (Docker's documentation, "Packet filtering and firewalls"). */
const DOCKER_USER = 'DOCKER-USER'

const families: Readonly<Record<ForeignTable['family'], readonly Family[]>> = {
  inet: [4, 6],
  ip: [4],
  ip6: [6],
  bridge: []
}

/** Every chain at hook forward that drops packets from or to a network of the cluster. Policy engines mean it and are left alone. */
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
  return [{ table, chain, answeredIn: answerChain(table, chain, fate), prefix, text }]
}

/** DOCKER-USER when the chain calls it before it drops, and nothing that drops on purpose stands between. */
function answerChain(table: ForeignTable, chain: string, fate: Fate): string {
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

/** Whose table it looks like; several share the iptables table. */
function programOf(table: ForeignTable): string {
  const names = [table.table, ...table.chains.keys()]
  const found = marks.filter(([, mark]) => names.some((name) => mark.test(name))).map(([program]) => program)
  return found.length === 0 ? 'another program or the administrator' : found.join(' or ')
}

/** The accepts that answer these drops: from and to each network, in each chain once. */
export function foreignAccepts(drops: readonly ForeignDrop[]): readonly ForeignAccept[] {
  return drops.flatMap(({ table, answeredIn, prefix, text }) =>
    (['source', 'destination'] as const).map((match) => ({
      kind: 'accept' as const,
      tool: table.tool,
      family: table.family,
      table: table.table,
      chain: answeredIn,
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
