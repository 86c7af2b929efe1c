// What one weftd answered, without what the page does not show: `weftctl page --json` prints it on each node, and the
// page of a whole cluster is made from it.
import type { ChangesAnswer, LeaseAnswer, NodesAnswer, PodAnswer, PodsAnswer, StatusAnswer } from '../../api/answers.ts'
import type { PeersAnswer } from '../../api/path-answers.ts'

/** The questions, in the order in which they are asked. */
export const QUESTIONS = ['status', 'nodes', 'peers', 'changes', 'pods'] as const
export type Question = (typeof QUESTIONS)[number]

export type NodeFacts = {
  readonly status?: StatusAnswer
  readonly nodes?: { readonly leases: readonly LeaseFact[]; readonly listed?: boolean }
  readonly peers?: PeersAnswer
  readonly changes?: ChangesAnswer
  readonly pods?: { readonly pods: readonly PodFact[] }
  /** Questions without an answer, and why. */
  readonly unanswered: Readonly<Partial<Record<Question, string>>>
}

export type LeaseFact = Pick<
  LeaseAnswer,
  'key' | 'node' | 'isOwn' | 'subnet' | 'publicIp' | 'backend' | 'inKernel' | 'shadowed' | 'skipped'
>
export type PodFact = Pick<PodAnswer, 'pod' | 'addresses'>

/** One node of the cluster: its answers, or why there are none. */
export type Asked = {
  /** As kubectl names it; empty for the weftd of this machine. */
  readonly name: string
  readonly facts?: NodeFacts
  readonly failure?: string
}

/** A node's changes and pods beyond these are not sent. */
const MOST_CHANGES = 200
const MOST_PODS = 500

type Answers = {
  readonly status?: StatusAnswer
  readonly nodes?: NodesAnswer
  readonly peers?: PeersAnswer
  readonly changes?: ChangesAnswer
  readonly pods?: PodsAnswer
}

/** A path that is whole needs no sentence: of a cluster of 500 nodes they would be 100 MB. */
export function factsOf(answers: Answers, unanswered: NodeFacts['unanswered']): NodeFacts {
  const { status, nodes, peers, changes, pods } = answers
  return {
    ...(status && { status }),
    ...(nodes && { nodes: { leases: nodes.leases.map(leaseFact), listed: nodes.listed ?? true } }),
    ...(peers && { peers: { ...peers, peers: peers.peers.map(shortPeer) } }),
    ...(changes && { changes: { changes: changes.changes.slice(0, MOST_CHANGES) } }),
    ...(pods && { pods: { pods: pods.pods.slice(0, MOST_PODS).map(({ pod, addresses }) => ({ pod, addresses })) } }),
    unanswered
  }
}

const leaseFact = ({ reach: _, since: __, ...lease }: LeaseAnswer): LeaseFact => lease

const shortPeer = (peer: PeersAnswer['peers'][number]): PeersAnswer['peers'][number] => ({
  ...peer,
  ways: peer.ways.map((way) => (way.verdict === 'whole' ? { ...way, text: '' } : way))
})

/** The key of the lease of the node that answered; empty until it has one. */
export const ownKey = ({ peers, nodes }: NodeFacts): string =>
  peers?.key || (nodes?.leases.find(({ isOwn }) => isOwn)?.key ?? '')
