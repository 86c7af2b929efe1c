// The facts about a packet's path that `weftctl why` judges: what follow-way.ts asked, hop by hop, and judge-way.ts reads.
import type { Family, Ip } from '../../ipam/address.ts'
import type {
  EchoOutcome,
  InsidePod,
  LinkNow,
  NeighbourNow,
  RefusingRule,
  RouteNow,
  Unanswered
} from '../state/inspection.ts'
import type { FdbEntry, Neighbour, Route } from '../state/object.ts'

/** A pod of this node. */
export type LocalPod = {
  readonly name: string
  readonly address: Ip
  /** Name inside the pod, and of the link on the host. */
  readonly ifname: string
  readonly link: string
  /** The namespace's file as the runtime named it. */
  readonly sandbox?: string
}

/** An address of another node's lease. */
export type Remote = {
  readonly key: string
  /** Empty if the store has no node names. */
  readonly node: string
  readonly address: Ip
  readonly publicIp?: Ip
  /** Why the lease is not used. */
  readonly skipped?: string
  /** An address that the node need not have: its bridge has it once it has pods on a bridge. */
  readonly isGuess?: true
}

export type From = { readonly kind: 'pod'; readonly pod: LocalPod } | { readonly kind: 'host' }
export type To =
  | { readonly kind: 'pod'; readonly pod: LocalPod }
  | { readonly kind: 'remote'; readonly remote: Remote }
  /** An address of this node itself. */
  | { readonly kind: 'own'; readonly address: Ip }
  /** Of no lease; `network`: the pod network as text where that contains it. `networks`: all of them. */
  | {
      readonly kind: 'elsewhere'
      readonly address: Ip
      readonly network?: string
      /** In this node's own subnet, where no pod has it. */
      readonly isOurs?: boolean
      /** The node whose public address it is. */
      readonly node?: string
      readonly networks: string
    }

export type LinkFact = { readonly name: string; readonly now: LinkNow | undefined }
export type SettingFact = { readonly path: string; readonly value: string | undefined }
export type NeighbourFact = {
  readonly device: string
  readonly ip: Ip
  readonly now: NeighbourNow | Unanswered | undefined
  /** What the lease asks for; absent where the kernel resolves it itself. */
  readonly wanted?: Neighbour
}
export type ForwardingFact = { readonly wanted: FdbEntry; readonly now: Ip | Unanswered | undefined }

/** What probes found on one way, of probe-views.ts. */
export type Probed = {
  readonly way: 'pods' | 'plain' | 'nodes' | 'translated'
  readonly family: Family
  readonly verdict: string
  readonly text: string
  readonly cure?: string
}

/** What the other node reports of its path here: what is not whole. */
export type PeerSaid = {
  readonly at: string
  readonly bad: readonly { readonly verdict: string; readonly text: string }[]
}

/**
 * What may be the cause when the kernel refuses a packet that it would forward. Since Linux 6.13 its answer is EINVAL
 * for all of them.
 */
export type Refusal = {
  readonly source: Ip
  /** The device by which the packet comes. */
  readonly device: string
  /** A policy rule that refuses it. */
  readonly rule?: RefusingRule
  /** The route that the host's own packets would take. */
  readonly own: RouteNow
  /** The route to the source, and the settings of the reverse path filter, which compares its device. */
  readonly reverse: RouteNow
  readonly filter: readonly SettingFact[]
}

export type WayFacts = {
  readonly from: From
  readonly to: To
  /** Bytes, for pods. */
  readonly mtu: number
  /** Of the sending and of the receiving pod; `undefined`: its namespace was not found. */
  readonly inside?: InsidePod
  readonly toInside?: InsidePod
  /** The pod's link on the host, and the bridge that it is a port of. */
  readonly podLinks: readonly LinkFact[]
  readonly toLinks: readonly LinkFact[]
  /** The device by which the host gets the pod's packets. */
  readonly cameBy?: string
  /** Settings that forwarding needs. */
  readonly forwarding: readonly SettingFact[]
  readonly route: RouteNow
  readonly refusal?: Refusal
  /** The lease's route; absent where none is wanted. */
  readonly wantedRoute?: Route
  /** Whether pod and pod are on one bridge: then the host's IP layer is not on the way. */
  readonly isBridged: boolean
  readonly out?: LinkFact
  readonly neighbour?: NeighbourFact
  readonly entry?: ForwardingFact
  /** Of a tunnel: the way of its own packets to the other node. */
  readonly underlay?: {
    readonly publicIp: Ip
    readonly port: number
    readonly overhead: number
    readonly route: RouteNow
    /** By which they leave; without a route the device that the tunnel is bound to. */
    readonly link?: LinkFact
    readonly neighbour?: NeighbourFact
  }
  /** The route of an answer that comes by the device by which the request left. */
  readonly back?: RouteNow
  readonly backRefusal?: Refusal
  readonly echo: EchoOutcome
  /** Tables of iptables-legacy with rules. */
  readonly legacy: readonly string[]
  /** Conditions about firewalls, as sentences: what is known without a trace. */
  readonly conditions: readonly string[]
  readonly probes?: readonly Probed[]
  readonly peer?: PeerSaid
}

/** Where on its path a packet is; names of `--json`. */
export type HopName =
  | 'ends'
  | 'pod'
  | 'pod-link'
  | 'settings'
  | 'route'
  | 'out-link'
  | 'neighbour'
  | 'forwarding-entry'
  | 'tunnel-link'
  | 'tunnel-route'
  | 'tunnel-neighbour'
  | 'to-link'
  | 'to-pod'
  | 'firewall'
  | 'back-route'
  | 'probe'
  | 'translated'
  | 'peer'
  | 'answer'

export type Hop = {
  readonly at: HopName
  readonly state: 'whole' | 'wrong' | 'unknown'
  /** One sentence with the evidence. */
  readonly text: string
  /** One action; only of what is wrong. */
  readonly cure?: string
}
