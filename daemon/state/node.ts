// Facts about this node that backends and pods need: the result of choosing an interface and holding a lease.
import type { Ip, PerFamily, Prefix } from '../../ipam/address.ts'
import type { Json } from '../config/json.ts'
import type { Link } from './object.ts'

/**
 * Smallest MTU per family in bytes: ETH_MIN_MTU of Linux; below the minimum of IPv6 (RFC 8200, section 5) Linux
 * disables IPv6 on the device, with all its settings.
 */
export const LEAST_MTU = { 4: 68, 6: 1_280 } as const

export type Node = {
  /** Kubernetes node name, or the host name. */
  readonly name: string
  /** Stable for the life of the installation and different on every node: MAC addresses are derived from it. */
  readonly identity: string
  /** The interface to the other nodes, with its MTU in bytes and its addresses. */
  readonly device: string
  readonly deviceMtu: number
  readonly addresses: readonly Prefix[]
  /** The source address on `device` of packets to other nodes. */
  readonly localIp: PerFamily<Ip>
  /** The address other nodes send to; differs from `localIp` behind NAT or by --public-ip. */
  readonly publicIp: PerFamily<Ip>
  /** The leased subnets. */
  readonly subnet: PerFamily<Prefix>
  /** Whether this kernel has IPv6 at all (/proc/sys/net/ipv6 is there). */
  readonly ipv6: boolean
  /** Devices that a backend recognised on this host when weftd first joined: the configured backend may adopt one. */
  readonly links: readonly Link[]
  /**
   * The backend data of our lease as last held, by tunnel family: what the backend keeps of it survives restarts. Empty
   * before the first lease.
   */
  readonly remembered: PerFamily<Json>
  /** The way of the backend's that this kernel can do; absent for backends without a choice (`dataPaths`). */
  readonly dataPath?: string
  /** Devices of earlier configurations that are still in use: a device that is made gets another name. */
  readonly kept?: readonly string[]
  /** The backend's secret of this host, such as a private key; absent for backends without one. */
  readonly secret?: string
  /** The public half of the secret, where that is a key with one (`HostSecret.keyPair`). */
  readonly publicKey?: string
  /** What the backend's command before the lease printed (`Commands.beforeLease`); absent without one. */
  readonly printed?: string
}
