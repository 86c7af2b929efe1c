// The kernel objects of one attachment, on the host and inside the container, in bridge and routed mode.
import {
  contains,
  everything,
  FAMILIES,
  hostPrefix,
  type Ip,
  network,
  offset,
  type Prefix,
  sameIp,
  samePrefix
} from '../../ipam/address.ts'
import type { Attachment, InterfaceAddress, InterfaceRoute, Veth, VethAttachment } from '../../plugins/attachment.ts'
import { ownSource, sourceCheckBase } from '../firewall/bridge-ports.ts'
import { hostPortBase, hostPortDevice, hostPorts } from '../firewall/host-ports.ts'
import { podMasquerade } from '../firewall/pod-masquerade.ts'
import { subnetChain } from '../firewall/subnet-chain.ts'
import { LEAST_MTU, type Node } from '../state/node.ts'
import { type KernelObject, type Link, type Mac, parseMac, type Route } from '../state/object.ts'
import { LINK_SCOPE } from '../state/route.ts'
import { bandwidthObjects } from './bandwidth.ts'
import { bridgeObjects, bridgeOf } from './bridge.ts'
import { address, announced, havingGateway, noDuplicateDetection, route, sysctl } from './device.ts'
import { aliasOf, hostMac, hostName, peerName, podMac } from './identity.ts'
import { proxies, routedHost } from './routed.ts'
import { gatewayDevice, portVlans } from './vlans.ts'

export type Mode = 'bridge' | 'routed'

/** How a pod is connected at this moment. */
export type Wiring = {
  readonly mode: Mode
  /** Bytes, for both ends. */
  readonly mtu: number
  /** Networks of the cluster, one per family: routed through the node even if it is not the default gateway. */
  readonly clusterNetworks: readonly Prefix[]
  /** Whether this node masquerades for its own subnet. */
  readonly masquerades?: true
  /** The existing bridge, if there is one: it keeps its MAC. */
  readonly bridge?: Link
}

const NO_VLANS = { trunk: [], keepsDefault: true }

export type PodObjects = {
  /** Chains, maps and sets in nftables that pods share; empty for a pod that needs none. */
  readonly shared: readonly KernelObject[]
  /** The bridge with its addresses, shared with its other pods; it stays when they go. */
  readonly bridge: readonly KernelObject[]
  readonly host: readonly KernelObject[]
  /** In the order in which they are to be applied; empty where the container's end is handed over. */
  readonly inside: readonly KernelObject[]
}

export function podObjects(
  attachment: VethAttachment,
  addresses: readonly InterfaceAddress[],
  { identity, ipv6 }: Pick<Node, 'identity' | 'ipv6'>,
  wiring: Wiring
): PodObjects {
  const { because } = attachment
  const node = { identity, ipv6: ipv6 && wiring.mtu >= LEAST_MTU[6] }
  const withReason = (objects: readonly KernelObject[]) => objects.map((object) => ({ ...object, because }))
  const bridged = wiring.mode === 'bridge'
  const link = hostLink(attachment, addresses, wiring, node)
  const ports = portObjects(attachment, addresses, link.name)
  const { name } = link
  const masquerade = masquerades(attachment, addresses, wiring, name)
  const checked =
    bridged && attachment.interface.checksSource
      ? ownSource(name, containerMac(attachment, addresses), name, because)
      : []
  const device = ports.length === 0 ? [] : hostPortDevice(bridged ? gatewayDevice(attachment.interface) : link.name)
  return {
    shared: [
      ...(ports.length === 0 ? [] : [...hostPortBase(), ...(bridged ? device : [])]),
      ...(checked.length === 0 ? [] : sourceCheckBase()),
      ...masquerade.shared
    ],
    bridge: bridged ? withReason(bridgeObjects(attachment.interface, addresses, node, wiring)) : [],
    host: withReason([
      link,
      ...(bridged
        ? portVlans(link.name, attachment.interface.vlans ?? NO_VLANS)
        : [...routedHost(link.name, addresses, node), ...proxies(attachment.interface, addresses), ...device]),
      ...masquerade.own,
      ...ports,
      ...checked,
      ...bandwidthObjects(link, attachment.bandwidth)
    ]),
    inside: attachment.interface.isHandedOver ? [] : withReason(insideObjects(attachment, addresses, wiring))
  }
}

/**
 * The node masquerades for its own subnet (--ip-masq) unless the pod's network overrides it. Networks with their own
 * ranges, or of other plugins, decide for themselves.
 */
function masquerades(
  { masquerade, interface: { like }, ipam, because }: VethAttachment,
  addresses: readonly InterfaceAddress[],
  wiring: Wiring,
  link: string
): { readonly shared: readonly KernelObject[]; readonly own: readonly KernelObject[] } {
  const none = { shared: [], own: [] }
  const isOfNode = like === undefined && ipam?.ranges.length === 0
  if (!isOfNode)
    return masquerade ? { ...none, own: addresses.map(({ prefix }) => subnetChain('masquerade', prefix)) } : none
  if (masquerade === undefined || (masquerade && wiring.masquerades)) return none
  const ips = addresses.map(({ prefix }) => prefix.ip)
  return podMasquerade(masquerade, ips, wiring.clusterNetworks, link, because)
}

/** A bridge that is the gateway needs an address: the subnet's first, unless another is configured. */
export const withGateways = (
  { interface: { like } }: VethAttachment,
  addresses: readonly InterfaceAddress[]
): readonly InterfaceAddress[] =>
  like?.kind === 'bridge' && like.isGateway
    ? addresses.map(({ prefix, gateway }) => ({ prefix, gateway: gateway ?? firstOf(prefix) }))
    : addresses

function firstOf(prefix: Prefix): Ip {
  const { ip } = network(prefix)
  return offset(ip, 1n) ?? ip
}

function hostLink(
  attachment: VethAttachment,
  addresses: readonly InterfaceAddress[],
  { mode, mtu }: Wiring,
  { ipv6 }: Pick<Node, 'ipv6'>
): Link {
  const { interface: config } = attachment
  const peer = { ...containerEnd(attachment), mac: containerMac(attachment, addresses), mtu }
  return {
    kind: 'link',
    name: hostName(attachment),
    form: { type: 'veth', peer },
    up: true,
    mtu,
    mac: hostMac(attachment),
    alias: aliasOf(
      attachment,
      attachment.pod,
      mode === 'bridge' ? bridgeOf(attachment.interface, addresses) : undefined
    ),
    // With br_netfilter the bridge itself returns a pod's packets to its own host port through the port they came in
    // by.
    ...(mode === 'bridge'
      ? {
          ...{ master: config.bridge, hairpin: config.isHairpin || attachment.hostPorts !== undefined },
          ...(config.isIsolated ? { isolated: true } : {})
        }
      : {}),
    // The link-local address of a bridge port is unreachable, yet the kernel announces it to all pods of the bridge at
    // each start, and searches conntrack when it is removed: a tenth of a pod's cost, growing with their number.
    ...(mode === 'bridge' && ipv6 ? { linkLocal: false } : {})
  }
}

/** Where the container's end is made, and its name there. */
export const containerEnd = (attachment: VethAttachment): { readonly name: string; readonly sandbox?: string } => {
  const { ifname, sandbox, interface: config } = attachment
  if (config.isHandedOver) return { name: peerName(attachment) }
  return { name: ifname, ...(sandbox === undefined ? {} : { sandbox }) }
}

const portObjects = (
  attachment: Attachment,
  addresses: readonly InterfaceAddress[],
  link: string
): readonly KernelObject[] =>
  hostPorts(
    attachment.hostPorts ?? [],
    addresses.map(({ prefix }) => prefix.ip),
    link,
    attachment.because
  )

/** The MAC of the container's end: the configured one, otherwise derived. */
export const containerMac = (attachment: VethAttachment, addresses: readonly InterfaceAddress[]): Mac =>
  parseMac(attachment.interface.mac ?? '') ??
  podMac(
    attachment,
    addresses.map(({ prefix }) => prefix.ip)
  )

/** Sysctls, then addresses, then the link up (so that its announcements include them), then neighbours and routes. */
function insideObjects(
  attachment: VethAttachment,
  addresses: readonly InterfaceAddress[],
  wiring: Wiring
): readonly KernelObject[] {
  const device = attachment.ifname
  const routed = wiring.mode === 'routed'
  const isPtp = attachment.interface.like?.kind === 'ptp'
  const has6 = addresses.some(({ prefix }) => prefix.ip.family === 6)
  const settings = [
    // In this order: enabling IPv6 makes the link-local address at once if the link is up.
    ...(has6 ? [noDuplicateDetection(device), sysctl(`net/ipv6/conf/${device}/disable_ipv6`, '0')] : []),
    // A configured MAC does not follow from the address: announced to those that have the address with another one.
    ...(attachment.interface.mac === undefined ? [] : announced(device, has6))
  ]
  const neighbours = havingGateway(addresses).map(
    ({ gateway }): KernelObject => ({ kind: 'neighbour', device, ip: gateway, mac: hostMac(attachment) })
  )
  return [
    ...settings,
    ...addresses.map(({ prefix }) => podAddress(attachment, prefix, routed)),
    ...(attachment.interface.staysDown ? [] : [{ kind: 'link', name: device, up: true } as const]),
    // The gateway is then in none of the pod's subnets, and ARP is not needed: the host is the only one at the other
    // end.
    ...(routed ? neighbours : []),
    ...(isPtp ? subnetByGateway(device, addresses) : []),
    ...podRoutes(attachment, addresses, wiring.clusterNetworks).map((each) =>
      insideRoute(each, device, addresses, routed, isPtp)
    )
  ]
}

/**
 * In routed mode a pod is alone on its link and needs no subnet; like ptp it has one, but without the kernel's route to
 * it.
 */
function podAddress({ ifname, interface: { like } }: VethAttachment, prefix: Prefix, routed: boolean): KernelObject {
  if (like?.kind === 'ptp') return { ...address(ifname, prefix), noPrefixRoute: true } as KernelObject
  return address(ifname, routed ? hostPrefix(prefix.ip) : prefix)
}

const subnetByGateway = (device: string, addresses: readonly InterfaceAddress[]): readonly KernelObject[] =>
  havingGateway(addresses).flatMap(({ prefix, gateway }): readonly Route[] => [
    {
      ...route(hostPrefix(gateway), device),
      yields: true,
      source: prefix.ip,
      ...(gateway.family === 4 ? { scope: LINK_SCOPE } : {})
    },
    { ...route(network(prefix), device), yields: true, gateway, source: prefix.ip }
  ])

/** A route inside the pod, as it was configured and with the gateway filled in. */
export type PodRoute = {
  readonly config: InterfaceRoute
  readonly gateway?: Ip
  /** Not configured, but part of this kind of interface. */
  readonly isImplied: boolean
}

/**
 * The configured routes, and default routes unless configured; without `isDefaultGateway`, routes to the cluster's
 * networks instead.
 */
export function podRoutes(
  attachment: Pick<Attachment, 'ipam' | 'ipamResult'> & { readonly interface: Pick<Veth, 'isDefaultGateway' | 'like'> },
  addresses: readonly InterfaceAddress[],
  clusterNetworks: readonly Prefix[]
): readonly PodRoute[] {
  const families = FAMILIES.filter((family) => addresses.some(({ prefix }) => prefix.ip.family === family))
  const configured = attachment.ipam?.routes ?? attachment.ipamResult?.routes ?? []
  const implied = attachment.interface.isDefaultGateway
    ? families.map(everything)
    : attachment.interface.like !== undefined
      ? []
      : clusterNetworks.filter(({ ip }) => families.includes(ip.family))
  const podRoute = (config: InterfaceRoute, isImplied: boolean): PodRoute => {
    const { family } = config.destination.ip
    const gateway = config.gateway ?? addresses.find(({ prefix }) => prefix.ip.family === family)?.gateway
    return { config, isImplied, ...(gateway === undefined ? {} : { gateway }) }
  }
  return [
    ...configured.map((config) => podRoute(config, false)),
    ...implied
      .filter((destination) => !configured.some((each) => samePrefix(each.destination, destination)))
      .map((destination) => podRoute({ destination }, true))
  ]
}

export function insideRoute(
  { config, gateway }: PodRoute,
  device: string,
  addresses: readonly InterfaceAddress[],
  routed: boolean,
  isPtp: boolean
): Route {
  const { destination, priority, table, scope, mtu } = config
  const toNode =
    gateway !== undefined &&
    addresses.some((each) => sameIp(each.gateway, gateway) || (isPtp && contains(each.prefix, gateway)))
  return {
    ...route(destination, device),
    yields: true,
    ...(gateway === undefined ? {} : { gateway }),
    ...(routed && toNode ? { onlink: true } : {}),
    ...(priority === undefined ? {} : { metric: priority }),
    ...(table === undefined || table === 0 ? {} : { table }),
    ...(scope === undefined ? {} : { scope }),
    ...(mtu === undefined || mtu === 0 ? {} : { mtu })
  }
}
