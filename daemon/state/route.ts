// The type of a route, in any table and of either family.
import type { Family, Ip, Prefix } from '../../ipam/address.ts'

/** Number of the table main (RT_TABLE_MAIN). */
export const MAIN_TABLE = 254
/** rtnetlink scopes: of a route without a gateway, and of an address that is valid on this host only. */
export const LINK_SCOPE = 253
export const HOST_SCOPE = 254

/** The kernel's metric of routes that name none (for IPv6 IP6_RT_PRIO_USER). */
export const defaultMetric = (family: Family): number => (family === 4 ? 0 : 1024)
/** The kernel's metric of the route that it adds with an address (for IPv6 IP6_RT_PRIO_ADDRCONF). */
export const connectedMetric = (family: Family): number => (family === 4 ? 0 : 256)

export type RouteType = 'unicast' | 'blackhole' | 'unreachable' | 'prohibit' | 'local' | 'other'

export type NextHop = { readonly device?: string; readonly gateway?: Ip }

export type Route = {
  /** Why it is desired, as for every object (object.ts). */
  readonly because?: string
  readonly kind: 'route'
  /** Routing table number. */
  readonly table: number
  readonly destination: Prefix
  /** Priority; smaller wins. */
  readonly metric: number
  readonly type: RouteType
  readonly device?: string
  readonly gateway?: Ip
  /**
   * Of a route with several next hops, also by a nexthop object (`ip nexthop`), which has neither `device` nor
   * `gateway`. Only observed.
   */
  readonly nextHops?: readonly NextHop[]
  /** The nexthop object that the route uses. Only observed. */
  readonly nextHopId?: number
  /** Type of service: only packets that have it take the route. Only observed; absent: all packets. */
  readonly tos?: number
  /** Preferred source address. */
  readonly source?: Ip
  /** The gateway counts as reachable on `device` although it is in no prefix of the device (RTNH_F_ONLINK). */
  readonly onlink?: boolean
  /** rtnetlink scope: 0 global, 253 link. */
  readonly scope?: number
  /** rtm_protocol: who created it. Weft's is in ownership.ts. */
  readonly protocol: number
  readonly mtu?: number
  /**
   * The kernel adds the route by itself with this address of the device: it is missing only if somebody removed it
   * afterwards. Its source is the kernel's choice among the device's addresses of the prefix. Not compared.
   */
  readonly withAddress?: Prefix
  /** An existing route with the same key stays: the kernel answers EEXIST. Set, not compared. */
  readonly yields?: boolean
}

/** Where the route sends packets: its own next hop, or several. */
export const hopsOf = ({ device, gateway, nextHops }: Route): readonly NextHop[] =>
  nextHops ?? [{ ...(device !== undefined && { device }), ...(gateway !== undefined && { gateway }) }]

/** The devices by which packets leave. */
export const devicesOf = (route: Route): readonly string[] => hopsOf(route).flatMap(({ device }) => device ?? [])

/** A default route of the table main. */
export const isDefaultRoute = ({ destination, table }: Route): boolean =>
  destination.length === 0 && table === MAIN_TABLE
