// Decodes rtnetlink messages into kernel objects; every length is checked. A function handed in maps indexes to names.
import { type Ip, ipFromBytes, type Prefix } from '../../../ipam/address.ts'
import type { RoutingChange } from '../../state/kernel.ts'
import type {
  Address,
  FdbEntry,
  Link,
  LinkForm,
  Mac,
  MacvlanMode,
  Neighbour,
  NeighbourProxy,
  NextHop,
  Route,
  RouteType
} from '../../state/object.ts'
import { ROUTE_PROTOCOL } from '../../state/ownership.ts'
import type { VlanForm } from '../../state/vlans.ts'
import { readIpip } from './ipip.ts'
import { Attributes, MalformedMessage, type Message, NLM_F } from './message.ts'
import * as uapi from './uapi.ts'

const { IFA, IFLA, IFLA_INFO, IFLA_VXLAN, NDA, RTA, RTM } = uapi

/** The name of a device in the message's namespace; `undefined` when there is none (any more). */
export type NameOf = (index: number) => string | undefined

/** Octets of the fixed parts: ifinfomsg, ifaddrmsg, rtmsg, ndmsg. */
const FIXED = { link: 16, address: 8, route: 12, neighbour: 12 } as const

function fixedPart(message: Message, octets: number): Buffer {
  if (message.body.length < octets)
    throw new MalformedMessage(`type ${message.type} with ${message.body.length} octets instead of ${octets}`)
  return message.body
}

function ip(bytes: Buffer | undefined): Ip | undefined {
  if (bytes === undefined) return undefined
  const value = ipFromBytes(bytes)
  if (value === undefined) throw new MalformedMessage(`an address of ${bytes.length} octets`)
  return value
}

/** Tunnels have hardware addresses of other lengths (sit: 4 octets); those are no MAC. */
const mac = (bytes: Buffer | undefined): Mac | undefined =>
  bytes?.length === 6 ? (Array.from(bytes, (octet) => HEX[octet]).join(':') as Mac) : undefined

const HEX: readonly string[] = Array.from({ length: 256 }, (_, octet) => octet.toString(16).padStart(2, '0'))

/** Index and address family of a link message: those of AF_BRIDGE describe a bridge port only. */
export function linkIdentity(message: Message): { readonly index: number; readonly af: number } {
  const body = fixedPart(message, FIXED.link)
  return { index: body.readInt32LE(4), af: body.readUInt8(0) }
}

/** Whether a link message has this attribute; a malformed one has none. */
export function hasAttribute({ body }: Message, type: number): boolean {
  try {
    return new Attributes(body, FIXED.link).has(type)
  } catch {
    return false
  }
}

export const linkName = (message: Message): string | undefined =>
  new Attributes(fixedPart(message, FIXED.link), FIXED.link).text(IFLA.ifname)

/** The flags of a bridge port in an AF_BRIDGE link message; empty when it has none. */
export const portFlags = (message: Message): PortFlags =>
  flagsIn(new Attributes(fixedPart(message, FIXED.link), FIXED.link).nested(IFLA.protinfo))

export type PortFlags = Pick<Link, 'hairpin' | 'isolated'>

function flagsIn(port: Attributes | undefined): PortFlags {
  const [hairpin, isolated] = [port?.u8(uapi.IFLA_BRPORT_MODE), port?.u8(uapi.IFLA_BRPORT_ISOLATED)]
  return {
    ...(hairpin === undefined ? {} : { hairpin: hairpin !== 0 }),
    ...(isolated === undefined ? {} : { isolated: isolated !== 0 })
  }
}

/** A link from RTM_NEWLINK of family AF_UNSPEC. No master and no alias are `''`. */
export function decodeLink(message: Message, nameOf: NameOf): Link {
  const body = fixedPart(message, FIXED.link)
  const attributes = new Attributes(body, FIXED.link)
  const name = attributes.text(IFLA.ifname)
  if (name === undefined) throw new MalformedMessage('a link without a name')
  const linkinfo = attributes.nested(IFLA.linkinfo)
  const [mtu, hardware, carrier, group, queueLength] = [
    attributes.u32(IFLA.mtu),
    mac(attributes.bytes(IFLA.address)),
    attributes.u8(IFLA.carrier),
    attributes.u32(IFLA.group),
    attributes.u32(IFLA.txQueueLength)
  ]
  const bridge = linkinfo?.text(IFLA_INFO.kind) === 'bridge' ? linkinfo.nested(IFLA_INFO.data) : undefined
  const vlanFiltering = bridge?.u8(uapi.IFLA_BR_VLAN_FILTERING)
  const flags = body.readUInt32LE(8)
  const master = attributes.u32(IFLA.master) ?? 0
  const form = vlanForm(attributes, linkinfo, nameOf) ?? linkForm(linkinfo, nameOf)
  const peerIndex = form.type === 'veth' ? attributes.u32(IFLA.link) : undefined
  const isPort = linkinfo?.text(IFLA_INFO.slaveKind) === 'bridge'
  return {
    kind: 'link',
    name,
    index: body.readInt32LE(4),
    form,
    ...(peerIndex !== undefined && { peerIndex }),
    up: (flags & uapi.IFF_UP) !== 0,
    promiscuous: (flags & uapi.IFF_PROMISC) !== 0,
    allMulticast: (flags & uapi.IFF_ALLMULTI) !== 0,
    master: master === 0 ? '' : (nameOf(master) ?? `if${master}`),
    alias: attributes.text(IFLA.ifalias) ?? '',
    ...(carrier !== undefined && { carrier: carrier !== 0 }),
    ...(mtu !== undefined && { mtu }),
    ...(hardware !== undefined && { mac: hardware }),
    ...(group !== undefined && { group }),
    ...(vlanFiltering !== undefined && { vlanFiltering: vlanFiltering !== 0 }),
    ...(queueLength !== undefined && { queueLength }),
    ...((flags & (uapi.IFF_POINTOPOINT | uapi.IFF_NOARP)) !== 0 && { pointToPoint: true }),
    ...altNamesIn(attributes),
    ...(isPort ? flagsIn(linkinfo?.nested(IFLA_INFO.slaveData)) : {})
  }
}

function altNamesIn(attributes: Attributes): Pick<Link, 'altNames'> {
  const altNames = attributes.nested(IFLA.propList)?.texts(IFLA.altIfname)
  return altNames === undefined || altNames.length === 0 ? {} : { altNames }
}

const macvlanModes = Object.entries(uapi.MACVLAN_MODE) as readonly (readonly [MacvlanMode, number])[]

/** `undefined` for any other type, and where its device is in another namespace. */
function vlanForm(link: Attributes, linkinfo: Attributes | undefined, nameOf: NameOf): VlanForm | undefined {
  if (linkinfo?.text(IFLA_INFO.kind) !== 'vlan' || link.has(uapi.IFLA_LINK_NETNSID)) return undefined
  const data = linkinfo.nested(IFLA_INFO.data)
  const [id, parent] = [data?.bytes(uapi.IFLA_VLAN.id), nameOf(link.u32(IFLA.link) ?? 0)]
  if (id?.length !== 2 || parent === undefined || data?.port(uapi.IFLA_VLAN.protocol) !== uapi.ETH_P_8021Q)
    return undefined
  return { type: 'vlan', id: id.readUInt16LE(), parent }
}

/** Not TAP, and it stays without a process. */
const isLastingTun = (data: Attributes | undefined): boolean =>
  data?.u8(uapi.IFLA_TUN.type) === uapi.IFF_TUN && data.u8(uapi.IFLA_TUN.persist) === 1

function linkForm(linkinfo: Attributes | undefined, nameOf: NameOf): LinkForm {
  const of = linkinfo?.text(IFLA_INFO.kind) ?? ''
  if (of === 'bridge' || of === 'veth' || of === 'ifb') return { type: of }
  if (of === 'tun' && isLastingTun(linkinfo?.nested(IFLA_INFO.data))) return { type: of }
  if (of === 'ipip') return readIpip(linkinfo?.nested(IFLA_INFO.data)) ?? { type: 'other', of }
  const mode = of === 'macvlan' ? linkinfo?.nested(IFLA_INFO.data)?.u32(uapi.IFLA_MACVLAN.mode) : undefined
  const named = macvlanModes.find(([, number]) => number === mode)
  if (named !== undefined) return { type: 'macvlan', mode: named[0] }
  const data = of === 'vxlan' ? linkinfo?.nested(IFLA_INFO.data) : undefined
  if (data === undefined) return { type: 'other', of }
  const local = ip(data.bytes(IFLA_VXLAN.local)) ?? ip(data.bytes(IFLA_VXLAN.local6))
  const parent = nameOf(data.u32(IFLA_VXLAN.link) ?? 0)
  // Weft creates none without a source address or parent, nor with external metadata (VNI 0).
  if (local === undefined || parent === undefined) return { type: 'other', of }
  return {
    type: 'vxlan',
    vni: data.u32(IFLA_VXLAN.id) ?? 0,
    port: data.port(IFLA_VXLAN.port) ?? 0,
    local,
    parent,
    learning: data.u8(IFLA_VXLAN.learning) === 1,
    gbp: data.has(IFLA_VXLAN.gbp)
  }
}

/** An address; `undefined` when its device no longer exists. */
export function decodeAddress(message: Message, nameOf: NameOf): Address | undefined {
  const body = fixedPart(message, FIXED.address)
  const attributes = new Attributes(body, FIXED.address)
  // With a point-to-point peer IFA_ADDRESS is the peer's; ours is IFA_LOCAL.
  const own = ip(attributes.bytes(IFA.local) ?? attributes.bytes(IFA.address))
  const device = nameOf(body.readInt32LE(4))
  if (own === undefined || device === undefined) return undefined
  const flags = attributes.u32(IFA.flags) ?? body.readUInt8(2)
  return {
    kind: 'address',
    device,
    prefix: checked(own, body.readUInt8(1)),
    scope: body.readUInt8(3),
    nodad: (flags & uapi.IFA_F.noDad) !== 0,
    noPrefixRoute: (flags & uapi.IFA_F.noPrefixRoute) !== 0,
    ...lifetime(flags, attributes.has(IFA.lifetimes))
  }
}

/** Only the kernel sends lifetimes, and with them the flags that say how long the address will last. */
function lifetime(
  flags: number,
  isFromKernel: boolean
): Partial<Pick<Address, 'deprecated' | 'dynamic' | 'secondary'>> {
  const F = uapi.IFA_F
  const isUnsure = (flags & (F.tentative | F.optimistic | F.dadFailed)) !== 0
  return {
    ...(((flags & F.deprecated) !== 0 || isUnsure) && { deprecated: true }),
    ...(isFromKernel && (flags & F.permanent) === 0 && { dynamic: true }),
    ...((flags & F.secondary) !== 0 && { secondary: true })
  }
}

function checked(address: Ip, length: number): Prefix {
  if (length > (address.family === 4 ? 32 : 128))
    throw new MalformedMessage(`a prefix length of ${length} for IPv${address.family}`)
  return { ip: address, length }
}

const typeOfNumber = new Map<number, RouteType>(
  Object.entries(uapi.RTN).map(([name, number]) => [number, name as RouteType])
)

/**
 * A route of IPv4 or IPv6; `undefined` for other families and for cached copies, unless it is the answer to a look-up,
 * which is marked as one too (`looked`).
 */
export function decodeRoute(message: Message, nameOf: NameOf, looked = false): Route | undefined {
  const body = fixedPart(message, FIXED.route)
  const family = uapi.familyOf(body.readUInt8(0))
  const flags = body.readUInt32LE(8)
  if (family === undefined || (!looked && (flags & uapi.RTM_F_CLONED) !== 0)) return undefined
  const attributes = new Attributes(body, FIXED.route)
  const type = typeOfNumber.get(body.readUInt8(7)) ?? 'other'
  // The kernel puts IPv6 blackhole routes on lo by itself.
  const index = type === 'unicast' || type === 'local' ? attributes.u32(RTA.oif) : undefined
  const device = index === undefined ? undefined : nameOf(index)
  const gateway = ip(attributes.bytes(RTA.gateway)) ?? viaGateway(attributes.bytes(RTA.via))
  const nextHops = nextHopsIn(attributes.bytes(RTA.multipath), nameOf)
  const nextHopId = attributes.u32(RTA.nextHopId)
  const tos = body.readUInt8(3)
  const source = ip(attributes.bytes(RTA.prefsrc))
  const mtu = attributes.nested(RTA.metrics)?.u32(uapi.RTAX_MTU)
  const destination = checked(ip(attributes.bytes(RTA.dst)) ?? { family, value: 0n }, body.readUInt8(1))
  if (destination.ip.family !== family)
    throw new MalformedMessage(`an IPv${destination.ip.family} destination in an IPv${family} route`)
  return {
    kind: 'route',
    table: attributes.u32(RTA.table) ?? body.readUInt8(4),
    destination,
    metric: attributes.u32(RTA.priority) ?? 0,
    type,
    scope: body.readUInt8(6),
    protocol: body.readUInt8(5),
    onlink: (flags & uapi.RTNH_F_ONLINK) !== 0,
    ...(device !== undefined && { device }),
    ...(gateway !== undefined && { gateway }),
    ...(nextHops !== undefined && { nextHops }),
    ...(nextHopId !== undefined && { nextHopId }),
    ...(tos !== 0 && { tos }),
    ...(source !== undefined && { source }),
    ...(mtu !== undefined && { mtu })
  }
}

/**
 * What a notification says of the host's routing: the route that another program changed, or a policy rule.
 * `undefined`: it is about something else. Routes to the host's own addresses come and go with every pod and are left
 * out.
 */
export function routingChange(message: Message): RoutingChange | undefined {
  if (message.type === RTM.newRule || message.type === RTM.deleteRule) return {}
  if (changedNextHop(message) !== undefined) return {}
  if (message.type !== RTM.newRoute && message.type !== RTM.deleteRoute) return undefined
  const body = fixedPart(message, FIXED.route)
  const family = uapi.familyOf(body.readUInt8(0))
  const isCached = (body.readUInt32LE(8) & uapi.RTM_F_CLONED) !== 0
  if (family === undefined || isCached || body.readUInt8(4) === uapi.RT_TABLE_LOCAL) return undefined
  if (body.readUInt8(5) === ROUTE_PROTOCOL) return undefined
  const address = ip(new Attributes(body, FIXED.route).bytes(RTA.dst)) ?? { family, value: 0n }
  return { destination: checked(address, body.readUInt8(1)) }
}

/** Octets of struct nhmsg. */
const NEXT_HOP_HEADER = 8

/**
 * The number of a nexthop object that is not what it was: it was replaced or deleted. `undefined` for other messages,
 * those about new objects among them. Errors: MalformedMessage.
 */
export function changedNextHop({ type, flags, body }: Message): number | undefined {
  const isChanged = type === RTM.deleteNextHop || (type === RTM.newNextHop && (flags & NLM_F.replace) !== 0)
  return isChanged ? new Attributes(body, NEXT_HOP_HEADER).u32(uapi.NHA.id) : undefined
}

/** RTA_MULTIPATH: struct rtnexthop (length, flags, weight, index), each followed by its own attributes. */
function nextHopsIn(bytes: Buffer | undefined, nameOf: NameOf): readonly NextHop[] | undefined {
  if (bytes === undefined) return undefined
  const hops: NextHop[] = []
  for (let at = 0; at + NEXT_HOP <= bytes.length; ) {
    const length = bytes.readUInt16LE(at)
    if (length < NEXT_HOP || at + length > bytes.length)
      throw new MalformedMessage(`a next hop of ${length} octets at ${at} of ${bytes.length}`)
    const attributes = new Attributes(bytes, at + NEXT_HOP, at + length)
    const gateway = ip(attributes.bytes(RTA.gateway)) ?? viaGateway(attributes.bytes(RTA.via))
    const device = nameOf(bytes.readInt32LE(at + 4))
    hops.push({ ...(device !== undefined && { device }), ...(gateway !== undefined && { gateway }) })
    at += (length + 3) & ~3
  }
  return hops
}

const NEXT_HOP = 8

const viaGateway = (via: Buffer | undefined): Ip | undefined => (via === undefined ? undefined : ip(via.subarray(2)))

/**
 * A neighbour, proxy or FDB entry, and whether it is permanent: the others were learned by the kernel. `undefined`: of
 * another kind, or its device no longer exists.
 */
export function decodeNeighbour(
  message: Message,
  nameOf: NameOf
): { readonly permanent: boolean; readonly object: Neighbour | NeighbourProxy | FdbEntry } | undefined {
  const body = fixedPart(message, FIXED.neighbour)
  const af = body.readUInt8(0)
  const bridge = af === uapi.AF_BRIDGE
  if (!bridge && uapi.familyOf(af) === undefined) return undefined
  const attributes = new Attributes(body, FIXED.neighbour)
  const destination = attributes.bytes(NDA.dst)
  const device = destination === undefined ? undefined : nameOf(body.readInt32LE(4))
  if (destination === undefined || device === undefined) return undefined
  const permanent = (body.readUInt16LE(8) & uapi.NUD_PERMANENT) !== 0
  const address = ip(destination)
  if (address === undefined) return undefined
  // Proxy entries have no state in messages; none is ever learned.
  if (isProxy(message))
    return {
      permanent: true,
      object: { kind: 'proxy', device, ip: address, protocol: attributes.u8(NDA.protocol) ?? 0 }
    }
  // An unresolved neighbour has no hardware address yet.
  const hardware = mac(attributes.bytes(NDA.lladdr)) ?? ('00:00:00:00:00:00' as Mac)
  return {
    permanent,
    object: bridge
      ? { kind: 'fdb', device, mac: hardware, destination: address }
      : { kind: 'neighbour', device, ip: address, mac: hardware }
  }
}

/** Whether a neighbour message is about a proxy entry. */
const isProxy = ({ body }: Message): boolean =>
  body.readUInt8(0) !== uapi.AF_BRIDGE && (body.readUInt8(10) & uapi.NTF_PROXY) !== 0
