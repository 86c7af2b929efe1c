// An attachment: all that a plugin can request of a node, one value for every verb. daemon/attachment/objects.ts makes
// kernel objects of it.
import type { Ip, PerFamily, Prefix } from '../ipam/address.ts'

/** The bridge of pods where the configuration names none. */
export const DEFAULT_BRIDGE = 'cni0'

/** The reference's name for the chain of the administrator's rules. */
export const DEFAULT_ADMIN_CHAIN = 'CNI-ADMIN'

/** host-local's: a node that moves from flannel keeps its reservations. */
export const DEFAULT_DATA_DIR = '/var/lib/cni/networks'

/** One interface of one container in one network: what ADD makes, CHECK compares and DEL removes. */
export type Attachment = {
  /** Name of the CNI network; also a directory of reservations. */
  readonly network: string
  readonly containerId: string
  /** Name inside the container. */
  readonly ifname: string
  /** Path of the namespace as the runtime passed it; absent if a DEL does not know it. It may no longer exist. */
  readonly sandbox?: string
  /** CNI_NETNS_OVERRIDE: the namespace may be this host's own. */
  readonly mayBeOwnNamespace?: true
  /** The plugin's type. */
  readonly plugin: string
  readonly interface: Interface
  /**
   * Addresses from a pool of Weft's. Absent, like `ipamResult` and `delegate`: the interface gets no address (layer 2).
   */
  readonly ipam?: IpamConfig
  /** Addresses that are known already: written into the configuration, or what a delegate has answered. */
  readonly ipamResult?: IpamResult
  /** Type of a third party's IPAM plugin, which the executable runs; its answer becomes `ipamResult`. */
  readonly delegate?: string
  /** Independent of the node: its subnet, mode and MTU do not apply, and no lease is needed. */
  readonly isStandalone?: true
  /** From the configuration, and wins over the IPAM plugin's; absent: not configured. */
  readonly dns?: Dns
  /** The pod as the runtime names it. */
  readonly pod?: Pod
  /**
   * Whether packets that leave the pod network get this node's address; absent: as the node does (--ip-masq); for other
   * networks than the node's: no.
   */
  readonly masquerade?: boolean
  /** Ports of this host that lead to the container; absent: none. */
  readonly hostPorts?: readonly HostPort[]
  /** Limits to the interface's throughput; absent: none. */
  readonly bandwidth?: Bandwidth
  /**
   * For people: `pod default/web-1, eth0 in network cbr0 (container 0123456789ab)`. Part of every kernel object's
   * reason.
   */
  readonly because: string
}

export type VethAttachment = Attachment & { readonly interface: Veth }
export type MacvlanAttachment = Attachment & { readonly interface: Macvlan }
export type ChainedAttachment = Attachment & { readonly interface: Existing }

export type Interface = Loopback | Veth | Macvlan | AddressesOnly | Existing

/** No interface: another plugin requests addresses. */
export type AddressesOnly = { readonly kind: 'none' }

/** An interface that an earlier plugin of the chain has made. */
export type Existing = {
  readonly kind: 'existing'
  readonly tuning?: Tuning
  /** Addresses whose packets this host accepts at forwarding. */
  readonly forwards?: readonly Prefix[]
  /** The administrator's chain of iptables whose rules come before that accept. */
  readonly adminChain?: string
  /** The containers it can't reach: those on other isolated bridges, or also those on its own. */
  readonly isolatedFrom?: 'other bridges' | 'all'
  /** The plugin keeps the attachment's `hostPorts`. */
  readonly ports?: PortOptions
  /** The plugin keeps the attachment's `bandwidth`. */
  readonly limits?: true
}

/**
 * Which packets to the container get this host's address as their source: all, only those whose replies would not come
 * back otherwise (from the host's loopback, from containers behind the same device), or none.
 */
export type PortOptions = {
  readonly translates: 'all' | 'own' | 'nothing'
  /** All must match a packet of that family for its port to lead to the container; absent: any packet. */
  readonly conditions?: PerFamily<readonly PortCondition[]>
}

/**
 * On a packet to a host port: its source or destination (one of the prefixes), or the device it came in by; `name` may
 * end in `*`.
 */
export type PortCondition =
  | { readonly kind: 'source' | 'destination'; readonly prefixes: readonly Prefix[]; readonly not?: true }
  | { readonly kind: 'device'; readonly name: string; readonly not?: true }

/** Settings of the interface and sysctls of the container's network. */
export type Tuning = {
  /** Paths below /proc/sys, with slashes, in the order in which they are written. */
  readonly sysctls: readonly { readonly path: string; readonly value: string }[]
  readonly mac?: string
  readonly mtu?: number
  readonly promiscuous?: boolean
  readonly allMulticast?: boolean
  /** Length of the transmit queue in packets. */
  readonly queueLength?: number
  /** Directory in which the interface's old settings are kept until DEL. */
  readonly dataDir: string
}

/** `lo` of the container, whatever `ifname` is. */
export type Loopback = { readonly kind: 'loopback' }

export type Veth = {
  readonly kind: 'veth'
  /** Absent: the node's mode (an existing bridge keeps bridge mode). */
  readonly mode?: 'bridge' | 'routed'
  /** Name of the bridge, in bridge mode. */
  readonly bridge: string
  /** Bytes; absent: the node's. */
  readonly mtu?: number
  /** Lower case, colons; absent: derived from the address. */
  readonly mac?: string
  /**
   * Hairpin mode: frames may leave by the port they came in by, so that a pod reaches itself through its own service or
   * host port.
   */
  readonly isHairpin: boolean
  /** The bridge is promiscuous: it takes frames for every MAC address. */
  readonly isPromiscuous: boolean
  /** Port isolation: it reaches no other isolated port of the bridge. */
  readonly isIsolated?: true
  /** VLANs of its port of the bridge; absent: whatever VLAN the bridge puts its ports into. */
  readonly vlans?: BridgeVlans
  /** Only frames with the container's own MAC address are accepted from it. */
  readonly checksSource?: true
  /** The container's end stays down. */
  readonly staysDown?: true
  /**
   * The container's end stays in this host's namespace; the caller moves it, and sets addresses and routes from the
   * result.
   */
  readonly isHandedOver?: true
  /** The node is the default gateway of the families in use. */
  readonly isDefaultGateway: boolean
  /** The reference plugin whose result and routes it must have; absent: Weft's own. */
  readonly like?: LikeBridge | LikePtp
}

/** One VLAN, whose packets the container sees without a tag, or several, whose packets it sees with their tags. */
export type BridgeVlans = {
  readonly access?: number
  /** Ascending, without overlaps. */
  readonly trunk: readonly { readonly first: number; readonly last: number }[]
  /** The port stays in the bridge's default VLAN too. */
  readonly keepsDefault: boolean
}

/** A link of the container on top of a device, with its own MAC address. */
export type Macvlan = {
  readonly kind: 'macvlan'
  /** The device; absent: that of this host's default route. */
  readonly master?: string
  /** Whether that device is in the container. */
  readonly isMasterInside: boolean
  /** Which links on one device reach each other (ip-link(8), "macvlan"). */
  readonly mode: 'bridge' | 'private' | 'vepa' | 'passthru'
  /** Bytes; absent: the device's. */
  readonly mtu?: number
  /** Lower case, colons; absent: derived from the container's identity. */
  readonly mac?: string
  /** Length of the queue of broadcast and multicast frames; absent: the kernel's choice. */
  readonly broadcastQueue?: number
}

export type LikeBridge = {
  readonly kind: 'bridge'
  /** The bridge has the gateways' addresses. */
  readonly isGateway: boolean
  /** Conflicting addresses of the bridge are removed. */
  readonly forcesAddress: boolean
}

/** The pod's address has its subnet's length, and the subnet is routed via the gateway. */
export type LikePtp = { readonly kind: 'ptp' }

export type IpamConfig = {
  /** Directory of reservations in host-local's layout, with a directory for each network. */
  readonly dataDir: string
  /** Requested addresses, from all sources; each must be in a different range set. */
  readonly requested: readonly Ip[]
  /** Range sets: one address from each. Empty: the node's leased subnet. */
  readonly ranges: readonly (readonly AddressRange[])[]
  /** Without a gateway: by the gateway of the address of that family. */
  readonly routes: readonly InterfaceRoute[]
  /** Path of a resolv.conf(5) file from which ADD reads the result's DNS. */
  readonly resolvConf?: string
}

/** An address of an interface, with its subnet's length. */
export type InterfaceAddress = { readonly prefix: Prefix; readonly gateway?: Ip }

/** A route of an interface. */
export type InterfaceRoute = {
  readonly destination: Prefix
  readonly gateway?: Ip
  readonly mtu?: number
  readonly advmss?: number
  /** The kernel's metric. */
  readonly priority?: number
  readonly table?: number
  /** 0 global, 253 link, 254 host. */
  readonly scope?: number
}

/** As in resolv.conf(5). */
export type Dns = {
  readonly nameservers?: readonly string[]
  readonly domain?: string
  readonly search?: readonly string[]
  readonly options?: readonly string[]
}

export type IpamResult = {
  readonly addresses: readonly InterfaceAddress[]
  readonly routes: readonly InterfaceRoute[]
  readonly dns: Dns
}

/** As configured; ipam/pool.ts checks bounds, gateways and overlaps. */
export type AddressRange = {
  readonly subnet: Prefix
  readonly rangeStart?: Ip
  readonly rangeEnd?: Ip
  readonly gateway?: Ip
}

export type Pod = { readonly namespace: string; readonly name: string; readonly uid?: string }

export type HostPort = {
  readonly protocol: 'tcp' | 'udp' | 'sctp'
  readonly hostPort: number
  readonly containerPort: number
  /** The host's address. Absent: all of them; 0.0.0.0 or ::: all of that family. */
  readonly hostIp?: Ip
}

/** Directions as seen by the container; an absent one is not limited. */
export type Bandwidth = {
  readonly ingress?: RateLimit
  readonly egress?: RateLimit
  /** Only traffic with these prefixes is limited, or only other traffic. Absent: all traffic. */
  readonly only?: { readonly limits: 'these' | 'others'; readonly subnets: readonly Prefix[] }
}

/** Bits, as in CNI's conventions. */
export type RateLimit = { readonly rateBitsPerSecond: number; readonly burstBits: number }
