// Whether the kernel's tables of neighbours (ARP, neighbour discovery) are full: packets to nodes and pods on a link are
// lost then, whichever come last. All network namespaces of a host share the tables, and neighbours of more than a
// thousand nodes on one link do not fit the default (arp(7), gc_thresh3). Entries of a VXLAN device are permanent, and do
// not count.
import type { Health } from '../health/health.ts'

export type NeighbourTableDeps = {
  readonly health: Pick<Health, 'raise' | 'clear'>
  /** The text of a file below /proc/net/stat; `undefined`: there is none, as in a namespace that is not the first. */
  readonly stat: (name: string) => string | undefined
  /** The text of a file below /proc/sys. */
  readonly sysctl: (path: string) => string | undefined
  /** Milliseconds of a clock that never goes back. */
  readonly now: () => number
}

const TABLES = [
  { stat: 'arp_cache', family: 'IPv4', sysctl: 'net/ipv4/neigh/default' },
  { stat: 'ndisc_cache', family: 'IPv6', sysctl: 'net/ipv6/neigh/default' }
] as const
type Table = (typeof TABLES)[number]

/** Milliseconds since the last refusal until it counts as over. */
const OVER = 60_000
/** At least so many entries are advised: a /16 of nodes does not need more. */
const ENOUGH = 8_192

/** Of the kernel's default. */
const USUAL = 1_024

export class NeighbourTable {
  readonly #deps: NeighbourTableDeps
  readonly #refusals = new Map<Table, { readonly count: number; readonly lastAt: number | undefined }>()

  constructor(deps: NeighbourTableDeps) {
    this.#deps = deps
  }

  /** Looks at the kernel's counters. Raises or clears NEIGHBOUR_TABLE_FULL. */
  step(): void {
    const { health, stat, sysctl, now } = this.#deps
    for (const table of TABLES) {
      const count = refusals(stat(table.stat) ?? '')
      const before = this.#refusals.get(table)
      const isNew = before !== undefined && count > before.count
      this.#refusals.set(table, { count, lastAt: isNew ? now() : before?.lastAt })
    }
    const full = TABLES.find((table) => {
      const { lastAt } = this.#refusals.get(table) ?? {}
      return lastAt !== undefined && now() - lastAt < OVER
    })
    if (full === undefined) {
      health.clear('NEIGHBOUR_TABLE_FULL')
      return
    }
    const most = `${full.sysctl}/gc_thresh3`
    const limit = Number(sysctl(most) ?? USUAL)
    const advised = Math.max(ENOUGH, 4 * limit)
    health.raise(
      'NEIGHBOUR_TABLE_FULL',
      `${most} is ${limit}, and the kernel has no room for more ${full.family} neighbours: packets to other nodes and to pods are lost`,
      `run: sysctl -w ${full.sysctl}/gc_thresh2=${advised / 2} ${most}=${advised}, and set both in /etc/sysctl.d`
    )
  }
}

/**
 * How often the kernel had no room, of a file below /proc/net/stat: `table_fulls` of all processors, in hexadecimal
 * (neigh_stat_seq_show in net/core/neighbour.c).
 */
export function refusals(text: string): number {
  const [head = '', ...lines] = text.trim().split('\n')
  const column = head.trim().split(/\s+/).indexOf('table_fulls')
  if (column < 0) return 0
  return lines.reduce((sum, line) => sum + (Number.parseInt(line.trim().split(/\s+/)[column] ?? '', 16) || 0), 0)
}
