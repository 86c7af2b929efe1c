// Facts about one node that backends and pods need: the result of choosing an interface and holding a lease.
import type { Ip, PerFamily, Prefix } from '../../ipam/address.ts'
import type { Link, Mac } from './object.ts'

/** Bytes. Linux takes no less for a device (ETH_MIN_MTU), and takes IPv6 off one below its own least (RFC 8200, section 5), with all its settings. */
export const LEAST_MTU = { 4: 68, 6: 1_280 } as const

export type Node = {
  /** Kubernetes node name, or the host name. */
  readonly name: string
  /** What the VTEP MAC is derived from: stable for the life of the installation, different on every node. */
  readonly identity: string
  /** The link that faces the other nodes, with its MTU in bytes and its addresses. */
  readonly device: string
  readonly deviceMtu: number
  readonly addresses: readonly Prefix[]
  /** The address on `device` that packets to other nodes leave with. */
  readonly localIp: PerFamily<Ip>
  /** The address other nodes send to; differs from `localIp` behind NAT or when the administrator says so. */
  readonly publicIp: PerFamily<Ip>
  /** The leased subnets. */
  readonly subnet: PerFamily<Prefix>
  /** Whether this kernel has IPv6 at all (/proc/sys/net/ipv6 is there). */
  readonly ipv6: boolean
  /** VXLAN devices that existed when the node was looked at: one with our VNI and port is adopted under its own name. */
  readonly tunnels: readonly Link[]
  /** VTEP MAC that our lease already publishes, by tunnel family; wins over the derived one. */
  readonly publishedMac: PerFamily<Mac>
}
