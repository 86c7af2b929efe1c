// The matrix of paths between nodes, from the answers of weftds and from what nodes published in the store.
import {
  type PeersAnswer,
  type ProbeAnswer,
  type ReportAnswer,
  VERDICTS,
  type Verdict
} from '../../api/path-answers.ts'
import { type Asked, type NodeFacts, ownKey } from './facts.ts'
import { isBroken, markOf, PATH_STATES, type PathState, rankOf } from './marks.ts'
import type { BrokenView, MatrixView, NameView } from './view-types.ts'

/** Up to so many nodes every cell is shown: 40,000 cells are drawn in a fifth of a second. */
const MOST_NODES = 200
/** Broken paths that are listed with their sentence. */
const MOST_LISTED = 50

type Cell = { readonly state: PathState; readonly roundTripUs?: number }
type Row = {
  readonly cells: ReadonlyMap<string, Cell>
  /** Of peers that `cells` lacks. */
  readonly rest: PathState
  readonly broken: readonly BrokenView[]
}

/** Names of all nodes by lease key, sorted; without a name (etcd's leases have none) the public address. */
export function nodeNames(asked: readonly Asked[]): ReadonlyMap<string, string> {
  const [names, addresses] = [new Map<string, string>(), new Map<string, string>()]
  const reported = new Map<string, string>()
  for (const { name, facts } of asked) {
    if (facts === undefined) continue
    for (const { key, node, publicIp } of nodesIn(facts, name)) {
      if (!addresses.get(key)) addresses.set(key, publicIp[0] ?? '')
      if (node !== '') names.set(key, node)
    }
    for (const { key, node } of facts.peers?.reports ?? []) reported.set(key, node)
  }
  const named = [...addresses].map(
    ([key, address]) => [key, names.get(key) || reported.get(key) || address || key] as const
  )
  const byName = new Intl.Collator('en', { numeric: true })
  return new Map(named.sort(([, a], [, b]) => byName.compare(a, b)))
}

type Named = { readonly key: string; readonly node: string; readonly publicIp: readonly string[] }

/** What is skipped, for its backend or a conflict, is no node that this network's packets go to. */
function nodesIn(facts: NodeFacts, name: string): readonly Named[] {
  const own = { key: ownKey(facts), node: facts.peers?.node || facts.status?.node || name, publicIp: [] }
  const leases = (facts.nodes?.leases ?? []).filter(({ skipped }) => skipped === undefined)
  return [...(own.key === '' ? [] : [own]), ...leases, ...(facts.peers?.peers ?? [])]
}

export function matrixView(asked: readonly Asked[], mostNodes = MOST_NODES): MatrixView {
  const names = nodeNames(asked)
  const rows = rowsOf(asked, names)
  const broken = [...rows.values()].flatMap((row) => row.broken).sort(bySeverity)
  const all = [...names].map(([key, name]) => ({ key, name }))
  const { columns, kept, note } = rows.size === 0 ? nothing(asked) : shownOf(all, rows, mostNodes)
  return {
    legend: legendOf(rows, names.size),
    columns,
    rows: kept.map(({ key, name }) => ({ key, name, ...rowView(key, rows.get(key), columns) })),
    note,
    broken: broken.slice(0, MOST_LISTED),
    more: Math.max(0, broken.length - MOST_LISTED)
  }
}

const bySeverity = (a: BrokenView, b: BrokenView): number => order(a) - order(b)
const order = ({ mark }: BrokenView): number => Object.values(PATH_STATES).findIndex(({ word }) => word === mark.word)

function nothing(asked: readonly Asked[]): ReturnType<typeof shownOf> {
  const reason = asked.map(({ facts }) => facts?.unanswered.peers).find((each) => each !== undefined)
  const note =
    reason === undefined ? 'There is no node to show yet.' : `Whether packets arrive is not known: ${reason}.`
  return { columns: [], kept: [], note }
}

/** By the key of the node that sent the probes. */
function rowsOf(asked: readonly Asked[], names: ReadonlyMap<string, string>): ReadonlyMap<string, Row> {
  const rows = new Map<string, Row>()
  const reports = new Map<string, ReportAnswer>()
  for (const { facts } of asked) {
    const { peers } = facts ?? {}
    if (facts === undefined || peers === undefined) continue
    const key = ownKey(facts)
    if (key !== '') rows.set(key, answeredRow(key, peers, names))
    for (const report of peers.reports ?? []) {
      const known = reports.get(report.key)
      if (known === undefined || known.at < report.at) reports.set(report.key, report)
    }
  }
  for (const [key, report] of reports) if (!rows.has(key) && names.has(key)) rows.set(key, reportedRow(report, names))
  return rows
}

function answeredRow(from: string, { peers }: PeersAnswer, names: ReadonlyMap<string, string>): Row {
  const cells = new Map<string, Cell>()
  const broken: BrokenView[] = []
  for (const { key, ways } of peers) {
    const ofPods = ways.filter(({ way }) => way === 'pods').sort((a, b) => rankOf(stateOf(a)) - rankOf(stateOf(b)))
    const [worst] = ofPods
    const trips = ofPods.flatMap(({ roundTripUs }) => (roundTripUs === undefined ? [] : [roundTripUs]))
    cells.set(key, {
      state: worst === undefined ? 'not-asked' : stateOf(worst),
      ...(trips.length > 0 && { roundTripUs: Math.max(...trips) })
    })
    for (const probe of listed(ways)) broken.push(brokenView(from, key, probe, names))
  }
  return { cells, rest: 'unknown', broken }
}

/**
 * The broken paths of pods, and where there is one, whether the nodes themselves reach each other; and those on which
 * translated packets alone are lost. A plain route that is not in use and nodes that drop each other's pings are no fault.
 */
function listed<T extends Pick<ProbeAnswer, 'way' | 'verdict'>>(ways: readonly T[]): readonly T[] {
  const broken = ways.filter((probe) => probe.way !== 'plain' && isBroken(stateOf(probe)))
  return broken.some(({ way }) => way === 'pods') ? broken : broken.filter(({ way }) => way === 'translated')
}

/** A report has only what is not whole; whole is the rest only if every other node was asked and all had room. */
function reportedRow({ key: from, asked, bad, cut = false }: ReportAnswer, names: ReadonlyMap<string, string>): Row {
  const cells = new Map<string, Cell>()
  const name = names.get(from) ?? from
  const text = `${name} published this in the store`
  const cure = `run weftctl peers on ${name}, which says why and what to do`
  const byPeer = Map.groupBy(bad, ({ key }) => key)
  for (const each of bad.filter(({ way }) => way === 'pods')) {
    const state = stateOf(each)
    const known = cells.get(each.key)
    if (known === undefined || rankOf(state) < rankOf(known.state)) cells.set(each.key, { state })
  }
  const broken = [...byPeer].flatMap(([key, ways]) =>
    listed(ways).map((probe) => brokenView(from, key, { ...probe, text, cure }, names))
  )
  return { cells, rest: asked >= names.size - 1 && !cut ? 'whole' : 'unknown', broken }
}

/** A verdict of a later weftd is not known here. */
const stateOf = ({ verdict }: { readonly verdict: Verdict }): PathState =>
  VERDICTS.includes(verdict) ? verdict : 'unknown'

const WAYS: Readonly<Record<string, string>> = {
  pods: 'between pods',
  translated: 'between pods, source port translated',
  nodes: 'between node addresses'
}

function brokenView(
  from: string,
  to: string,
  probe: Pick<ProbeAnswer, 'way' | 'family' | 'verdict' | 'text' | 'cure' | 'since'>,
  names: ReadonlyMap<string, string>
): BrokenView {
  const { way, family, text, cure = '', since } = probe
  return {
    ...{ from, to, fromName: names.get(from) ?? from, toName: names.get(to) ?? to, mark: markOf(stateOf(probe)) },
    ...{ way: `${WAYS[way] ?? way}, ${family === 'ipv6' ? 'IPv6' : 'IPv4'}`, text, cure, since }
  }
}

const cellOf = (from: string, row: Row | undefined, to: string): Cell =>
  from === to ? { state: 'self' } : (row?.cells.get(to) ?? { state: row?.rest ?? 'unknown' })

function rowView(from: string, row: Row | undefined, columns: readonly NameView[]) {
  const cells = columns.map(({ key }) => cellOf(from, row, key))
  return {
    states: cells.map(({ state }) => PATH_STATES[state].letter).join(''),
    roundTrips: cells.map(({ roundTripUs }) => roundTripUs ?? null)
  }
}

/** All nodes, or of a large network the rows and columns with something wrong. */
function shownOf(
  all: readonly NameView[],
  rows: ReadonlyMap<string, Row>,
  most: number
): { readonly columns: readonly NameView[]; readonly kept: readonly NameView[]; readonly note: string } {
  if (all.length <= most) return { columns: all, kept: all, note: partial(all.length, rows) }
  const [from, to] = [new Map<string, number>(), new Map<string, number>()]
  for (const [key, { cells }] of rows)
    for (const [peer, { state }] of cells) {
      if (!isBroken(state)) continue
      from.set(key, (from.get(key) ?? 0) + 1)
      to.set(peer, (to.get(peer) ?? 0) + 1)
    }
  const worst = (counts: ReadonlyMap<string, number>): readonly NameView[] => {
    const keys = [...counts].sort(([, a], [, b]) => b - a).map(([key]) => key)
    const chosen = new Set(keys.slice(0, most))
    return all.filter(({ key }) => chosen.has(key))
  }
  const [kept, columns] = [worst(from), worst(to)]
  const left = `Of ${count(all.length)} nodes, only those with a broken path are shown: ${rest('row', kept, from)}, ${rest('column', columns, to)}.`
  const note = from.size === 0 ? `No broken path is known among ${count(all.length)} nodes.` : left
  return { columns, kept, note: [note, partial(all.length, rows)].filter(Boolean).join(' ') }
}

const count = (value: number): string => value.toLocaleString('en')

/** `3 rows`, `200 of 316 rows`. */
const rest = (what: string, shown: readonly unknown[], all: ReadonlyMap<string, number>): string =>
  `${shown.length < all.size ? `${shown.length} of ` : ''}${count(all.size)} ${what}${all.size === 1 ? '' : 's'}`

function partial(nodes: number, rows: ReadonlyMap<string, Row>): string {
  if (rows.size >= nodes) return ''
  return `Paths from ${count(nodes - rows.size)} of ${count(nodes)} nodes are not known here.`
}

/** How many paths are in each state, over all nodes, shown or not. */
function legendOf(rows: ReadonlyMap<string, Row>, nodes: number): MatrixView['legend'] {
  const counts = new Map<PathState, number>()
  const add = (state: PathState, more: number) => counts.set(state, (counts.get(state) ?? 0) + more)
  for (const { cells, rest } of rows.values()) {
    for (const { state } of cells.values()) add(state, 1)
    add(rest, Math.max(0, nodes - 1 - cells.size))
  }
  if (rows.size > 0) add('unknown', Math.max(0, nodes - rows.size) * Math.max(0, nodes - 1))
  const listed = (Object.keys(PATH_STATES) as PathState[]).filter((state) => (counts.get(state) ?? 0) > 0)
  const shown: readonly PathState[] = rows.size > 0 ? [...listed, 'self'] : []
  return Object.fromEntries(
    shown.map((state) => [PATH_STATES[state].letter, { ...markOf(state), count: counts.get(state) ?? 0 }])
  )
}
