// `weftctl peers`: what probes found on the ways to each other node, the worst first.
import { readAnswer } from '../api/answers.ts'
import type { PeerAnswer, PeersAnswer, ProbeAnswer, ReportAnswer } from '../api/path-answers.ts'
import { columns, shortTime } from './columns.ts'
import type { Command } from './command.ts'

/** Lines about paths between other nodes: in a partition there are thousands. */
const MOST_REPORTED = 200

export const peers: Command = {
  about: 'whether packets get through to each other node, the worst first, with the cause and the cure',
  exits: '0 no packets of pods are lost, 1 some are',
  read(answer) {
    const { peers, reports } = readAnswer<PeersAnswer>(answer, { node: 'string', key: 'string', peers: 'array' })
    const isFine = peers.every(({ ways }) => ways.every((way) => way.way !== 'pods' || !isLost(way)))
    return { text: peers.length === 0 ? 'no other nodes\n' : peersText(peers, reports), exit: isFine ? 0 : 1 }
  }
}

/** Whether probes found that packets are lost. With `host-firewall` they arrive, and only echo is not answered. */
export const isLost = ({ verdict }: Pick<ProbeAnswer, 'verdict'>): boolean =>
  verdict !== 'whole' && verdict !== 'not-asked' && verdict !== 'host-firewall'

function peersText(peers: readonly PeerAnswer[], reports: readonly ReportAnswer[] | undefined): string {
  const heading = ['NODE', 'WAY', 'FAMILY', 'VERDICT', 'ROUND-TRIP', 'SINCE', 'ANSWERED']
  const rows = peers.flatMap((peer) =>
    peer.ways.map((way) => [
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
    peer.ways.filter(({ verdict }) => verdict !== 'whole').map((way) => noteText(nameOf(peer), way))
  )
  return [columns([heading, ...rows]), notes.join(''), reportsText(reports ?? [])]
    .filter((part) => part !== '')
    .join('\n')
}

function reportsText(reports: readonly ReportAnswer[]): string {
  const lines = reports.flatMap(({ key, node, bad }) =>
    bad.map((each) => `${node || key} reports ${each.key} (${each.way}, ${each.family}): ${each.verdict}\n`)
  )
  const more = lines.length - MOST_REPORTED
  return lines.slice(0, MOST_REPORTED).join('') + (more > 0 ? `and ${more} more reports; --json has all\n` : '')
}

/** Without a name, what `weftctl why node` accepts instead. */
export const nameOf = ({ node, publicIp, key }: Pick<PeerAnswer, 'node' | 'publicIp' | 'key'>): string =>
  node || publicIp[0] || key

const noteText = (name: string, { way, family, text, cure }: ProbeAnswer): string =>
  `${name} (${way}, ${family}): ${text}${cure === undefined ? '' : `. Cure: ${cure}`}\n`
