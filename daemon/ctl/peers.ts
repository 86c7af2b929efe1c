// `weftctl peers`: what probes found on the paths to each other node, the worst first; or what every node of a cluster
// says of its peers.
import { readAnswer } from '../api/answers.ts'
import type { PeerAnswer, PeersAnswer, ProbeAnswer, ReportAnswer, ViewAnswer } from '../api/path-answers.ts'
import { columns, shortTime } from './columns.ts'
import type { Command } from './command.ts'

/** Lines about paths between other nodes: in a partition there are thousands. */
const MOST_REPORTED = 200

export const peers: Command = {
  about:
    'whether packets get through to each other node, the worst first, with the cause and the cure; "kubectl weft peers" asks every node',
  exits: '0 no packets of pods are lost, 1 some are',
  read(answer) {
    const found = readAnswer<PeersAnswer>(answer, { node: 'string', key: 'string', peers: 'array' })
    const { peers, views, unasked = [] } = found
    if (views !== undefined) return clusterView(views, unasked)
    const isFine = peers.every(({ ways }) => !ways.some(losesPods))
    return { text: peers.length === 0 ? 'no other nodes\n' : peersText(found), exit: isFine ? 0 : 1 }
  }
}

/** Whether probes found that packets are lost. With `host-firewall` they arrive, and only echo is not answered. */
export const isLost = ({ verdict }: Pick<ProbeAnswer, 'verdict'>): boolean =>
  verdict !== 'whole' && verdict !== 'not-asked' && verdict !== 'host-firewall'

const losesPods = (way: ProbeAnswer): boolean => (way.way === 'pods' || way.way === 'translated') && isLost(way)

/**
 * The ways of pods that lose packets; where small ones are lost that are not translated, between the nodes as well. A
 * plain route may be closed.
 */
export function brokenWays(ways: readonly ProbeAnswer[]): readonly ProbeAnswer[] {
  const isBroken = ({ verdict }: ProbeAnswer) => verdict !== 'whole' && verdict !== 'not-asked'
  const broken = ways.filter((each) => each.way !== 'plain' && isBroken(each))
  return broken.some(({ way }) => way === 'pods') ? broken : broken.filter(({ way }) => way === 'translated')
}

/** Lines of a cluster's view. */
const MOST_LINES = 200

function clusterView(
  views: readonly ViewAnswer[],
  unasked: NonNullable<PeersAnswer['unasked']>
): { readonly text: string; readonly exit: 0 | 1 } {
  const found = views.flatMap((view) =>
    view.broken.flatMap((peer) => peer.ways.map((way) => ({ from: view.node || view.key, to: nameOf(peer), way })))
  )
  const counts = views.map(({ node, key, whole, notAsked, broken }) =>
    [node || key, whole + notAsked + broken.length, whole, notAsked, broken.length].map(String)
  )
  const shown = found.slice(0, MOST_LINES)
  const rows = shown.map(({ from, to, way }) => [from, to, way.way, way.family, way.verdict, shortTime(way.since)])
  const parts = [
    columns([['FROM', 'PEERS', 'WHOLE', 'NOT-ASKED', 'BROKEN'], ...counts]),
    rows.length === 0 ? '' : columns([['FROM', 'TO', 'PROBE', 'FAMILY', 'VERDICT', 'SINCE'], ...rows]),
    shown.map(({ from, to, way }) => noteText(`${from} to ${to}`, way)).join(''),
    found.length > shown.length ? `${found.length - shown.length} more: run weftctl peers on their nodes\n` : '',
    unasked.map(({ node, reason }) => `${node} was not asked: ${reason}\n`).join('')
  ]
  const isFine = unasked.length === 0 && !found.some(({ way }) => losesPods(way))
  return { text: parts.filter((part) => part !== '').join('\n'), exit: isFine ? 0 : 1 }
}

function peersText({ node: own, peers, reports }: PeersAnswer): string {
  const heading = ['NODE', 'PROBE', 'FAMILY', 'VERDICT', 'ROUND-TRIP', 'SINCE', 'ANSWERED']
  const rows = peers.flatMap((peer) =>
    peer.ways
      .filter(isListed)
      .map((way) => [
        nameOf(peer),
        way.way,
        way.family,
        way.verdict,
        way.roundTripUs === undefined ? '' : `${(way.roundTripUs / 1_000).toFixed(2)}ms`,
        shortTime(way.since),
        way.answeredAt === undefined ? '' : shortTime(way.answeredAt)
      ])
  )
  const notes = peers.flatMap((peer) =>
    peer.ways.filter((way) => isListed(way) && way.verdict !== 'whole').map((way) => noteText(nameOf(peer), way))
  )
  const others = reports === undefined ? aloneText(own) : reportsText(reports)
  return [columns([heading, ...rows]), notes.join('') + translatedText(peers), others]
    .filter((part) => part !== '')
    .join('\n')
}

/** Of translated packets only what was found has a line for each peer: they are sent once a day. */
const isListed = ({ way, verdict }: ProbeAnswer): boolean => way !== 'translated' || verdict !== 'not-asked'

/** How many nodes were not asked, by the reason. */
function translatedText(peers: readonly PeerAnswer[]): string {
  const counts = new Map<string, number>()
  for (const { ways } of peers)
    for (const way of ways) if (!isListed(way)) counts.set(reasonIn(way), (counts.get(reasonIn(way)) ?? 0) + 1)
  return [...counts].map(([reason, count]) => `${count} of ${peers.length} (translated): ${reason}\n`).join('')
}

/** Without the address that was asked. */
const reasonIn = ({ text }: ProbeAnswer): string => text.replace(/(?<=UDP port \d+) of \S+/, '')

const aloneText = (own: string): string =>
  `Only ${own || 'this node'} was asked. Run weftctl peers on the other nodes, too; in Kubernetes, "kubectl weft peers" asks every node.\n`

function reportsText(reports: readonly ReportAnswer[]): string {
  const lines = reports.flatMap(reportText)
  const more = lines.length - MOST_REPORTED
  return lines.slice(0, MOST_REPORTED).join('') + (more > 0 ? `and ${more} more reports; --json has all\n` : '')
}

const reportText = ({ key, node, bad }: ReportAnswer): readonly string[] =>
  bad.map((each) => `${node || key} reports ${each.key} (${each.way}, ${each.family}): ${each.verdict}\n`)

/** Without a name, what `weftctl why node` accepts instead. */
export const nameOf = ({ node, publicIp, key }: Pick<PeerAnswer, 'node' | 'publicIp' | 'key'>): string =>
  node || publicIp[0] || key

const noteText = (name: string, { way, family, text, cure }: ProbeAnswer): string =>
  `${name} (${way}, ${family}): ${text}${cure === undefined ? '' : `. Cure: ${cure}`}\n`
