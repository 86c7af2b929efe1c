// The interface to the kernel for `weftctl why`: questions about the way of one packet. Asked only when somebody asks
// weftctl; each is bounded, and none changes what happens to other packets. daemon/kernel/inspect.ts implements it.
import type { Family, Ip, Prefix } from '../../ipam/address.ts'
import type { Link, NftFamily, Route } from './object.ts'

/** A link as the kernel has it now. `netnsId`: the kernel's number of the namespace that a veth's other end is in. */
export type LinkNow = Link & { readonly netnsId?: number }

/** A packet that this host forwards: the device by which it comes, and its source. */
export type CameBy = { readonly device: string; readonly source: Ip }

/** `ip route get`, policy rules applied. */
export type RouteNow =
  | {
      readonly kind: 'found'
      /** The entry of the table. */
      readonly entry: Route
      /** What became of it: of several next hops, the one that is used. */
      readonly device?: string
      readonly gateway?: Ip
      /** Path MTU in bytes, where it is below the device's. */
      readonly mtu?: number
    }
  /** The kernel would not send the packet. `errno`: ENETUNREACH, EXDEV (reverse path filter), … */
  | { readonly kind: 'refused'; readonly errno: string }

/** A policy rule that sends no packet to a table: `ip rule add … blackhole`. */
export type RefusingRule = {
  readonly priority: number
  readonly action: 'blackhole' | 'unreachable' | 'prohibit'
  /** As `ip rule` prints it. */
  readonly text: string
  /** The packets that it is about; absent: all. */
  readonly source?: Prefix
  readonly destination?: Prefix
  readonly iif?: string
  readonly oif?: string
  /** Only packets with a mark. */
  readonly marked: boolean
}

/** A neighbour entry. `state` as `ip neigh` prints it. */
export type NeighbourNow = { readonly state: string; readonly mac?: string }

/** What a question found out that an older kernel cannot answer. */
export type Unanswered = 'unknown'

/** What a pod has in its own namespace. */
export type InsidePod = {
  readonly link?: Pick<Link, 'up' | 'carrier' | 'mtu'>
  readonly addresses: readonly Ip[]
  readonly route: RouteNow
}

/** One ICMP echo request of ours. */
export type Echo = {
  readonly destination: Ip
  /** Absent: the kernel's choice. */
  readonly source?: Ip
  /** File of the namespace that it is sent from; absent: the host's. */
  readonly namespace?: string
  /** UDP port of a VXLAN tunnel that may carry it. */
  readonly tunnelPort?: number
  /** A bridge is on its way, whose chains are traced as well. */
  readonly bridged?: boolean
}

/**
 * Which packet a trace is of: the request, the tunnel's packet that carries it, the reply, or the tunnel's packet that
 * carries the reply.
 */
export type Leg = 'out' | 'outer' | 'back' | 'outer-back'

/** Where a traced packet was seen, by chains of ours that drop nothing. */
export type Passed = {
  readonly leg: Leg
  readonly hook: 'prerouting' | 'input' | 'forward' | 'output' | 'postrouting'
  /** Before all other chains of the hook, or after them. */
  readonly side: 'before' | 'after'
  /** The device by which it leaves, at postrouting. */
  readonly device?: string
}

/** The verdict of another chain that ended the packet's way. */
export type Dropped = {
  readonly leg: Leg
  readonly family: NftFamily
  readonly table: string
  readonly chain: string
  /** The text of the rule; absent: the chain's policy. */
  readonly rule?: string
  readonly verdict: 'drop' | 'queue'
}

export type EchoOutcome = {
  /** Why it could not be sent: an errno's name, or a sentence. */
  readonly unsent?: string
  /** Microseconds until the answer. */
  readonly answeredUs?: number
  /** An ICMP error instead of an answer. */
  readonly refusal?: { readonly from: Ip; readonly text: string }
  /** Why there is no trace, if there is none. */
  readonly untraced?: string
  readonly passed: readonly Passed[]
  readonly dropped: readonly Dropped[]
}

export interface Inspection {
  /** `undefined`: the host has no such link. */
  link(name: string): Promise<LinkNow | undefined>
  /** The route that the kernel uses for packets to an address, its own or forwarded ones. */
  route(destination: Ip, from?: CameBy): Promise<RouteNow>
  /** Rules that refuse packets, in the kernel's order. */
  refusingRules(family: Family): Promise<readonly RefusingRule[]>
  neighbour(device: string, ip: Ip): Promise<NeighbourNow | Unanswered | undefined>
  /** Where a VXLAN device sends frames for a MAC. */
  forwarding(device: string, mac: string): Promise<Ip | Unanswered | undefined>
  /** A file below /proc/sys. */
  sysctl(path: string): string | undefined
  /** The tables of iptables-legacy that have rules, as `filter`: no trace shows them. */
  legacyTables(family: Family): Promise<readonly string[]>
  /** The file of the namespace that the other end of a link is in, where a runtime keeps one. */
  namespaceOf(link: LinkNow, known?: string): Promise<string | undefined>
  /** Errors: SANDBOX_GONE, SANDBOX_INVALID. */
  insidePod(namespace: string, device: string, destination: Ip): Promise<InsidePod>
  /** Sends all at once and waits a second at most; one outcome per request. Errors: weftd is stopping. */
  echo(echoes: readonly Echo[]): Promise<readonly EchoOutcome[]>
}
