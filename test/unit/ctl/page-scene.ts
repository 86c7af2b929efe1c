// Answers of made-up weftds for the tests of the page: as many nodes as wanted, all paths whole but those that are named.
import type { ChangeAnswer, StatusAnswer } from '../../../daemon/api/answers.ts'
import type { PeersAnswer, ProbeAnswer, ReportAnswer, Verdict } from '../../../daemon/api/path-answers.ts'
import type { NodeFacts } from '../../../daemon/ctl/page/facts.ts'

export const AT = '2026-01-31T12:00:00.000Z'

export const subnetOf = (n: number): string => `10.${244 + (n >> 8)}.${n & 255}.0/24`
export const keyOf = (n: number): string => subnetOf(n).replace('/', '-')
export const nameOf = (n: number): string => `node-${n}`
const addressOf = (n: number): string => `192.0.${2 + (n >> 8)}.${n & 255}`

export const statusOf = (n: number, over: Partial<StatusAnswer> = {}): StatusAnswer => ({
  ...{ version: '1.2.3', ready: true, startedAt: AT, node: nameOf(n), store: 'etcd', backend: 'vxlan' },
  ...{ network: ['10.244.0.0/14'], subnet: [subnetOf(n)], publicIp: [addressOf(n)], peers: 2, pods: 2, conditions: [] },
  ...{
    link: { name: 'eth0', mtuBytes: 1500, ips: [addressOf(n)] },
    podMtuBytes: 1450,
    leaseEnds: '2026-02-01T12:00:00.000Z',
    ...over
  }
})

const TEXTS: Readonly<Partial<Record<Verdict, readonly [text: string, cure: string]>>> = {
  'out-lost': ['packets of 64 bytes to UDP 8472 do not arrive; those from there do', 'open UDP 8472 on the other node'],
  'back-lost': ['packets to UDP 8472 arrive there; the answers do not come back', 'open UDP 8472 on this node'],
  lost: ['nothing is answered through UDP 8472 in either size', 'open UDP 8472 between the two nodes'],
  'large-lost': ['64 bytes pass, 1450 do not', 'set the MTU of eth0 to that of the path (1400), or correct the path'],
  'host-firewall': ['packets arrive, and the firewall there drops them', 'accept ICMP from 10.244.0.0/14 there'],
  'not-asked': ['its lease is 12 s old; it is asked from 30 s on', '']
}

export function probe(verdict: Verdict, over: Partial<ProbeAnswer> = {}): ProbeAnswer {
  const [text = '', cure = ''] = TEXTS[verdict] ?? []
  return {
    ...{ way: 'pods', family: 'ipv4', verdict, text, since: AT },
    ...(cure !== '' && { cure }),
    ...(verdict === 'whole' && { roundTripUs: 412, answeredAt: AT }),
    ...over
  }
}

/** Verdicts that are not whole, by the number of the peer. */
export type Bad = Readonly<Record<number, Verdict>>

export const peersOf = (n: number, nodes: number, bad: Bad = {}, reports?: readonly ReportAnswer[]): PeersAnswer => ({
  node: nameOf(n),
  key: keyOf(n),
  peers: numbers(nodes)
    .filter((peer) => peer !== n)
    .map((peer) => ({
      ...{ key: keyOf(peer), node: nameOf(peer), publicIp: [addressOf(peer)], subnet: [subnetOf(peer)] },
      ways: [probe(bad[peer] ?? 'whole', { roundTripUs: 300 + ((n * 7 + peer * 13) % 40) * 25 })]
    })),
  ...(reports && { reports })
})

export const numbers = (nodes: number): readonly number[] => Array.from({ length: nodes }, (_, at) => at + 1)

export const change = (over: Partial<ChangeAnswer> = {}): ChangeAnswer => ({
  ...{ at: AT, text: 'put back route 10.244.3.0/24 dev weft.1', culprit: 'NetworkManager (611)', tookMs: 3.1, ...over }
})

/** All that node `n` of so many answers. */
export const factsOf = (n: number, nodes: number, bad: Bad = {}, over: Partial<NodeFacts> = {}): NodeFacts => ({
  status: statusOf(n),
  nodes: {
    leases: numbers(nodes).map((each) => ({
      ...{ key: keyOf(each), node: nameOf(each), isOwn: each === n, subnet: [subnetOf(each)], inKernel: true },
      ...{ publicIp: [addressOf(each)], backend: 'vxlan' }
    }))
  },
  peers: peersOf(n, nodes, bad),
  changes: { changes: [] },
  pods: {
    pods: ['web-1', 'db-0'].map((pod, at) => ({
      pod: `shop/${pod}-${n}`,
      addresses: [subnetOf(n).replace('0/24', String(at + 2))]
    }))
  },
  unanswered: {},
  ...over
})
