// The interface of a backend: functions from this node, its configuration and a lease to kernel objects. One file and
// one line in registry.ts per backend.
import type { Ip, PerFamily, Prefix } from '../../ipam/address.ts'
import type { Json, JsonObject } from '../config/json.ts'
import type { ConditionCode } from '../health/conditions.ts'
import type { Lease } from '../lease/lease.ts'
import type { Feature } from '../state/feature.ts'
import type { RouteLookup } from '../state/kernel.ts'
import type { Node } from '../state/node.ts'
import type { KernelObject, Link, Route } from '../state/object.ts'
import type { Recognised } from '../state/ownership.ts'

/** A value in a lease that no two nodes may publish. */
export type Claim = {
  /**
   * The condition raised while several nodes publish it. A new kind of claim needs a row in health/conditions.ts, with
   * title and cure.
   */
  readonly code: ConditionCode
  /** Equal for equal claims of one code; names the family where each family has values of its own. */
  readonly key: string
  /** The value as messages show it. */
  readonly text: string
  /**
   * The node that claims it, so that two leases of one node, such as an old one that has not expired yet, are no
   * conflict.
   */
  readonly by: string
}

/** A device as `recognises` sees it. Without `form` only its name is known, as from an address or a route on it. */
export type Device = Pick<Link, 'name' | 'form'>

/** A value of this host that outlives restarts and never enters a lease, such as a private key. */
export type HostSecret = {
  /**
   * Absolute paths. The first file that holds a valid value is used; without one a new value is written to the first
   * path, readable by root only.
   */
  readonly files: readonly string[]
  /** The private half of a pair, 32 octets in base64: `node.publicKey` has the other. Absent: no pair. */
  readonly keyPair?: 'x25519'
  isValid(text: string): boolean
  /** A new value as one line of text. `random` returns that many random octets, `base64` is for what is no text. */
  make(random: (octets: number) => Uint8Array, base64: (octets: Uint8Array) => string): string
}

/**
 * The kernel's routes to the public addresses of a lease. A family is absent when the kernel has none, or was not asked
 * (`asksRoutes`).
 */
export type PeerRoutes = PerFamily<
  RouteLookup & {
    /** Whether a plain route to the peer's pods passes packets; absent: probes have not found out. */
    readonly passes?: boolean
  }
>

/** A key beside Type, as docs/configuration.md prints it. */
export type BackendKey = { readonly rule: string; readonly default: string; readonly meaning: string }

/** Where packets of other nodes enter this host by a tunnel that takes them from anyone. */
export type TunnelEntry = {
  /** What a rule matches their outer packets by, in nft's syntax, for both families. */
  readonly outer: string
  /** Tunnels of other programs may receive such packets as well: only pods may not send them. */
  readonly isShared?: true
  /** The inner packets come by this device. */
  readonly device: string
}

/** A port of this host on which the backend receives from other nodes; `key` configures it. */
export type BackendPort = { readonly protocol: 'tcp' | 'udp'; readonly port: number; readonly key: string }

/**
 * The outer UDP packets of a tunnel that keep the SKB mark of the packet in them: a firewall rule that matches by mark
 * alone translates both.
 */
export type MarkedOuter = {
  readonly port: number
  /** Octets from the beginning of the outer UDP header to that of the inner IP header. */
  readonly innerAt: number
}

/** One of several ways by which a backend's packets can go, with all that the kernel must have for it. */
export type DataPath = { readonly name: string; readonly features: readonly Feature[] }
/** A command line of the network configuration; `key` is its path there, as `Backend.SubnetAddCommand`. */
export type Command = { readonly key: string; readonly text: string }

/**
 * What the configuration has every node run. A backend only names the commands: daemon/commands/ runs them, where the
 * node's administrator allows it.
 */
export type Commands = {
  /** Before a lease is taken; what it prints on standard output becomes `node.printed`. */
  readonly beforeLease?: Command
  /** Once the lease is held. */
  readonly afterLease?: Command
  /** When weftd stops. */
  readonly shutdown?: Command
  /** For each lease that `peer` accepts, and when it has gone or changed. */
  readonly peerAdded?: Command
  readonly peerRemoved?: Command
  /** The standard input of the last two. */
  input(lease: Lease): string
}

export type Backend<Config> = {
  /** The name in `Backend.Type` and in every lease. */
  readonly type: string
  /** The keys that `config` reads, besides Type. */
  readonly keys: Readonly<Record<string, BackendKey>>
  /** Reads the backend's own keys. Errors: CONFIG_INVALID with path, value and rule. */
  config(keys: JsonObject): Config
  /** What the kernel must be able to make, whichever data path is taken. */
  features(config: Config): readonly Feature[]
  /**
   * Ways of which one is needed, the best first. The first whose features this kernel has is taken for as long as weftd
   * runs, and is `node.dataPath`; weftd joins the network once it has one. Absent: `features` are all that is needed, and
   * are reported while they are missing.
   */
  dataPaths?(config: Config): readonly DataPath[]
  /**
   * Whose device this is; `undefined` when this backend has nothing to do with it. Independent of the configuration: a
   * restarted weftd has none yet.
   */
  recognises(device: Device): Recognised | undefined
  /**
   * The device that flanneld makes for this backend, by name, and whether it stays when flanneld ends: what a node that
   * is moved loses. Absent where it makes none.
   */
  readonly flannelDevice?: { readonly name: RegExp; readonly outlivesFlanneld: boolean }
  /** Absent for a backend without one. `node.secret` has its value. */
  readonly secret?: HostSecret
  /** Absent for a backend without a port of its own. */
  ports?(config: Config): readonly BackendPort[]
  /**
   * Where only nodes may send, by the public addresses of their leases, and of the pod network only the addresses of
   * other nodes' pods inside. Absent for a backend that knows its senders, or has no tunnel.
   */
  entry?(node: Node, config: Config): TunnelEntry
  /**
   * Packets to addresses of the pod network that no lease has are answered as unreachable instead of following the default
   * route: flannel's route of this backend has the whole network. Absent: no.
   */
  readonly refusesRest?: true
  /** Absent for a backend without a tunnel of this kind. */
  markedOuter?(config: Config): MarkedOuter | undefined
  /**
   * The devices by which alone packets may go to pods of other nodes and come from them, since the backend encrypts;
   * absent for one that does not.
   */
  onlyBy?(node: Node, config: Config): readonly string[]
  /** Absent for a backend that needs none. */
  commands?(config: Config): Commands
  /**
   * Whether a lease of this type can be of a node that uses this configuration, by what it publishes; absent: any can.
   * While a configuration changes, it tells which nodes have changed.
   */
  serves?(lease: Lease, config: Config): boolean
  /** What no other node may publish too. */
  claims(lease: Lease): readonly Claim[]
  /**
   * Whether the backend data of the lease name one of `links`, the host's devices that a backend recognises. Finds our
   * lease after our address has changed.
   */
  namesOurDevice(lease: Lease, links: readonly Link[]): boolean
  /**
   * Whether `links` have the device of this lease's network, and it is not the one that the lease names: then the lease
   * is another node's, whatever address it publishes.
   */
  namesAnotherDevice(lease: Lease, links: readonly Link[]): boolean
  /**
   * MTU in bytes for pods and subnet.env. Of the node's subnets only the families count. Errors: CONFIG_INVALID when
   * the link's MTU is below the configured one.
   */
  mtu(node: Node, config: Config): number
  /**
   * Largest packet between two nodes that carries a pod's packet, in bytes, encapsulation included. Errors as `mtu`.
   */
  underlayMtu(node: Node, config: Config): number
  /**
   * The backend data of our lease by tunnel family. What peers must keep seeing unchanged comes from `node.remembered`.
   */
  publish(node: Omit<Node, 'subnet'>, config: Config): PerFamily<Json>
  /** Our device and the objects on it, independent of other nodes. */
  own(node: Node, config: Config): readonly KernelObject[]
  /** The address that a node holds in this subnet of its own whether it has pods or not: probes go there. */
  held(subnet: Prefix): Ip
  /** Whether the nodes of other implementations hold it too, before their first pod. */
  readonly heldByAll: boolean
  /** Whether `peer` depends on the kernel's routes to the public addresses. Absent: no. */
  asksRoutes?(config: Config): boolean
  /**
   * The objects for one remote lease. Errors: LEASE_MALFORMED when its backend data can't be used; PEER_OFF_LINK when
   * the node can't be reached by this backend, whatever its lease says.
   */
  peer(lease: Lease, node: Node, config: Config, routes: PeerRoutes): readonly KernelObject[]
  /**
   * Routes by which probes try the plain way to a peer that `peer` reaches otherwise; none where it can't have one.
   * Absent for a backend or a configuration without a choice.
   */
  plain?(config: Config): ((lease: Lease, node: Node, routes: PeerRoutes) => readonly Route[]) | undefined
}

/** A backend whose configuration has been read. */
export type ConfiguredBackend = {
  readonly type: string
  readonly keys: Readonly<Record<string, BackendKey>>
  readonly features: readonly Feature[]
  /** Empty where there is no choice. */
  readonly dataPaths: readonly DataPath[]
  readonly secret?: HostSecret
  readonly ports: readonly BackendPort[]
  readonly entry?: (node: Node) => TunnelEntry
  readonly refusesRest?: true
  readonly markedOuter?: MarkedOuter
  readonly commands?: Commands
  mtu(node: Node): number
  underlayMtu(node: Node): number
  publish(node: Omit<Node, 'subnet'>): PerFamily<Json>
  own(node: Node): readonly KernelObject[]
  /** Whether the lease can be of a node that uses this configuration. */
  serves(lease: Lease): boolean
  /** `lease`: the other node's, which decides while two configurations are in use (mixed.ts). */
  held(subnet: Prefix, lease?: Lease): Ip
  readonly heldByAll: boolean
  readonly asksRoutes: boolean
  peer(lease: Lease, node: Node, routes?: PeerRoutes): readonly KernelObject[]
  readonly onlyBy?: (node: Node) => readonly string[]
  /** Absent where there is no choice between a tunnel and plain routes. */
  readonly plain?: (lease: Lease, node: Node, routes: PeerRoutes) => readonly Route[]
}
