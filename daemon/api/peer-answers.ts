// The answer to `peers`: what probes found on the ways to each other node.
import { formatIp, formatPrefix, type PerFamily, perFamily } from '../../ipam/address.ts'
import { leaseKey } from '../lease/lease.ts'
import type { PeerView, WayView } from '../underlay/probe-views.ts'
import type { PeerAnswer, PeersAnswer, ProbeAnswer } from './path-answers.ts'
import type { QueryContext } from './query-context.ts'

export async function peersAnswer(context: QueryContext): Promise<PeersAnswer> {
  const { nodeName, probes } = context
  const own = context.place()?.node
  const reports = await probes.reports?.()
  // A store without names of nodes: they name themselves in their reports.
  const names = new Map(reports?.map(({ key, node: name }) => [key, name]))
  return {
    node: nodeName,
    key: own === undefined ? '' : leaseKey(own),
    peers: probes.views.all().map((view) => peerAnswer(view, names.get(view.key))),
    ...(reports !== undefined && { reports })
  }
}

const texts = <T>(values: PerFamily<T>, format: (value: T) => string): readonly string[] =>
  perFamily(values).map(([, value]) => format(value))

const peerAnswer = ({ key, lease, ways }: PeerView, name: string | undefined): PeerAnswer => ({
  key,
  node: lease.node ?? name ?? '',
  publicIp: texts(lease.publicIp, formatIp),
  subnet: texts(lease.subnet, formatPrefix),
  ways: ways.map(probeAnswer)
})

const iso = (ms: number): string => new Date(ms).toISOString()

export const probeAnswer = ({
  way,
  family,
  verdict,
  text,
  cure,
  roundTripUs,
  since,
  answeredAt
}: WayView): ProbeAnswer => ({
  way,
  family: family === 4 ? 'ipv4' : 'ipv6',
  verdict,
  text,
  ...(cure !== undefined && { cure }),
  ...(roundTripUs !== undefined && { roundTripUs }),
  since: iso(since),
  ...(answeredAt !== undefined && { answeredAt: iso(answeredAt) })
})
