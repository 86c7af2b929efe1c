// The answers of weftd to weftctl about paths: what probes found, the hops of one packet, the matrix of check; plain
// JSON, like those of answers.ts.

/**
 * What probes found on one way to a node. `out`: from this node to the peer. `large-lost`: small packets pass, packets
 * of the pods' full size do not. `host-firewall`: they reach the peer, and its own firewall drops them. `lost`: in which
 * direction is not known, since the peer sends no probes.
 */
export const VERDICTS = ['whole', 'out-lost', 'back-lost', 'lost', 'large-lost', 'host-firewall', 'not-asked'] as const
export type Verdict = (typeof VERDICTS)[number]

/**
 * `pods`: the way of pods' packets now. `plain`: the plain route to the peer's pods, where it is not used (yet).
 * `nodes`: from node address to node address. `translated`: as `pods`, by a UDP packet whose source port this node
 * translates.
 */
export type ProbedWay = 'pods' | 'plain' | 'nodes' | 'translated'

export type ProbeAnswer = {
  readonly way: ProbedWay
  readonly family: 'ipv4' | 'ipv6'
  readonly verdict: Verdict
  /** One sentence with peer, direction, port and size; of `not-asked` the reason. */
  readonly text: string
  /** One action; absent where nothing is wrong. */
  readonly cure?: string
  /** Microseconds, of the last small probe that was answered. */
  readonly roundTripUs?: number
  /** ISO 8601: of the first look that gave this verdict. */
  readonly since: string
  /** ISO 8601: of the last answer. */
  readonly answeredAt?: string
}

export type PeerAnswer = {
  /** As in the store: `10.244.1.0-24`. */
  readonly key: string
  /** Empty if the store has no node names (etcd). */
  readonly node: string
  readonly publicIp: readonly string[]
  readonly subnet: readonly string[]
  readonly ways: readonly ProbeAnswer[]
}

/** What another node published about its ways: all that are not whole. */
export type ReportAnswer = {
  /** The lease key of the node that reports. */
  readonly key: string
  readonly node: string
  /** ISO 8601. */
  readonly at: string
  /** How many peers it asked. */
  readonly asked: number
  readonly bad: readonly {
    /** The lease key of the peer. */
    readonly key: string
    readonly way: ProbedWay
    readonly family: 'ipv4' | 'ipv6'
    readonly verdict: Verdict
    readonly since: string
  }[]
  /** `bad` is full: of other peers nothing is known. */
  readonly cut?: boolean
}

/** The answer to `peers`: the worst first. */
export type PeersAnswer = {
  /** This node's name and its lease's key, empty until it has one. */
  readonly node: string
  readonly key: string
  readonly peers: readonly PeerAnswer[]
  /** Of the other nodes, where the store carries them; absent: only this node's view is known here. */
  readonly reports?: readonly ReportAnswer[]
  /** Only through kubectl, which asks every node: then `peers` above is empty. */
  readonly views?: readonly ViewAnswer[]
  /** Nodes that could not be asked, and names of which there is no node, with the reason. */
  readonly unasked?: readonly { readonly node: string; readonly reason: string }[]
}

/** What one node knows: how many peers it has, by the worst verdict on the pods' way, and those that are not whole. */
export type ViewAnswer = {
  readonly node: string
  readonly key: string
  readonly whole: number
  readonly notAsked: number
  readonly broken: readonly PeerAnswer[]
}

/** One hop of a packet's way, and whether it is as it must be. */
export type HopAnswer = {
  /** `pod`, `route`, `neighbour`, `firewall`, …: `HopName` in daemon/underlay/way-facts.ts lists them. */
  readonly at: string
  readonly state: 'whole' | 'wrong' | 'unknown'
  /** One sentence with the evidence. */
  readonly text: string
  /** One action; only of what is wrong. */
  readonly cure?: string
}

export type WayEndAnswer = {
  readonly kind: 'pod' | 'node' | 'host' | 'address'
  /** `namespace/name` of a pod, a node's name or the key of its lease; empty of the host and of an address. */
  readonly name: string
  /** Empty where the kernel chooses it. */
  readonly address: string
}

/** The way of a packet from this node: asked of the kernel hop by hop, and tried with one ICMP echo request. */
export type WayAnswer = {
  readonly from: WayEndAnswer
  readonly to: WayEndAnswer
  readonly hops: readonly HopAnswer[]
  /** The first hop that is wrong. */
  readonly first?: HopAnswer
  /** Microseconds until the answer; absent: none came. */
  readonly answeredUs?: number
  /** The way back, as the other node says; only through kubectl. */
  readonly back?: WayAnswer
  /** Why that node could not be asked. */
  readonly backUnknown?: string
}

/** The answer to `why address` and to `why … to …`. */
export type WhyWayAnswer = { readonly way: WayAnswer }

/** One way of `weftctl check`. */
export type CellAnswer = {
  /** The lease key of the node it leads to. */
  readonly key: string
  readonly node: string
  readonly state: 'whole' | 'wrong' | 'unknown'
  /** The hop where it fails, and its sentence; of a reported one the verdict. */
  readonly at?: string
  readonly text?: string
  readonly cure?: string
}

/** The ways from one node. */
export type RowAnswer = {
  readonly key: string
  readonly node: string
  /** `reported`: what that node published, and nothing was tried now. */
  readonly source: 'tried' | 'reported'
  readonly cells: readonly CellAnswer[]
}

/** The answer to `check`. */
export type CheckAnswer = {
  readonly node: string
  readonly key: string
  /** How many other nodes there are, and how many of them were sampled. */
  readonly nodes: number
  readonly sampled: number
  readonly rows: readonly RowAnswer[]
  /** Nodes that could not be asked, and names of which there is no node, with the reason. */
  readonly unasked?: readonly { readonly node: string; readonly reason: string }[]
}
