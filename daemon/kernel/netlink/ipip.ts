// Encodes and decodes the creation parameters of ipip links (IFLA_INFO_DATA, <linux/if_tunnel.h>).
import { ipBytes, ipFromBytes, isUnspecified } from '../../../ipam/address.ts'
import type { FouEncapsulation, IpipForm } from '../../state/ip-tunnel.ts'
import type { Attributes, MessageWriter } from './message.ts'

const IFLA_IPTUN = {
  ...{ local: 2, remote: 3, ttl: 4, pathMtuDiscovery: 10 },
  ...{ encapType: 15, encapFlags: 16, encapSourcePort: 17, encapDestinationPort: 18, external: 19 }
} as const
/** enum tunnel_encap_types. */
const TUNNEL_ENCAP_FOU = 1
const TUNNEL_ENCAP_FLAG_CSUM = 1
const TTL = 64
const NONE = new Uint8Array(0)

export function writeIpip(data: MessageWriter, { local, fou }: IpipForm): void {
  data.bytes(IFLA_IPTUN.local, ipBytes(local)).u8(IFLA_IPTUN.ttl, TTL).u8(IFLA_IPTUN.pathMtuDiscovery, 1)
  if (fou === undefined) return
  data
    .bytes(IFLA_IPTUN.encapType, [TUNNEL_ENCAP_FOU, 0])
    .bytes(IFLA_IPTUN.encapFlags, [fou.checksum ? TUNNEL_ENCAP_FLAG_CSUM : 0, 0])
    .port(IFLA_IPTUN.encapSourcePort, fou.sourcePort)
    .port(IFLA_IPTUN.encapDestinationPort, fou.destinationPort)
}

/**
 * `undefined` for a tunnel of a form that Weft makes none of: without a source address, with one destination, with the
 * destination from the route's encapsulation, or in another encapsulation than FOU.
 */
export function readIpip(data: Attributes | undefined): IpipForm | undefined {
  const local = ipFromBytes(data?.bytes(IFLA_IPTUN.local) ?? NONE)
  const remote = ipFromBytes(data?.bytes(IFLA_IPTUN.remote) ?? NONE)
  if (data === undefined || local === undefined || isUnspecified(local) || data.has(IFLA_IPTUN.external))
    return undefined
  if (remote !== undefined && !isUnspecified(remote)) return undefined
  const encapsulation = u16(data, IFLA_IPTUN.encapType)
  if (encapsulation === 0) return { type: 'ipip', local }
  return encapsulation === TUNNEL_ENCAP_FOU ? { type: 'ipip', local, fou: readFou(data) } : undefined
}

const readFou = (data: Attributes): FouEncapsulation => ({
  sourcePort: data.port(IFLA_IPTUN.encapSourcePort) ?? 0,
  destinationPort: data.port(IFLA_IPTUN.encapDestinationPort) ?? 0,
  checksum: (u16(data, IFLA_IPTUN.encapFlags) & TUNNEL_ENCAP_FLAG_CSUM) !== 0
})

/** In host order, unlike ports. */
function u16(data: Attributes, type: number): number {
  const bytes = data.bytes(type)
  return bytes === undefined || bytes.length < 2 ? 0 : bytes.readUInt16LE(0)
}
