// The types of kernel state: plain records distinguished by `kind`; interfaces are named, addresses contain their
// family.
import { formatIp, formatPrefix, type Ip, isLinkLocal, network, type Prefix } from '../../ipam/address.ts'
import type { Discipline } from './discipline.ts'
import type { AdminCall, ForeignAccept, IptablesChain, NftChain, NftElement, NftSet } from './firewall-object.ts'
import type { FouPort, IpipForm } from './ip-tunnel.ts'
import type { Route } from './route.ts'
import { deviceOfSysctl } from './sysctl.ts'
import type { TunnelPeer, TunnelSocket } from './tunnel.ts'
import { differingVlans, type PortVlans, type VlanForm } from './vlans.ts'
import type { WgDevice, WgPeer } from './wireguard.ts'

export type { Discipline, Division } from './discipline.ts'
export type {
  AdminCall,
  ForeignAccept,
  IptablesChain,
  IptablesTool,
  NftChain,
  NftElement,
  NftFamily,
  NftSet
} from './firewall-object.ts'
export type { FouPort } from './ip-tunnel.ts'
export type { NextHop, Route, RouteType } from './route.ts'
export type { TunnelPeer, TunnelSocket } from './tunnel.ts'
export type { PortVlans } from './vlans.ts'
export type { WgDevice, WgPeer } from './wireguard.ts'

/** A hardware address, six octets in lower-case hex with colons (IEEE 802). */
export type Mac = string & { readonly mac: true }

/** Parses a MAC in any letter case with `:` or `-`; `undefined` if it is not six octets. */
export function parseMac(text: string): Mac | undefined {
  const normal = text.toLowerCase().replaceAll('-', ':')
  return /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/.test(normal) ? (normal as Mac) : undefined
}

/** Why an object is desired: the lease or attachment, as a phrase. Never part of equality. */
type Wanted = { readonly because?: string }

/**
 * The type of a link and its creation parameters. The kernel accepts them only at creation: another value means delete
 * and create.
 */
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
  | IpipForm
  | VlanForm
  /** Of the kernel, or a TUN device that wireguard-go serves. Keys and peers are objects of their own. */
  | { readonly type: 'wireguard' }
  /** Receives packets redirected from another device's ingress, so that they can be queued (`qdisc … redirect`). */
  | { readonly type: 'ifb' }
  | {
      readonly type: 'veth'
      /**
       * Only in desired links; not read back. `sandbox` is the path of the namespace the other end is created in
       * (absent: the same).
       */
      readonly peer?: { readonly name: string; readonly sandbox?: string; readonly mac?: Mac; readonly mtu?: number }
    }
  /** On another device, with its own MAC address. */
  | {
      readonly type: 'macvlan'
      readonly mode: MacvlanMode
      /**
       * Name of that device, in the namespace from which the macvlan is created. Only in desired links; not read back.
       */
      readonly madeOn?: string
      /** Broadcast queue length (IFLA_MACVLAN_BC_QUEUE_LEN). Only in desired links; not read back. */
      readonly broadcastQueue?: number
    }
  /** Stays while no process has it open, which flanneld's does not (`ip tuntap add mode tun`). */
  | { readonly type: 'tun' }
  /**
   * Anything that Weft never creates: `eth0`, `lo`, a bond. `of` is the kernel's IFLA_INFO_KIND, empty for physical
   * devices.
   */
  | { readonly type: 'other'; readonly of: string }

export type MacvlanMode = 'bridge' | 'private' | 'vepa' | 'passthru'

export type Link = Wanted & {
  readonly kind: 'link'
  readonly name: string
  readonly form?: LinkForm
  /** Administrative state (IFF_UP). */
  readonly up?: boolean
  /** Carrier; only observed. */
  readonly carrier?: boolean
  /** MTU in bytes. */
  readonly mtu?: number
  readonly mac?: Mac
  /** Name of the bridge this link is a port of. `''`: none. */
  readonly master?: string
  /** Free text of at most 255 bytes that `ip link` prints as `alias`. */
  readonly alias?: string
  /** Alternative names (`ip link property add altname`), as udev gives them; only observed, absent without any. */
  readonly altNames?: readonly string[]
  /** Link group (`ip link … group N`), used to delete many links at once. */
  readonly group?: number
  /** Bridge port flag: packets may leave by the port they came in. */
  readonly hairpin?: boolean
  /** Bridge port flag: no traffic to other isolated ports. */
  readonly isolated?: boolean
  /** The bridge keeps VLANs apart. */
  readonly vlanFiltering?: boolean
  /** Receives frames for every MAC address (IFF_PROMISC), set explicitly. */
  readonly promiscuous?: boolean
  /** Receives all multicast frames (IFF_ALLMULTI), set explicitly. */
  readonly allMulticast?: boolean
  /** Transmit queue length. */
  readonly queueLength?: number
  /** Whether the kernel adds an IPv6 link-local address when it comes up, which is the default. Set, not compared. */
  readonly linkLocal?: boolean
  /**
   * The device resolves no next hops: IFF_NOARP or IFF_POINTOPOINT, as of WireGuard, tun, ppp and IP tunnels. Only
   * observed; absent when false.
   */
  readonly pointToPoint?: true
  /** Kernel index; only observed, never desired. */
  readonly index?: number
  /** Of a veth, the index of its other end, which may be in another namespace; only observed. */
  readonly peerIndex?: number
}

export type Address = Wanted & {
  readonly kind: 'address'
  readonly device: string
  /** The address with its prefix length; host bits are kept. */
  readonly prefix: Prefix
  /** rtnetlink scope: 0 global, 253 link, 254 host. */
  readonly scope?: number
  /** IPv6 only: skip duplicate address detection (IFA_F_NODAD), so the address works at once. Set, not compared. */
  readonly nodad?: boolean
  /** Do not create the route to the prefix (IFA_F_NOPREFIXROUTE). */
  readonly noPrefixRoute?: boolean
  /** Only observed: preferred no longer (RFC 4862, 5.5.4), or not known to be unique (tentative, duplicate). */
  readonly deprecated?: boolean
  /** Only observed: a lifetime, as from DHCP or router advertisements. */
  readonly dynamic?: boolean
  /** Only observed. IPv4: in the prefix of an earlier address. IPv6: temporary (RFC 8981). */
  readonly secondary?: boolean
}

/** A permanent neighbour entry (ARP or ND): next hop → MAC. */
export type Neighbour = Wanted & {
  readonly kind: 'neighbour'
  readonly device: string
  readonly ip: Ip
  readonly mac: Mac
}

/**
 * The host answers neighbour solicitations for `ip` on this device, with its own MAC, if net.ipv6.conf.DEVICE.proxy_ndp
 * is on. It cannot exist without the device: a desired proxy waits until the device exists (difference.ts).
 */
export type NeighbourProxy = Wanted & {
  readonly kind: 'proxy'
  readonly device: string
  readonly ip: Ip
  /** NDA_PROTOCOL: who created it, as for routes; 0 if not set. */
  readonly protocol: number
}

/** A permanent forwarding entry of a VXLAN device: inner MAC → outer destination (`bridge fdb … self permanent`). */
export type FdbEntry = Wanted & {
  readonly kind: 'fdb'
  readonly device: string
  readonly mac: Mac
  readonly destination: Ip
}

/**
 * One file under /proc/sys, path with slashes and without the prefix, such as `net/ipv4/ip_forward`. Values are
 * compared as trimmed text.
 */
export type Sysctl = Wanted & { readonly kind: 'sysctl'; readonly path: string; readonly value: string }

/**
 * Whether the device leaves the checksums of TCP and UDP packets that it transmits to what is below it (`ethtool -K
 * DEVICE tx on`).
 */
export type Offload = Wanted & { readonly kind: 'offload'; readonly device: string; readonly transmitChecksum: boolean }

/** A traffic control queueing discipline on a device. It is removed with its device. */
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
  | FouPort
  | PortVlans
  | Sysctl
  | Offload
  | NftChain
  | NftSet
  | NftElement
  | IptablesChain
  | ForeignAccept
  | AdminCall
  | Qdisc
  | TunnelSocket
  | TunnelPeer
  | WgDevice
  | WgPeer

/** The key by which the kernel indexes an object, as text: `route 254 10.1.2.0/24 metric 0`. */
export type Key = string & { readonly identity: true }
export type State = ReadonlyMap<Key, KernelObject>

/** The key of an object; two objects with the same key cannot exist at once. */
export function keyOf(object: KernelObject): Key {
  return keyText(object) as Key
}

/** Each IPv6 link has its own route to the link-local addresses. */
function routeKey({ table, destination, metric, tos, device }: Route): string {
  const { ip } = destination
  const on = ip.family === 6 && isLinkLocal(ip) && device !== undefined ? ` dev ${device}` : ''
  return `route ${table} ${formatPrefix(network(destination))} metric ${metric}${tos === undefined ? '' : ` tos ${tos}`}${on}`
}

function keyText(object: KernelObject): string {
  switch (object.kind) {
    case 'link':
      return `link ${object.name}`
    case 'address':
      return `address ${formatPrefix(object.prefix)} dev ${object.device}`
    case 'route':
      return routeKey(object)
    case 'neighbour':
      return `neighbour ${formatIp(object.ip)} dev ${object.device}`
    case 'proxy':
      return `proxy ${formatIp(object.ip)} dev ${object.device}`
    case 'fdb':
      return `fdb ${object.mac} dev ${object.device}`
    case 'fou':
      return `fou ${object.port}${object.local === undefined ? '' : ` local ${formatIp(object.local)}`}`
    case 'vlans':
      return `vlans dev ${object.device}`
    case 'sysctl':
      return `sysctl ${object.path}`
    case 'offload':
      return `offload ${object.device}`
    case 'nft-chain':
      return `nft chain ${object.family} ${object.table} ${object.chain}`
    case 'nft-set':
      return `nft ${object.form} ${object.family} ${object.table} ${object.set}`
    case 'nft-element':
      return `nft element ${object.family} ${object.table} ${object.set} ${object.key}`
    case 'iptables-chain':
      return `iptables chain ${object.tool} ${object.family} ${object.table} ${object.chain}`
    case 'accept':
      return `accept ${object.tool} ${object.family} ${object.table} ${object.chain} ${object.match} ${formatPrefix(object.prefix)}${object.verdict ? ` ${object.verdict}` : ''}`
    case 'admin-call':
      return `admin-call ${object.tool} ${object.family} ${object.table} ${object.chain} ${object.target}`
    case 'qdisc':
      return `qdisc ${object.device} ${object.parent}`
    case 'tunnel-socket':
      return `tunnel-socket ${object.device}`
    case 'tunnel-peer':
      return `tunnel-peer ${formatPrefix(network(object.subnet))} dev ${object.device}`
    case 'wg-device':
      return `wg ${object.device}`
    case 'wg-peer':
      return `wg ${object.device} peer ${object.publicKey}`
  }
}

/**
 * Whether a notification follows each change of weftd's own of the object with this key: not in the firewall, where its
 * own are left out, and not for settings, WireGuard, FOU ports and the process of a TUN device.
 */
export const isAnnounced = (key: Key): boolean =>
  !/^(?:nft|iptables|accept|admin-call|sysctl|offload|wg|fou|tunnel-socket|tunnel-peer) /.test(key)

/** A state from a list; of two objects with the same key, the later one wins. */
export const stateOf = (objects: Iterable<KernelObject>): Map<Key, KernelObject> =>
  new Map([...objects].map((object) => [keyOf(object), object]))

/** The device an object belongs to: when it is removed, the kernel drops the object without a notification. */
export function deviceOf(object: KernelObject): string | undefined {
  if (object.kind === 'sysctl') return deviceOfSysctl(object.path)
  return 'device' in object ? object.device : undefined
}

/** Settings have no existence of their own: they can't be removed, and nothing announces most of their changes. */
export const isSetting = ({ kind }: Pick<KernelObject, 'kind'>): boolean =>
  kind === 'sysctl' || kind === 'offload' || kind === 'wg-device'

/** Fields that give the reason, or that the kernel does not report: they are never compared. */
const notCompared = new Set([
  'because',
  'nodad',
  'rules',
  'declaration',
  'carrier',
  'index',
  'peerIndex',
  'peer',
  'linkLocal',
  'burst',
  'division',
  'yields',
  'withAddress',
  'madeOn',
  'broadcastQueue',
  'marked',
  'privateKey',
  'traffic',
  'isHeard'
])

/** Whether the kernel's object is as desired. Fields that the desired one omits are the kernel's choice. */
export function sameObject(wanted: KernelObject, observed: KernelObject): boolean {
  if (wanted.kind === 'vlans' && observed.kind === 'vlans') return differingVlans(wanted, observed).length === 0
  if (wanted.kind === 'route' && wanted.withAddress !== undefined)
    return agrees({ ...wanted, source: undefined }, observed)
  return agrees(wanted, observed)
}

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

const isVlans = (object: object): object is PortVlans => 'kind' in object && object.kind === 'vlans'

/** Names of the fields in which they differ, for the log line of a repair: `mtu`, `mac`, `form.vni`. */
export function differingFields(wanted: object, observed: object, prefix = ''): readonly string[] {
  if (isVlans(wanted) && isVlans(observed)) return differingVlans(wanted, observed)
  return Object.entries(wanted).flatMap(([field, value]) => {
    const other = (observed as Record<string, unknown>)[field]
    if (notCompared.has(field) || agrees(value, other)) return []
    const nested = typeof value === 'object' && value !== null && !Array.isArray(value) && !('family' in value)
    return nested && typeof other === 'object' && other !== null
      ? differingFields(value, other, `${prefix}${field}.`)
      : [`${prefix}${field}`]
  })
}

/** The address with which the kernel adds a route by itself (`withAddress`). */
export const addressKeyOf = ({ withAddress: prefix, device }: Route): Key | undefined =>
  prefix === undefined || device === undefined ? undefined : keyOf({ kind: 'address', device, prefix })

/** All addresses, or those of one device. */
export function addressesIn(state: State, device?: string): readonly Address[] {
  const found: Address[] = []
  for (const object of state.values())
    if (object.kind === 'address' && (device === undefined || object.device === device)) found.push(object)
  return found
}

export function linkNamed(state: State, name: string): Link | undefined {
  const link = state.get(`link ${name}` as Key)
  return link?.kind === 'link' ? link : undefined
}

/** UDP port and parent of a tunnel's device; `undefined`: it is none. */
export function tunnelOf({ form }: Pick<Link, 'form'>): { readonly port: number; readonly parent: string } | undefined {
  return form?.type === 'vxlan' ? { port: form.port, parent: form.parent } : undefined
}
