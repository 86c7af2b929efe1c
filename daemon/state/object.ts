// The vocabulary of kernel state: plain records told apart by `kind`, interfaces by name, a family inside each address.
import { type Family, formatIp, formatPrefix, type Ip, network, type Prefix } from '../../ipam/address.ts'

/** A hardware address, six octets in lower-case hex with colons (IEEE 802). */
export type Mac = string & { readonly mac: true }

/** Reads a MAC in any letter case with `:` or `-`; `undefined` when it is not six octets. */
export function parseMac(text: string): Mac | undefined {
  const normal = text.toLowerCase().replaceAll('-', ':')
  return /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/.test(normal) ? (normal as Mac) : undefined
}

/** Why an object is wanted: the lease or attachment that asked, as a phrase. Never part of equality. */
type Wanted = { readonly because?: string }

/** What makes a link what it is. Fields here can only be given at creation: another value means delete and create. */
export type LinkForm =
  | {
      readonly type: 'vxlan'
      /** 24 bits, RFC 7348 section 5. */
      readonly vni: number
      /** UDP destination port; Linux defaults to 8472, IANA's is 4789. */
      readonly port: number
      /** Outer source address; its family is the tunnel's family. */
      readonly local: Ip
      /** Name of the link the outer packets leave by. */
      readonly parent: string
      readonly learning: boolean
      /** Group based policy extension: the SKB mark travels in the header. */
      readonly gbp: boolean
    }
  | { readonly type: 'bridge' }
  /** Takes packets from another device's ingress, so that a queue can hold them (`qdisc … redirect`). */
  | { readonly type: 'ifb' }
  | {
      readonly type: 'veth'
      /** Given when wanted; not read back. `sandbox` is the path of the namespace the other end is created in (absent: the same). */
      readonly peer?: { readonly name: string; readonly sandbox?: string; readonly mac?: Mac; readonly mtu?: number }
    }
  /** On another device, with a hardware address of its own. */
  | {
      readonly type: 'macvlan'
      readonly mode: MacvlanMode
      /** Name of that device, in the namespace from which it is made. Given when wanted; not read back. */
      readonly madeOn?: string
      /** Frames that may wait to be handed to all (IFLA_MACVLAN_BC_QUEUE_LEN). Given when wanted; not read back. */
      readonly broadcastQueue?: number
    }
  /** Anything we never create: `eth0`, `lo`, a bond. `of` is the kernel's IFLA_INFO_KIND, empty for physical devices. */
  | { readonly type: 'other'; readonly of: string }

export type MacvlanMode = 'bridge' | 'private' | 'vepa' | 'passthru'

export type Link = Wanted & {
  readonly kind: 'link'
  readonly name: string
  readonly form?: LinkForm
  /** Administrative state (IFF_UP). */
  readonly up?: boolean
  /** Operational carrier; only ever observed. */
  readonly carrier?: boolean
  /** Bytes of the largest network-layer packet. */
  readonly mtu?: number
  readonly mac?: Mac
  /** Name of the bridge this link is a port of. `''`: of none. */
  readonly master?: string
  /** Free text of at most 255 bytes that `ip link` prints as `alias`. */
  readonly alias?: string
  /** Link group (`ip link … group N`), by which many links are deleted at once. */
  readonly group?: number
  /** Bridge port flag: packets may leave by the port they came in. */
  readonly hairpin?: boolean
  /** Bridge port flag: it reaches no other port that is isolated too. */
  readonly isolated?: boolean
  /** It takes frames for every hardware address (IFF_PROMISC), because somebody set it so. */
  readonly promiscuous?: boolean
  /** It takes all multicast frames (IFF_ALLMULTI), because somebody set it so. */
  readonly allMulticast?: boolean
  /** Packets that may wait to be sent. */
  readonly queueLength?: number
  /** Whether the kernel gives it an IPv6 link-local address when it comes up, as it does unless told. Wanted, not compared. */
  readonly linkLocal?: boolean
  /** Kernel index; only ever observed, never wanted. */
  readonly index?: number
}

export type Address = Wanted & {
  readonly kind: 'address'
  readonly device: string
  /** The address with its prefix length; host bits are kept. */
  readonly prefix: Prefix
  /** rtnetlink scope: 0 global, 253 link, 254 host. */
  readonly scope?: number
  /** IPv6 only: skip duplicate address detection (IFA_F_NODAD), so the address works at once. Wanted, not compared. */
  readonly nodad?: boolean
  /** Do not create the route to the prefix (IFA_F_NOPREFIXROUTE). */
  readonly noPrefixRoute?: boolean
}

export type RouteType = 'unicast' | 'blackhole' | 'unreachable' | 'prohibit' | 'local' | 'other'

export type Route = Wanted & {
  readonly kind: 'route'
  /** Routing table number; 254 is main. */
  readonly table: number
  readonly destination: Prefix
  /** Priority; smaller wins. The kernel's default is 0 for IPv4 and 1024 for IPv6. */
  readonly metric: number
  readonly type: RouteType
  readonly device?: string
  readonly gateway?: Ip
  /** Preferred source address. */
  readonly source?: Ip
  /** The gateway counts as reachable on `device` although no prefix there holds it (RTNH_F_ONLINK). */
  readonly onlink?: boolean
  /** rtnetlink scope: 0 global, 253 link. */
  readonly scope?: number
  /** rtm_protocol: who made it. Ours is in ownership.ts. */
  readonly protocol: number
  readonly mtu?: number
  /** A route that is there under the same key stays: the kernel answers EEXIST then. Wanted, not compared. */
  readonly yields?: boolean
}

/** A permanent neighbour entry (ARP or ND): next hop → MAC. */
export type Neighbour = Wanted & {
  readonly kind: 'neighbour'
  readonly device: string
  readonly ip: Ip
  readonly mac: Mac
}

/**
 * The host answers neighbour solicitations for `ip` on this device, with its own MAC, where net.ipv6.conf.DEVICE.proxy_ndp is on. There is none without the
 * device: what is wanted on one that is not there waits for it (difference.ts).
 */
export type NeighbourProxy = Wanted & {
  readonly kind: 'proxy'
  readonly device: string
  readonly ip: Ip
  /** NDA_PROTOCOL: who made it, as for routes; 0 when nobody said. */
  readonly protocol: number
}

/** A permanent forwarding entry of a VXLAN device: inner MAC → outer destination (`bridge fdb … self permanent`). */
export type FdbEntry = Wanted & {
  readonly kind: 'fdb'
  readonly device: string
  readonly mac: Mac
  readonly destination: Ip
}

/** One file under /proc/sys, path with slashes and without the prefix, as `net/ipv4/ip_forward`. Values are compared as trimmed text. */
export type Sysctl = Wanted & { readonly kind: 'sysctl'; readonly path: string; readonly value: string }

export type NftFamily = 'inet' | 'ip' | 'ip6' | 'bridge'

/** A whole chain of a table of ours. Rules are nft text; each is stored with its digest as comment, by which it is recognised. */
export type NftChain = Wanted & {
  readonly kind: 'nft-chain'
  readonly family: NftFamily
  readonly table: string
  readonly chain: string
  /** For base chains, as nft writes it: `type nat hook postrouting priority srcnat`. */
  readonly hook?: string
  /** Rules without comment, in order. Not read back. */
  readonly rules?: readonly string[]
  /** One digest a rule, in order: what is compared. Made by `nftChain()`. */
  readonly digests: readonly string[]
}

/** A named set or map of a table of ours; `declaration` is nft text such as `type inet_proto . inet_service : ipv4_addr . inet_service`. */
export type NftSet = Wanted & {
  readonly kind: 'nft-set'
  readonly family: NftFamily
  readonly table: string
  readonly set: string
  readonly form: 'set' | 'map'
  readonly declaration?: string
}

/** One element of such a set or map, texts as nft prints them. `value` is for maps. */
export type NftElement = Wanted & {
  readonly kind: 'nft-element'
  readonly family: NftFamily
  readonly table: string
  readonly set: string
  readonly key: string
  readonly value?: string
  /** At most 127 bytes of ASCII; tells a restarted weftd whose the element is. */
  readonly comment?: string
}

/**
 * An accept for `prefix` at the head of a chain that belongs to another program and would drop pod packets.
 * `tool` says by what the chain was made and so must be changed: nft itself, or the iptables of either kind.
 */
export type ForeignAccept = Wanted & {
  readonly kind: 'accept'
  readonly tool: 'nft' | 'iptables-nft' | 'iptables-legacy'
  /** Table family for nft; `ip` or `ip6` for iptables. */
  readonly family: NftFamily
  readonly table: string
  readonly chain: string
  readonly match: 'source' | 'destination'
  readonly prefix: Prefix
  /** Whether it stands before every rule that could drop, and after what drops on purpose (foreign-chain.ts); wanted ones say `true`. */
  readonly effective?: boolean
}

/** How packets are held back at a device. */
export type Discipline =
  /** A token bucket (tc-tbf(8)) for what leaves the device. */
  | {
      readonly type: 'tbf'
      /** Bytes a second. */
      readonly rate: number
      /** Bytes that may leave at once. Not compared: the kernel tells it as a time in steps of 64 ns; `limit` contains it. */
      readonly burst: number
      /** Bytes of the queue, the burst included. */
      readonly limit: number
    }
  /** A token bucket for a part of what leaves the device (tc-htb(8)). `fingerprint` (division.ts) is compared; the rest only a dump tells. */
  | { readonly type: 'htb'; readonly fingerprint: number; readonly division?: Division }
  /** All that comes in leaves by another device first (tc-mirred(8)). */
  | { readonly type: 'redirect'; readonly to: string }
  /** Anything we never make. */
  | { readonly type: 'other'; readonly of: string }

/** Packets whose address on this side is in one of the prefixes are held back, or all others are; the rest passes at once. */
export type Division = {
  /** As of a token bucket. */
  readonly rate: number
  readonly burst: number
  readonly limit: number
  readonly side: 'source' | 'destination'
  readonly limits: 'these' | 'others'
  readonly subnets: readonly Prefix[]
}

/** A traffic control queueing discipline on a device. It goes with its device. */
export type Qdisc = Wanted & {
  readonly kind: 'qdisc'
  readonly device: string
  readonly parent: 'root' | 'ingress'
  readonly discipline: Discipline
}

export type KernelObject =
  | Link
  | Address
  | Route
  | Neighbour
  | NeighbourProxy
  | FdbEntry
  | Sysctl
  | NftChain
  | NftSet
  | NftElement
  | ForeignAccept
  | Qdisc

/** What the kernel itself indexes an object by, as text: `route 254 10.1.2.0/24 metric 0`. */
export type Key = string & { readonly identity: true }
export type State = ReadonlyMap<Key, KernelObject>

/** The name under which the kernel knows the object; two objects with one key can't exist side by side. */
export function keyOf(object: KernelObject): Key {
  return keyText(object) as Key
}

function keyText(object: KernelObject): string {
  switch (object.kind) {
    case 'link':
      return `link ${object.name}`
    case 'address':
      return `address ${formatPrefix(object.prefix)} dev ${object.device}`
    case 'route':
      return `route ${object.table} ${formatPrefix(network(object.destination))} metric ${object.metric}`
    case 'neighbour':
      return `neighbour ${formatIp(object.ip)} dev ${object.device}`
    case 'proxy':
      return `proxy ${formatIp(object.ip)} dev ${object.device}`
    case 'fdb':
      return `fdb ${object.mac} dev ${object.device}`
    case 'sysctl':
      return `sysctl ${object.path}`
    case 'nft-chain':
      return `nft chain ${object.family} ${object.table} ${object.chain}`
    case 'nft-set':
      return `nft ${object.form} ${object.family} ${object.table} ${object.set}`
    case 'nft-element':
      return `nft element ${object.family} ${object.table} ${object.set} ${object.key}`
    case 'accept':
      return `accept ${object.tool} ${object.family} ${object.table} ${object.chain} ${object.match} ${formatPrefix(object.prefix)}`
    case 'qdisc':
      return `qdisc ${object.device} ${object.parent}`
  }
}

/** A state from a list; of two objects with one key the later stays. */
export const stateOf = (objects: Iterable<KernelObject>): Map<Key, KernelObject> =>
  new Map([...objects].map((object) => [keyOf(object), object]))

/** The device an object hangs on: when it goes, the kernel drops the object without a word. */
export function deviceOf(object: KernelObject): string | undefined {
  return 'device' in object ? object.device : undefined
}

/** The metric the kernel uses where none is given. */
export const defaultMetric = (family: Family): number => (family === 4 ? 0 : 1024)

/** Fields that say why, or that the kernel does not give back: they never make a difference. */
const notCompared = new Set([
  'because',
  'nodad',
  'rules',
  'declaration',
  'carrier',
  'index',
  'peer',
  'linkLocal',
  'burst',
  'division',
  'yields',
  'madeOn',
  'broadcastQueue'
])

/** Whether the kernel's object is what is wanted. Fields that the wanted one leaves out are the kernel's choice. */
export const sameObject = (wanted: KernelObject, observed: KernelObject): boolean => agrees(wanted, observed)

function agrees(wanted: unknown, observed: unknown): boolean {
  if (wanted === observed || wanted === undefined) return true
  if (typeof wanted !== 'object' || typeof observed !== 'object' || wanted === null || observed === null) return false
  if (Array.isArray(wanted)) {
    return (
      Array.isArray(observed) &&
      wanted.length === observed.length &&
      wanted.every((item, at) => agrees(item, observed[at]))
    )
  }
  const [want, have] = [wanted as Record<string, unknown>, observed as Record<string, unknown>]
  for (const field in want) if (!notCompared.has(field) && !agrees(want[field], have[field])) return false
  return true
}

/** Names of the fields in which they differ, for the log line of a repair: `mtu`, `mac`, `form.vni`. */
export function differingFields(wanted: object, observed: object, prefix = ''): readonly string[] {
  return Object.entries(wanted).flatMap(([field, value]) => {
    const other = (observed as Record<string, unknown>)[field]
    if (notCompared.has(field) || agrees(value, other)) return []
    const nested = typeof value === 'object' && value !== null && !Array.isArray(value) && !('family' in value)
    return nested && typeof other === 'object' && other !== null
      ? differingFields(value, other, `${prefix}${field}.`)
      : [`${prefix}${field}`]
  })
}

export function linkNamed(state: State, name: string): Link | undefined {
  const link = state.get(`link ${name}` as Key)
  return link?.kind === 'link' ? link : undefined
}
