// What any plugin can ask of a node: one readonly value, the same for every verb. daemon/attachment/objects.ts turns it into kernel objects.
import type { Ip, PerFamily, Prefix } from '../ipam/address.ts'

/** The bridge of pods where the configuration names none. */
export const DEFAULT_BRIDGE = 'cni0'
/** host-local's: a node that moves from flannel keeps its reservations. */
export const DEFAULT_DATA_DIR = '/var/lib/cni/networks'

/** One interface of one container in one network: what ADD makes, CHECK compares and DEL takes away. */
export type Attachment = {
  /** Name of the CNI network; also a folder of reservations. */
  readonly network: string
  readonly containerId: string
  /** Name inside the container. */
  readonly ifname: string
  /** Path of the namespace as the runtime gave it; absent when a DEL does not know it. It may be gone by then. */
  readonly sandbox?: string
  /** CNI_NETNS_OVERRIDE: the namespace may be this host's own. */
  readonly mayBeOwnNamespace?: true
  /** The plugin's type. */
  readonly plugin: string
  readonly interface: Interface
  /** Addresses from a pool of ours. Absent, like `ipamResult` and `delegate`: the interface gets no address (layer 2). */
  readonly ipam?: IpamConfig
  /** Addresses that are known already: written into the configuration, or what a delegate has answered. */
  readonly ipamResult?: IpamResult
  /** Type of a third party's IPAM plugin, which the executable runs; its answer becomes `ipamResult`. */
  readonly delegate?: string
  /** It can be had on a node without a lease: nothing of this node's subnet, mode or MTU counts for it. */
  readonly isStandalone?: true
  /** Given in the configuration, so it wins over what else is known; absent: nothing was given. */
  readonly dns?: Dns
  /** What the runtime says of the pod. */
  readonly pod?: Pod
  /** Whether what leaves the pod network gets this node's address; absent: as the node has it (--ip-masq), or not at all for a network that is not the node's. */
  readonly masquerade?: boolean
  /** Ports of this host that lead to the container; absent: none. */
  readonly hostPorts?: readonly HostPort[]
  /** Limits to the interface's throughput; absent: none. */
  readonly bandwidth?: Bandwidth
  /** For people: `pod default/web-1, eth0 in network cbr0 (container 0123456789ab)`. Part of every kernel object's reason. */
  readonly because: string
}

export type VethAttachment = Attachment & { readonly interface: Veth }
export type MacvlanAttachment = Attachment & { readonly interface: Macvlan }
export type ChainedAttachment = Attachment & { readonly interface: Existing }

export type Interface = Loopback | Veth | Macvlan | AddressesOnly | Existing

/** No interface at all: another plugin has asked for addresses. */
export type AddressesOnly = { readonly kind: 'none' }

/** An interface that an earlier plugin of the chain has made, and whose result is handed on. */
export type Existing = {
  readonly kind: 'existing'
  readonly tuning?: Tuning
  /** Addresses whose packets this host lets through. */
  readonly forwards?: readonly Prefix[]
  /** Whom the container is kept apart from: those behind other bridges of this kind, or also those on its own. */
  readonly apart?: 'from other bridges' | 'from all'
  /** The plugin keeps the attachment's `hostPorts`. */
  readonly ports?: PortWays
  /** The plugin keeps the attachment's `bandwidth`. */
  readonly limits?: true
}

/**
 * Whose packets reach the container with this host's address: everybody's, those for which the answer would not come back otherwise (from the host's
 * loopback, from containers behind the same device), or nobody's.
 */
export type PortWays = {
  readonly translates: 'all' | 'own' | 'nothing'
  /** What a packet of that family must be like, all of it, for its port to lead to the container; absent: anything. */
  readonly conditions?: PerFamily<readonly PortCondition[]>
}

/** About a packet that comes for a host port: whence (one of the prefixes), where to, or by which device; `name` may end in `*`. */
export type PortCondition =
  | { readonly kind: 'source' | 'destination'; readonly prefixes: readonly Prefix[]; readonly not?: true }
  | { readonly kind: 'device'; readonly name: string; readonly not?: true }

/** Settings of the interface and of the container's network. */
export type Tuning = {
  /** Paths below /proc/sys, with slashes, in the order in which they are written. */
  readonly sysctls: readonly { readonly path: string; readonly value: string }[]
  readonly mac?: string
  readonly mtu?: number
  readonly promiscuous?: boolean
  readonly allMulticast?: boolean
  /** Packets that may wait to be sent. */
  readonly queueLength?: number
  /** Folder in which the interface's old settings are kept until DEL. */
  readonly dataDir: string
}

/** `lo` of the container, whatever `ifname` says. */
export type Loopback = { readonly kind: 'loopback' }

export type Veth = {
  readonly kind: 'veth'
  /** Absent: as the node has it (an existing bridge keeps bridge mode). */
  readonly mode?: 'bridge' | 'routed'
  /** Name of the bridge, should the mode be `bridge`. */
  readonly bridge: string
  /** Bytes; absent: the node's. */
  readonly mtu?: number
  /** Lower case, colons; absent: the kernel's choice. */
  readonly mac?: string
  /** Frames may go back out of the port that they came in by: a pod reaches itself through its own service or host port. */
  readonly isHairpin: boolean
  /** The bridge takes frames for every hardware address, its own ports' included. */
  readonly isPromiscuous: boolean
  /** It reaches no other port of the bridge that is isolated too. */
  readonly isIsolated?: true
  /** Only frames with the container's own hardware address are taken from it. */
  readonly checksSource?: true
  /** The container's end stays down. */
  readonly staysDown?: true
  /** The container's end stays in this host's namespace; the caller moves it, and sets addresses and routes from the result. */
  readonly isHandedOver?: true
  /** Default routes of the families in use go to the node. */
  readonly isDefaultGateway: boolean
  /** The reference plugin whose result and routes it must have; absent: Weft's own ways. */
  readonly like?: LikeBridge | LikePtp
}

/** A link of the container's own on a device, with a hardware address of its own. */
export type Macvlan = {
  readonly kind: 'macvlan'
  /** The device; absent: that of this host's default route. */
  readonly master?: string
  /** Whether that device is in the container. */
  readonly isMasterInside: boolean
  /** Who hears whom among the links on one device (ip-link(8), "macvlan"). */
  readonly mode: 'bridge' | 'private' | 'vepa' | 'passthru'
  /** Bytes; absent: the device's. */
  readonly mtu?: number
  /** Lower case, colons; absent: from the container's name. */
  readonly mac?: string
  /** Frames that may wait to be handed to all; absent: the kernel's choice. */
  readonly broadcastQueue?: number
}

export type LikeBridge = {
  readonly kind: 'bridge'
  /** The bridge bears the gateways' addresses. */
  readonly isGateway: boolean
  /** Another IPv4 address of the bridge gives way. */
  readonly forcesAddress: boolean
}

/** The pod's address has its subnet's length, and the subnet is reached by the gateway. */
export type LikePtp = { readonly kind: 'ptp' }

export type IpamConfig = {
  /** Folder of reservations, in the layout of host-local; the network's name is a folder in it. */
  readonly dataDir: string
  /** Addresses asked for, from every source together; each must come from another range set. */
  readonly requested: readonly Ip[]
  /** Range sets: one address from each. Empty: the subnet that this node has leased. */
  readonly ranges: readonly (readonly AddressRange[])[]
  /** Without a gateway: by the gateway of the address of that family. */
  readonly routes: readonly InterfaceRoute[]
  /** A file of resolv.conf(5) from which the result's DNS is read at ADD. */
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

/** As it was configured: bounds, gateways and overlaps are judged by ipam/pool.ts. */
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
  /** The address of this host that it is reached by. Absent: every one; 0.0.0.0 or ::: every one of that family. */
  readonly hostIp?: Ip
}

/** Directions as the container sees them; one that is absent is not limited. */
export type Bandwidth = {
  readonly ingress?: RateLimit
  readonly egress?: RateLimit
  /** Only what is exchanged with these prefixes is limited, or only what is not. Absent: everything is. */
  readonly only?: { readonly limits: 'these' | 'others'; readonly subnets: readonly Prefix[] }
}

/** Bits, as in CNI's conventions. */
export type RateLimit = { readonly rateBitsPerSecond: number; readonly burstBits: number }
