// Encodes kernel objects as rtnetlink messages. Functions handed in map names to indexes and namespaces to descriptors.
import { type Family, type Ip, ipBytes, width } from '../../../ipam/address.ts'
import type { Address, FdbEntry, Link, Mac, Neighbour, NeighbourProxy, Route } from '../../state/object.ts'
import { writeIpip } from './ipip.ts'
import { MessageWriter, NLM_F } from './message.ts'
import * as uapi from './uapi.ts'

const { IFA, IFLA, IFLA_INFO, IFLA_VXLAN, NDA, RTA, RTM } = uapi

/** Look-ups in the running kernel. Both may throw; there is no message then. */
export type Resolve = {
  /** A device's index in the namespace that the message is sent to. */
  readonly index: (device: string) => number
  /** A descriptor of the network namespace at a path, open until the message has been sent. */
  readonly netns: (path: string) => number
}

const REPLACE = NLM_F.request | NLM_F.create | NLM_F.replace
const CREATE = NLM_F.request | NLM_F.create | NLM_F.exclusive

const macBytes = (mac: Mac): Uint8Array => Uint8Array.from(mac.split(':'), (octet) => Number.parseInt(octet, 16))

type Setting =
  | ('up' | 'mtu' | 'mac' | 'master' | 'alias' | 'group' | 'linkLocal')
  | ('hairpin' | 'isolated' | 'promiscuous' | 'allMulticast' | 'queueLength' | 'vlanFiltering')

/** Settings of a link that the kernel takes at any time. */
type Settings = {
  readonly [K in Setting]?: Link[K] | undefined
}

/**
 * Creates a link: its form, and all settings that the kernel accepts at creation. It ignores alias, a port's flags and
 * linkLocal then: those are in the second message, `afterCreation`. `sandbox`: descriptor of the namespace in which it
 * is created. Fails with EEXIST when the name is taken, at either end of a veth pair, and leaves what exists.
 */
export function createLink(link: Link, resolve: Resolve, sandbox?: number): Buffer {
  const writer = linkMessage(CREATE, link).text(IFLA.ifname, link.name)
  if (sandbox !== undefined) writer.u32(IFLA.netNsFd, sandbox)
  if (link.form?.type === 'macvlan' && link.form.madeOn !== undefined)
    writer.u32(IFLA.link, resolve.index(link.form.madeOn))
  if (link.form?.type === 'vlan') writer.u32(IFLA.link, resolve.index(link.form.parent))
  const later = {
    ...{ alias: undefined, hairpin: undefined, isolated: undefined, linkLocal: undefined, vlanFiltering: undefined }
  }
  linkSettings(writer, { ...link, ...later }, resolve)
  return writer.nest(IFLA.linkinfo, (nested) => linkForm(nested, link, resolve)).done()
}

/** The settings of a new link that `createLink` can't carry; `undefined` when there are none. */
export function afterCreation(link: Link, resolve: Resolve): Buffer | undefined {
  const { alias, hairpin, isolated, linkLocal } = link
  const settings = { alias, hairpin, isolated, linkLocal }
  if (Object.values(settings).every((setting) => setting === undefined)) return undefined
  return changeLink(link.name, settings, resolve)
}

/** Changes settings of the link of this name; those left out stay. Fails with ENODEV when there is none. */
export function changeLink(name: string, settings: Settings, resolve: Resolve): Buffer {
  const writer = linkMessage(NLM_F.request, settings).text(IFLA.ifname, name)
  linkSettings(writer, settings, resolve)
  return writer.done()
}

/** Deletes the links of a group, in one grace period. Fails with ENODEV when there are none. */
export const deleteGroup = (group: number): Buffer =>
  new MessageWriter(RTM.deleteLink, NLM_F.request).fixed([4, 0], [4, 0], [4, 0], [4, 0]).u32(IFLA.group, group).done()

/** Deletes the link of this name, and a veth's other end with it. */
export const deleteLink = (name: string): Buffer =>
  new MessageWriter(RTM.deleteLink, NLM_F.request).fixed([4, 0], [4, 0], [4, 0], [4, 0]).text(IFLA.ifname, name).done()

/** Moves a link into a group. A message of its own, since nothing else of a link to be deleted may be changed. */
export const moveToGroup = (name: string, group: number): Buffer =>
  linkMessage(NLM_F.request, {}).text(IFLA.ifname, name).u32(IFLA.group, group).done()

/** struct ifinfomsg with index 0: the link is named by IFLA_IFNAME. */
function linkMessage(
  flags: number,
  { up, promiscuous, allMulticast }: Pick<Settings, 'up' | 'promiscuous' | 'allMulticast'>
): MessageWriter {
  let [set, change] = [0, 0]
  for (const [value, flag] of [
    [up, uapi.IFF_UP],
    [promiscuous, uapi.IFF_PROMISC],
    [allMulticast, uapi.IFF_ALLMULTI]
  ] as const) {
    if (value === undefined) continue
    change |= flag
    if (value) set |= flag
  }
  return new MessageWriter(RTM.newLink, flags).fixed([4, 0], [4, 0], [4, set], [4, change])
}

function linkSettings(writer: MessageWriter, settings: Settings, resolve: Resolve): void {
  const { mac, mtu, master, group, alias, hairpin, isolated, linkLocal, queueLength } = settings
  if (mac !== undefined) writer.bytes(IFLA.address, macBytes(mac))
  if (mtu !== undefined) writer.u32(IFLA.mtu, mtu)
  if (master !== undefined) writer.u32(IFLA.master, master === '' ? 0 : resolve.index(master))
  if (group !== undefined) writer.u32(IFLA.group, group)
  if (queueLength !== undefined) writer.u32(IFLA.txQueueLength, queueLength)
  if (alias !== undefined) writer.bytes(IFLA.ifalias, Buffer.from(alias))
  if (linkLocal !== undefined) {
    writer.nest(IFLA.afSpec, (spec) =>
      spec.nest(uapi.AF_INET6, (ipv6) => ipv6.u8(uapi.IFLA_INET6_ADDR_GEN_MODE, linkLocal ? 0 : 1))
    )
  }
  if (settings.vlanFiltering !== undefined) {
    const value = settings.vlanFiltering ? 1 : 0
    writer.nest(IFLA.linkinfo, (nested) =>
      nested.text(IFLA_INFO.kind, 'bridge').nest(IFLA_INFO.data, (data) => data.u8(uapi.IFLA_BR_VLAN_FILTERING, value))
    )
  }
  if (hairpin === undefined && isolated === undefined) return
  // A port's flags are "slave data" of the bridge driver; AF_BRIDGE with IFLA_PROTINFO would need a message with the
  // index.
  writer.nest(IFLA.linkinfo, (nested) =>
    nested.text(IFLA_INFO.slaveKind, 'bridge').nest(IFLA_INFO.slaveData, (data) => {
      if (hairpin !== undefined) data.u8(uapi.IFLA_BRPORT_MODE, hairpin ? 1 : 0)
      if (isolated !== undefined) data.u8(uapi.IFLA_BRPORT_ISOLATED, isolated ? 1 : 0)
    })
  )
}

function linkForm(writer: MessageWriter, link: Link, resolve: Resolve): void {
  const form = link.form
  if (form === undefined || form.type === 'other') return
  writer.text(IFLA_INFO.kind, form.type)
  if (form.type === 'veth' && form.peer !== undefined) {
    const peer = form.peer
    writer.nest(IFLA_INFO.data, (data) =>
      data.nest(uapi.VETH_INFO_PEER, (end) => {
        end.fixed([4, 0], [4, 0], [4, 0], [4, 0]).text(IFLA.ifname, peer.name)
        linkSettings(end, { mac: peer.mac, mtu: peer.mtu }, resolve)
        if (peer.sandbox !== undefined) end.u32(IFLA.netNsFd, resolve.netns(peer.sandbox))
      })
    )
  } else if (form.type === 'bridge' && link.vlanFiltering !== undefined) {
    const value = link.vlanFiltering ? 1 : 0
    writer.nest(IFLA_INFO.data, (data) => data.u8(uapi.IFLA_BR_VLAN_FILTERING, value))
  } else if (form.type === 'ipip') {
    writer.nest(IFLA_INFO.data, (data) => writeIpip(data, form))
  } else if (form.type === 'vlan') {
    writer.nest(IFLA_INFO.data, (data) => data.bytes(uapi.IFLA_VLAN.id, [form.id & 0xff, form.id >> 8]))
  } else if (form.type === 'macvlan') {
    const { mode, broadcastQueue } = form
    writer.nest(IFLA_INFO.data, (data) => {
      data.u32(uapi.IFLA_MACVLAN.mode, uapi.MACVLAN_MODE[mode])
      if (broadcastQueue !== undefined) data.u32(uapi.IFLA_MACVLAN.broadcastQueue, broadcastQueue)
    })
  } else if (form.type === 'vxlan') {
    writer.nest(IFLA_INFO.data, (data) => {
      data
        .u32(IFLA_VXLAN.id, form.vni)
        .u32(IFLA_VXLAN.link, resolve.index(form.parent))
        .bytes(form.local.family === 4 ? IFLA_VXLAN.local : IFLA_VXLAN.local6, ipBytes(form.local))
        .port(IFLA_VXLAN.port, form.port)
        .u8(IFLA_VXLAN.learning, form.learning ? 1 : 0)
      if (form.gbp) data.flag(IFLA_VXLAN.gbp)
    })
  }
}

/** Adds an address, or replaces the one of the same address and prefix length. */
export const putAddress = (address: Address, resolve: Resolve): Buffer =>
  addressMessage(RTM.newAddress, REPLACE, address, resolve)
export const removeAddress = (address: Address, resolve: Resolve): Buffer =>
  addressMessage(RTM.deleteAddress, NLM_F.request, address, resolve)

function addressMessage(type: number, flags: number, address: Address, resolve: Resolve): Buffer {
  const { ip, length } = address.prefix
  const wanted = (address.nodad ? uapi.IFA_F.noDad : 0) | (address.noPrefixRoute ? uapi.IFA_F.noPrefixRoute : 0)
  const bytes = ipBytes(ip)
  const writer = new MessageWriter(type, flags)
    .fixed(
      [1, uapi.afOf(ip.family)],
      [1, length],
      [1, wanted & 0xff],
      [1, address.scope ?? 0],
      [4, resolve.index(address.device)]
    )
    .bytes(IFA.local, bytes)
    .bytes(IFA.address, bytes)
  return (type === RTM.newAddress ? writer.u32(IFA.flags, wanted) : writer).done()
}

/** Adds a route or, unless it yields, replaces the one with the same table, destination and metric. */
export const putRoute = (route: Route, resolve: Resolve): Buffer =>
  routeMessage(RTM.newRoute, route.yields ? CREATE : REPLACE, route, route.scope ?? defaultScope(route), resolve)

/** Adds an IPv6 route beside those of other devices with the same table, destination and metric. */
export const addRoute = (route: Route, resolve: Resolve): Buffer =>
  routeMessage(RTM.newRoute, NLM_F.request | NLM_F.create | NLM_F.append, route, defaultScope(route), resolve)

/**
 * Removes the route that agrees in destination, table, metric, type, protocol, gateway and device: a metric of 0 alone
 * would match any IPv4 route to the destination.
 */
export const removeRoute = (route: Route, resolve: Resolve): Buffer =>
  routeMessage(RTM.deleteRoute, NLM_F.request, route, route.scope ?? uapi.RT_SCOPE_NOWHERE, resolve)

/** As ip(8): a route without gateway has scope link. IPv6 routes have no scope; the kernel ignores the field. */
function defaultScope(route: Route): number {
  if (route.type === 'local') return 254
  return route.type === 'unicast' && route.gateway === undefined && route.destination.ip.family === 4 ? 253 : 0
}

const numberOfType: { readonly [K in Route['type']]: number } = { ...uapi.RTN, other: 0 }

function routeMessage(type: number, flags: number, route: Route, scope: number, resolve: Resolve): Buffer {
  const { destination, gateway, table } = route
  const family = destination.ip.family
  const writer = new MessageWriter(type, flags).fixed(
    [1, uapi.afOf(family)],
    [1, destination.length],
    [1, 0],
    [1, route.tos ?? 0],
    [1, table < 256 ? table : 0],
    [1, route.protocol],
    [1, scope],
    [1, numberOfType[route.type]],
    [4, route.onlink ? uapi.RTNH_F_ONLINK : 0]
  )
  writer.u32(RTA.table, table)
  if (destination.length > 0) writer.bytes(RTA.dst, networkBytes(destination.ip, destination.length))
  if (route.metric !== 0) writer.u32(RTA.priority, route.metric)
  if (gateway !== undefined) writeGateway(writer, gateway, family)
  if (route.device !== undefined) writer.u32(RTA.oif, resolve.index(route.device))
  if (route.source !== undefined) writer.bytes(RTA.prefsrc, ipBytes(route.source))
  if (route.mtu !== undefined && type === RTM.newRoute) {
    const mtu = route.mtu
    writer.nest(RTA.metrics, (metrics) => metrics.u32(uapi.RTAX_MTU, mtu))
  }
  return writer.done()
}

/** A gateway of the other family (RFC 8950) is in RTA_VIA, after its family. */
function writeGateway(writer: MessageWriter, gateway: Ip, family: Family): void {
  if (gateway.family === family) writer.bytes(RTA.gateway, ipBytes(gateway))
  else writer.bytes(RTA.via, Buffer.concat([Uint8Array.of(uapi.afOf(gateway.family), 0), ipBytes(gateway)]))
}

/** The kernel refuses a destination with host bits set ("Invalid prefix for given prefix length"). */
function networkBytes(ip: Ip, length: number): Uint8Array {
  const bytes = ipBytes(ip)
  for (let at = 0; at < bytes.length; at++) {
    const keep = Math.min(8, Math.max(0, length - at * 8))
    bytes[at] = (bytes[at] ?? 0) & (0xff00 >> keep) & 0xff
  }
  return bytes
}

/** Looks up the route by which the host reaches an address. */
export const lookUpRoute = (ip: Ip): Buffer =>
  new MessageWriter(RTM.getRoute, NLM_F.request)
    .fixed([1, uapi.afOf(ip.family)], [1, width(ip.family)], [2, 0], [4, 0], [4, 0])
    .bytes(RTA.dst, ipBytes(ip))
    .done()

/**
 * Looks up the table's entry that the kernel uses for packets to an address, of its own or forwarded; without `entry`
 * what becomes of it, with the one next hop of several that is used.
 */
export function findRoute(ip: Ip, from?: { readonly index: number; readonly source: Ip }, entry = true): Buffer {
  const length = width(ip.family)
  // IPv6 answers with the table anyway, and refuses the flag.
  const flags = (entry ? uapi.RTM_F_FIB_MATCH : 0) | (ip.family === 4 ? uapi.RTM_F_LOOKUP_TABLE : 0)
  const writer = new MessageWriter(RTM.getRoute, NLM_F.request)
    .fixed([1, uapi.afOf(ip.family)], [1, length], [1, from ? length : 0], [1, 0], [4, 0], [4, flags])
    .bytes(RTA.dst, ipBytes(ip))
  if (from !== undefined) writer.bytes(RTA.src, ipBytes(from.source)).u32(RTA.iif, from.index)
  return writer.done()
}

export const putNeighbour = (entry: Neighbour, resolve: Resolve): Buffer =>
  neighbourMessage(RTM.newNeighbour, REPLACE, uapi.afOf(entry.ip.family), 0, entry, entry.ip, resolve)
export const removeNeighbour = (entry: Neighbour, resolve: Resolve): Buffer =>
  neighbourMessage(RTM.deleteNeighbour, NLM_F.request, uapi.afOf(entry.ip.family), 0, entry, entry.ip, resolve)
export const putFdbEntry = (entry: FdbEntry, resolve: Resolve): Buffer =>
  neighbourMessage(RTM.newNeighbour, REPLACE, uapi.AF_BRIDGE, uapi.NTF_SELF, entry, entry.destination, resolve)
export const removeFdbEntry = (entry: FdbEntry, resolve: Resolve): Buffer =>
  neighbourMessage(RTM.deleteNeighbour, NLM_F.request, uapi.AF_BRIDGE, uapi.NTF_SELF, entry, entry.destination, resolve)

function neighbourMessage(
  type: number,
  flags: number,
  af: number,
  ntf: number,
  entry: { readonly device: string; readonly mac: Mac },
  ip: Ip,
  resolve: Resolve
): Buffer {
  return new MessageWriter(type, flags)
    .fixed([4, af], [4, resolve.index(entry.device)], [2, uapi.NUD_PERMANENT], [1, ntf], [1, 0])
    .bytes(NDA.dst, ipBytes(ip))
    .bytes(NDA.lladdr, macBytes(entry.mac))
    .done()
}

/** Permanent: the kernel drops others when the device loses its carrier, as a bridge does with its last port. */
export const putProxy = (entry: NeighbourProxy, resolve: Resolve): Buffer =>
  proxyMessage(RTM.newNeighbour, REPLACE, entry, resolve).u8(NDA.protocol, entry.protocol).done()
export const removeProxy = (entry: NeighbourProxy, resolve: Resolve): Buffer =>
  proxyMessage(RTM.deleteNeighbour, NLM_F.request, entry, resolve).done()

const proxyMessage = (type: number, flags: number, { ip, device }: NeighbourProxy, resolve: Resolve): MessageWriter =>
  new MessageWriter(type, flags)
    .fixed([4, uapi.afOf(ip.family)], [4, resolve.index(device)], [2, uapi.NUD_PERMANENT], [1, uapi.NTF_PROXY], [1, 0])
    .bytes(NDA.dst, ipBytes(ip))
