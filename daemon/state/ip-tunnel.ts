// IPv4 tunnels without a header of their own: the form of an ipip link, and the kernel's FOU ports (foo over UDP), which
// hand the payload of UDP datagrams to an IP protocol.
import type { Ip } from '../../ipam/address.ts'

/** UDP in front of the inner packet (`encap fou`). */
export type FouEncapsulation = {
  readonly sourcePort: number
  readonly destinationPort: number
  /** The outer UDP header has a checksum. */
  readonly checksum: boolean
}

/**
 * To any destination: a route's gateway is the outer one. Time to live 64, and the outer packet may not be fragmented
 * (DF); both are set and not compared.
 */
export type IpipForm = {
  readonly type: 'ipip'
  /**
   * Outer source address. Without one the kernel's own device `tunl0` would get the packets: it takes those that no
   * other device has the address of.
   */
  readonly local: Ip
  readonly fou?: FouEncapsulation
}

/** IPPROTO_IPIP: the payload is an IPv4 packet. */
export const IPIP = 4

/**
 * A UDP port of this host (`ip fou`). It excludes a socket on the same address and port. The kernel notifies no change
 * of it, so that only a dump shows it.
 */
export type FouPort = {
  readonly because?: string
  readonly kind: 'fou'
  readonly port: number
  /** Absent: on all addresses. */
  readonly local?: Ip
  /** The IP protocol that the payload is handed to. */
  readonly protocol: number
  /**
   * Only observed: made by Weft, which a flag of the port says that has a meaning for GUE alone (remcsum-nopartial).
   */
  readonly marked?: true
}
