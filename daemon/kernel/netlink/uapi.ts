// Numbers of Linux' rtnetlink interface that encoder and decoder share, under the kernel's own names.
// From <linux/rtnetlink.h>, <linux/if_link.h>, <linux/if_addr.h>, <linux/neighbour.h>, <linux/veth.h>, <linux/if.h>.
import type { Family } from '../../../ipam/address.ts'

export const AF_UNSPEC = 0
export const AF_BRIDGE = 7
const AF_INET = 2
export const AF_INET6 = 10
export const afOf = (family: Family): number => (family === 4 ? AF_INET : AF_INET6)
export const familyOf = (af: number): Family | undefined => (af === AF_INET ? 4 : af === AF_INET6 ? 6 : undefined)

export const RTM = {
  newLink: 16,
  deleteLink: 17,
  getLink: 18,
  setLink: 19,
  newAddress: 20,
  deleteAddress: 21,
  getAddress: 22,
  newRoute: 24,
  deleteRoute: 25,
  getRoute: 26,
  newNeighbour: 28,
  deleteNeighbour: 29,
  getNeighbour: 30,
  newRule: 32,
  deleteRule: 33,
  getRule: 34,
  newQdisc: 36,
  deleteQdisc: 37,
  getQdisc: 38,
  newClass: 40,
  getClass: 42,
  newFilter: 44,
  deleteFilter: 45,
  getFilter: 46,
  newNetconf: 80,
  newNextHop: 104,
  deleteNextHop: 105,
  getNextHop: 106
} as const

/** Multicast groups (RTNLGRP_…); FDB entries are notified in the neighbours' group with family AF_BRIDGE. */
export const GROUPS = {
  link: 1,
  neighbour: 3,
  traffic: 4,
  address4: 5,
  route4: 7,
  rule4: 8,
  address6: 9,
  route6: 11,
  rule6: 19,
  netconf4: 24,
  netconf6: 25,
  nextHop: 32
} as const

export const IFF_UP = 1
export const IFF_POINTOPOINT = 0x10
export const IFF_NOARP = 0x80
export const IFF_PROMISC = 0x100
export const IFF_ALLMULTI = 0x200
export const IFLA = {
  address: 1,
  ifname: 3,
  mtu: 4,
  link: 5,
  master: 10,
  protinfo: 12,
  txQueueLength: 13,
  linkinfo: 18,
  ifalias: 20,
  afSpec: 26,
  group: 27,
  netNsFd: 28,
  extMask: 29,
  carrier: 33,
  propList: 52,
  altIfname: 53
} as const
/** <linux/netconf.h>: settings of a device, or of all of them, after struct netconfmsg (one octet, padded to four). */
export const NETCONFA = { ifindex: 1, forwarding: 2, rpFilter: 3, proxyNeighbour: 5 } as const
/** NETCONFA_IFINDEX_ALL, -1: what `net.ipv4.ip_forward` and `net.ipv6.conf.all` set. */
export const ALL_DEVICES = 0xffff_ffff
export const IFLA_INFO = { kind: 1, data: 2, slaveKind: 4, slaveData: 5 } as const
/** RTEXT_FILTER_SKIP_STATS: a dump of links without their counters is a third of the size. */
export const SKIP_STATS = 8
export const IFLA_VXLAN = { id: 1, link: 3, local: 4, learning: 7, port: 15, local6: 17, gbp: 23 } as const
export const IFLA_BRPORT_MODE = 4
export const IFLA_BRPORT_ISOLATED = 33
/** <linux/if_bridge.h>, in IFLA_AF_SPEC of messages with family AF_BRIDGE. */
export const IFLA_BRIDGE = { flags: 0, vlanInfo: 2 } as const
export const BRIDGE_FLAGS_SELF = 2
export const VLAN_INFO = { pvid: 2, untagged: 4, rangeBegin: 8, rangeEnd: 16 } as const
/** RTEXT_FILTER_BRVLAN_COMPRESSED: a dump of bridge ports with their VLANs, in ranges. */
export const WITH_VLANS = 4
export const IFLA_BR_VLAN_FILTERING = 7
/** Beside a link's IFLA_LINK: that device is in another namespace. */
export const IFLA_LINK_NETNSID = 37
export const IFLA_VLAN = { id: 1, protocol: 5 } as const
export const ETH_P_8021Q = 0x8100
export const IFLA_MACVLAN = { mode: 1, broadcastQueue: 7 } as const
export const MACVLAN_MODE = { private: 1, vepa: 2, bridge: 4, passthru: 8 } as const
/** Within IFLA_AF_SPEC's AF_INET6: how link-local addresses are generated; 0 is eui64, 1 none. */
export const IFLA_INET6_ADDR_GEN_MODE = 8
export const VETH_INFO_PEER = 1
/** <linux/if_link.h>, <linux/if_tun.h>; only read: TUN devices are made by ioctl(2). */
export const IFLA_TUN = { type: 3, persist: 6 } as const
export const IFF_TUN = 1

export const IFA = { address: 1, local: 2, lifetimes: 6, flags: 8 } as const
export const IFA_F = {
  secondary: 0x01,
  noDad: 0x02,
  optimistic: 0x04,
  dadFailed: 0x08,
  deprecated: 0x20,
  tentative: 0x40,
  permanent: 0x80,
  noPrefixRoute: 0x200
} as const

export const RTA = {
  dst: 1,
  src: 2,
  iif: 3,
  oif: 4,
  gateway: 5,
  priority: 6,
  prefsrc: 7,
  metrics: 8,
  multipath: 9,
  table: 15,
  via: 18,
  nextHopId: 30
} as const
/** <linux/nexthop.h>, after struct nhmsg. */
export const NHA = { id: 1, group: 2, oif: 5, gateway: 6 } as const
export const RTAX_MTU = 2
export const RTNH_F_ONLINK = 4
/** RTM_F_CLONED: a cached copy of a route. */
export const RTM_F_CLONED = 0x200
/** The answer to a look-up names the table; it is the table's entry, not what became of it. */
export const RTM_F_LOOKUP_TABLE = 0x1000
export const RTM_F_FIB_MATCH = 0x2000
/** <linux/fib_rules.h>, after struct fib_rule_hdr. */
export const FRA = { dst: 1, src: 2, iifname: 3, priority: 6, fwmark: 10, table: 15, fwmask: 16, oifname: 17 } as const
export const FR_ACT_TO_TBL = 1
export const RT_SCOPE_NOWHERE = 255
export const RT_TABLE_LOCAL = 255
export const RTN = { unicast: 1, local: 2, blackhole: 6, unreachable: 7, prohibit: 8 } as const

export const NDA = { dst: 1, lladdr: 2, protocol: 12 } as const
export const NUD_PERMANENT = 0x80
export const NTF_SELF = 2
/** A proxy entry; they are dumped separately. */
export const NTF_PROXY = 8
