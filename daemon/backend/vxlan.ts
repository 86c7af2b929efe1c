// VXLAN (RFC 7348) as flannel lays it out: one device a node, and for each peer a neighbour, an FDB entry and a route; plain routes where nodes share a link.
import {
  type Family,
  formatIp,
  formatPrefix,
  hostPrefix,
  type PerFamily,
  type Prefix,
  perFamily
} from '../../ipam/address.ts'
import { WeftError } from '../base/error.ts'
import { booleanKey, findKey, integerKey } from '../config/keys.ts'
import type { Json, JsonObject } from '../config/net-conf.ts'
import { type Lease, leaseKey } from '../lease/lease.ts'
import { digest } from '../state/digest.ts'
import { LEAST_MTU, type Node } from '../state/node.ts'
import { defaultMetric, type KernelObject, type Link, type Mac, type Route } from '../state/object.ts'
import { flannelName, ROUTE_PROTOCOL, vxlanName } from '../state/ownership.ts'
import type { Backend } from './backend.ts'
import { directRoute, onLink } from './direct.ts'
import { underlayMtu } from './underlay-mtu.ts'
import { publishedVtepMac } from './vtep-mac.ts'

export type VxlanConfig = {
  /** Network identifier, 1 to 2^24 − 1. */
  readonly vni: number
  /** Outer UDP destination port; 8472 is what Linux and flannel use, IANA's is 4789. */
  readonly port: number
  /** MTU in bytes of the underlay, where the interface's own is not the truth. 0: the interface's. */
  readonly underlayMtu: number
  /** Plain routes to peers on our own link. */
  readonly directRouting: boolean
  readonly gbp: boolean
  readonly learning: boolean
}

/** Bytes that encapsulation adds: outer IP 20 or 40, UDP 8, VXLAN 8, inner Ethernet 14. */
const OVERHEAD = { 4: 50, 6: 70 } as const

export const vxlan = {
  type: 'vxlan',
  keys: ['VNI', 'Port', 'MTU', 'DirectRouting', 'GBP', 'Learning'],

  config: (keys: JsonObject): VxlanConfig => ({
    vni: integerKey(keys, 'VNI', { default: 1, min: 1, max: 0xff_ffff }),
    port: integerKey(keys, 'Port', { default: 0, min: 0, max: 65_535 }) || 8472,
    underlayMtu: integerKey(keys, 'MTU', { default: 0, min: 0, max: 65_535 }),
    directRouting: booleanKey(keys, 'DirectRouting', true),
    gbp: booleanKey(keys, 'GBP', false),
    learning: booleanKey(keys, 'Learning', false)
  }),

  mtu: (node: Node, config: VxlanConfig): number =>
    carried(node, config) - Math.max(...perFamily(node.subnet).map(([family]) => OVERHEAD[family])),

  underlayMtu: (node: Node, config: VxlanConfig): number => carried(node, config),

  publish: (node: Omit<Node, 'subnet'>, config: VxlanConfig): PerFamily<Json> =>
    Object.fromEntries(
      perFamily(node.publicIp).map(([family]) => [family, { VNI: config.vni, VtepMAC: vtepMac(node, config, family) }])
    ),

  own: (node: Node, config: VxlanConfig): readonly KernelObject[] =>
    perFamily(node.subnet).flatMap(([family, subnet]) => tunnel(node, config, family, subnet)),

  peer: (lease: Lease, node: Node, config: VxlanConfig): readonly KernelObject[] =>
    perFamily(lease.subnet).flatMap(([family, subnet]) =>
      node.subnet[family] === undefined ? [] : remote(lease, node, config, family, subnet)
    )
} satisfies Backend<VxlanConfig>

const carried = (node: Node, config: VxlanConfig): number =>
  underlayMtu(
    config.underlayMtu,
    node,
    perFamily(node.subnet).map(([family]) => [family, OVERHEAD[family]])
  )

const deviceMtu = (node: Node, config: VxlanConfig, family: Family): number =>
  (config.underlayMtu || node.deviceMtu) - OVERHEAD[family]

/** The name of our device: that of a device with our VNI and port which is there already, flanneld's included. */
function deviceName(node: Omit<Node, 'subnet'>, config: VxlanConfig, family: Family): string {
  const names = [vxlanName(config.vni, family), flannelName(config.vni, family)]
  const adopted = node.tunnels.find(
    ({ name, form }) =>
      names.includes(name) && form?.type === 'vxlan' && form.vni === config.vni && form.port === config.port
  )
  return adopted?.name ?? vxlanName(config.vni, family)
}

/** The MAC our lease already publishes, else one derived from the node: locally administered, unicast, the same after every restart. */
function vtepMac(node: Omit<Node, 'subnet'>, config: VxlanConfig, family: Family): Mac {
  const hex = digest(`vtep ${node.identity} ${config.vni} ${family}`)
  const first = ((Number.parseInt(hex.slice(0, 2), 16) & 0xfc) | 0x02).toString(16).padStart(2, '0')
  return (
    node.publishedMac[family] ??
    ([first, hex.slice(2, 4), hex.slice(4, 6), hex.slice(6, 8), hex.slice(8, 10), hex.slice(10, 12)].join(':') as Mac)
  )
}

function tunnel(node: Node, config: VxlanConfig, family: Family, subnet: Prefix): readonly KernelObject[] {
  const local = node.localIp[family]
  if (local === undefined) return []
  const name = deviceName(node, config, family)
  const because = `our end of VXLAN ${config.vni}`
  const mtu = deviceMtu(node, config, family)
  const device: Link = {
    kind: 'link',
    name,
    form: {
      type: 'vxlan',
      vni: config.vni,
      port: config.port,
      local,
      parent: node.device,
      learning: config.learning,
      gbp: config.gbp
    },
    mac: vtepMac(node, config, family),
    mtu,
    up: true,
    because
  }
  return [
    device,
    { kind: 'address', device: name, prefix: hostPrefix(subnet.ip), scope: 0, nodad: true, because },
    ...settings(node.ipv6 && mtu >= LEAST_MTU[6], name, because)
  ]
}

/**
 * Router advertisements must not configure the tunnel; and a peer without direct routing sends through the tunnel what we answer outside of it,
 * which a strict reverse path filter (RFC 3704, rp_filter 1) on all interfaces would drop: ours is loose.
 */
const settings = (has6: boolean, name: string, because: string): readonly KernelObject[] => [
  { kind: 'sysctl', path: `net/ipv4/conf/${name}/rp_filter`, value: '2', because },
  ...(has6 ? [{ kind: 'sysctl', path: `net/ipv6/conf/${name}/accept_ra`, value: '0', because } as const] : [])
]

function remote(
  lease: Lease,
  node: Node,
  config: VxlanConfig,
  family: Family,
  subnet: Prefix
): readonly KernelObject[] {
  const publicIp = lease.publicIp[family]
  if (publicIp === undefined)
    throw malformed(lease, `has a subnet ${formatPrefix(subnet)} but no public IPv${family} address`)
  const because = `lease ${leaseKey(lease)} of ${formatIp(publicIp)}`
  const mac = peerMac(lease, config, family)
  if (config.directRouting && onLink(node, publicIp)) return [directRoute(node, subnet, publicIp, because)]
  const device = deviceName(node, config, family)
  const route: Route = {
    kind: 'route',
    table: 254,
    destination: subnet,
    metric: defaultMetric(family),
    type: 'unicast',
    device,
    gateway: subnet.ip,
    onlink: true,
    protocol: ROUTE_PROTOCOL,
    because
  }
  return [
    { kind: 'neighbour', device, ip: subnet.ip, mac, because },
    { kind: 'fdb', device, mac, destination: publicIp, because },
    route
  ]
}

function peerMac(lease: Lease, config: VxlanConfig, family: Family): Mac {
  const published = lease.backendData[family]
  const keys =
    typeof published === 'object' && published !== null && !Array.isArray(published) ? (published as JsonObject) : {}
  const { written, mac } = publishedVtepMac(published)
  if (mac === undefined || !isStation(mac))
    throw malformed(lease, `has VtepMAC ${JSON.stringify(written)}, which is not the MAC address of a station`)
  const vni = findKey(keys, 'VNI')?.value ?? config.vni
  if (vni !== config.vni)
    throw malformed(lease, `is in VNI ${JSON.stringify(vni)}, and this network's is ${config.vni}`)
  return mac
}

/** Not all zero, and not of a group (IEEE 802: the lowest bit of the first octet). */
const isStation = (mac: Mac): boolean => mac !== '00:00:00:00:00:00' && (Number.parseInt(mac.slice(0, 2), 16) & 1) === 0

const malformed = (lease: Lease, what: string): WeftError =>
  new WeftError(
    'LEASE_MALFORMED',
    `lease ${leaseKey(lease)} ${what}`,
    'restart the daemon of the node that holds it, or delete the key'
  )
