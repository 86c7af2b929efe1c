// udp backend, flannel's default: a pod's IPv4 packet is the payload of one UDP datagram from Port to Port, without any
// header of its own.
import type { Ip, PerFamily, Prefix } from '../../ipam/address.ts'
import type { Json, JsonObject } from '../config/json.ts'
import { integerKey } from '../config/keys.ts'
import type { Lease } from '../lease/lease.ts'
import type { Feature } from '../state/feature.ts'
import { type FouEncapsulation, IPIP } from '../state/ip-tunnel.ts'
import type { Node } from '../state/node.ts'
import type { KernelObject } from '../state/object.ts'
import type { Recognised } from '../state/ownership.ts'
import type { Backend, BackendPort, Claim, DataPath, Device, TunnelEntry } from './backend.ts'
import { ipipDevice, ipv4Peer, ipv4Underlay, tunnelRoute } from './ipv4-tunnel.ts'
import { ownTun, peerByTun, recognisesTun, TUN_DEVICE, tunFeatures } from './udp-tun.ts'

export type UdpConfig = { readonly port: number }

/** Bytes that encapsulation adds: outer IPv4 and UDP. */
const OVERHEAD = 28
/** On FOU; there is one udp network on a host at most. */
const DEVICE = 'weft.udp'

/**
 * The kernel's foo-over-UDP makes and takes exactly these datagrams, without a process on the packets' path: an ipip
 * device puts the outer headers in front, and a FOU port hands the payload of what comes to Port to the same device.
 * Source port and checksum are as flanneld has them.
 */
const encapsulation = ({ port }: UdpConfig): FouEncapsulation => ({
  sourcePort: port,
  destinationPort: port,
  checksum: true
})

/** Without an address: `lo`, which is down in a trial, has none. */
function fouFeatures(config: UdpConfig): readonly Feature[] {
  const local: Ip = { family: 4, value: 0x7f00_0001n }
  return [
    { kind: 'fou', port: config.port, protocol: IPIP },
    { kind: 'link', name: 'try-udp', form: { type: 'ipip', local, fou: encapsulation(config) } }
  ]
}

export const udp = {
  type: 'udp',
  keys: {
    Port: {
      rule: '0 to 65535',
      default: '8285',
      meaning: 'UDP port, from which and to which all nodes send; 0 means 8285'
    }
  },

  config: (keys: JsonObject): UdpConfig => ({
    port: integerKey(keys, 'Port', { default: 8285, min: 0, max: 65_535 }) || 8285
  }),

  features: (): readonly Feature[] => [],

  dataPaths: (config: UdpConfig): readonly DataPath[] => [
    { name: 'fou', features: fouFeatures(config) },
    { name: 'tun', features: tunFeatures() }
  ],

  recognises: (device: Device): Recognised | undefined => {
    const { name, form } = device
    if (name === DEVICE) return form === undefined || form.type === 'ipip' ? 'own' : undefined
    return recognisesTun(device)
  },
  flannelDevice: { name: /^flannel\d+$/, outlivesFlanneld: false },

  ports: ({ port }: UdpConfig): readonly BackendPort[] => [{ protocol: 'udp', port, key: 'Backend.Port' }],

  entry: ({ dataPath }: Node, { port }: UdpConfig): TunnelEntry => ({
    outer: `udp dport ${port}`,
    device: dataPath === 'tun' ? TUN_DEVICE : DEVICE
  }),

  refusesRest: true as const,

  claims: (): readonly Claim[] => [],
  namesOurDevice: (): boolean => false,
  namesAnotherDevice: (): boolean => false,

  mtu: (node: Node): number => ipv4Underlay('udp', node, OVERHEAD) - OVERHEAD,
  underlayMtu: (node: Node): number => ipv4Underlay('udp', node, OVERHEAD),

  /** flanneld's leases of this backend have no data. */
  publish: (): PerFamily<Json> => ({}),

  own: (node: Node, config: UdpConfig): readonly KernelObject[] =>
    node.dataPath === 'tun' ? ownTun(node, config.port, node.deviceMtu - OVERHEAD) : ownFou(node, config),

  /** The device's, flanneld's too. */
  held: (subnet: Prefix): Ip => subnet.ip,
  heldByAll: true,

  peer: (lease: Lease, node: Node): readonly KernelObject[] => {
    const peer = ipv4Peer(lease)
    if (peer === undefined) return []
    if (node.dataPath === 'tun') return peerByTun(peer.subnet, peer.publicIp, peer.because)
    return [tunnelRoute(DEVICE, peer.subnet, peer.publicIp, peer.because)]
  }
} satisfies Backend<UdpConfig>

/**
 * Transmit checksum offload is off: on a link that passes unfinished checksums on, as between the namespaces of one
 * machine, a peer that takes datagrams from a socket gets TCP packets whose inner checksum nobody has finished.
 */
function ownFou(node: Node, config: UdpConfig): readonly KernelObject[] {
  const local = node.localIp[4]
  if (local === undefined) return []
  const because = `our end of the UDP tunnel on port ${config.port}`
  return [
    { kind: 'fou', port: config.port, local, protocol: IPIP, because },
    ...ipipDevice(node, { name: DEVICE, mtu: node.deviceMtu - OVERHEAD, fou: encapsulation(config), because }),
    { kind: 'offload', device: DEVICE, transmitChecksum: false, because }
  ]
}
