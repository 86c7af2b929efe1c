// VXLAN backend (RFC 7348) in flannel's layout: one device per node and family; per peer a neighbour, an FDB entry and
// a route, or with DirectRouting a direct route to a peer on our link.
import {
  type Family,
  formatIp,
  formatPrefix,
  hostPrefix,
  type Ip,
  type PerFamily,
  type Prefix,
  perFamily
} from '../../ipam/address.ts'
import { WeftError } from '../base/error.ts'
import type { Json, JsonObject } from '../config/json.ts'
import { booleanKey, findKey, integerKey } from '../config/keys.ts'
import { type Lease, leaseKey } from '../lease/lease.ts'
import { digest } from '../state/digest.ts'
import { LEAST_MTU, type Node } from '../state/node.ts'
import { type KernelObject, type Link, type Mac, parseMac, type Route } from '../state/object.ts'
import { type Recognised, ROUTE_PROTOCOL } from '../state/ownership.ts'
import { defaultMetric, MAIN_TABLE } from '../state/route.ts'
import type { Backend, BackendPort, Claim, Device, MarkedOuter, PeerRoutes } from './backend.ts'
import { directRoute, isOnLink, trialRoutes } from './direct.ts'
import { underlayMtu } from './underlay-mtu.ts'

export type VxlanConfig = {
  /** Network identifier, 1 to 2^24 − 1. */
  readonly vni: number
  /** Outer UDP destination port; 8472 is what Linux and flannel use, IANA's is 4789. */
  readonly port: number
  /** MTU in bytes of the underlay, where the interface's own is not the right one. 0: the interface's. */
  readonly underlayMtu: number
  /** Direct routes to peers on our own link; absent: once probes have passed on them. */
  readonly directRouting?: boolean
  readonly gbp: boolean
  readonly learning: boolean
}

/**
 * A remote VTEP, as its lease publishes it. Three kernel objects lead to it; each answers one lookup on a packet's path
 * from a local pod to 10.244.2.7:
 *
 *     route      10.244.2.0/24 via 10.244.2.0 dev weft.1 onlink    inner destination → device and next hop
 *     neighbour  10.244.2.0 lladdr MAC dev weft.1                  next hop → destination of the inner Ethernet header
 *     FDB entry  MAC dev weft.1 dst PUBLIC-IP                      inner MAC → destination of the outer IP header
 *
 * 1. The route: its next hop is the address of the peer's VTEP, the first address of the peer's subnet. No prefix of
 * `weft.1` covers it, hence `onlink`. With IPv6 the next hop is the link-local address that belongs to the peer's MAC:
 * the kernel refuses a global one, onlink or not, where another route of the host covers it, such as a site's fd00::/8.
 * 2. The neighbour entry (ARP for IPv4, NDP for IPv6) is looked up by the next hop. It is permanent, since nobody would
 * answer a request: the device has no
 * default FDB entry, so nothing is flooded. The inner Ethernet header is complete now: from our VTEP MAC to the peer's.
 * 3. The FDB is looked up by that inner destination MAC, never by an IP address. A MAC without an entry means drop.
 * 4. The device puts VXLAN (8 bytes, the VNI), UDP (8, to `Port`, from a port derived from the inner flow) and IP (20
 * or 40, from the device's `local`
 *    address to the public IP) in front. That packet follows the host's ordinary routes out of `parent`.
 * 5. The peer's kernel finds its device by UDP port and VNI and removes the outer headers. Only a frame to the device's
 * own MAC is routed on to the pod, so
 *    that MAC has to remain the one in the lease.
 *
 * A direct route (`10.244.2.0/24 via PUBLIC-IP dev eth0`) needs none of this: ARP for the public IP on the real link,
 * no encapsulation.
 */
type Vtep = { readonly subnet: Prefix; readonly mac: Mac; readonly publicIp: Ip }

/** Linux', and so flannel's. */
const DEFAULT_PORT = 8472
const HEADERS = { udp: 8, vxlan: 8, ethernet: 14 } as const
/** Bytes that encapsulation adds: outer IP 20 or 40, UDP, VXLAN, inner Ethernet. */
const OVERHEAD = { 4: 50, 6: 70 } as const

/**
 * The device for network `vni` over this tunnel family. Linux takes 15 bytes at most (IFNAMSIZ), and a VNI has up to
 * eight digits.
 */
const weftName = (vni: number, family: Family): string => (family === 4 ? `weft.${vni}` : `weft6.${vni}`)
/** Further names, for a device with another port beside one that is still in use. */
const weftNames = (vni: number, family: Family): readonly string[] =>
  ['', 'b', 'c', 'd'].map((letter) => `${weftName(vni, family)}${letter}`)
/** flanneld's name for the same device. */
const flannelName = (vni: number, family: Family): string => (family === 4 ? `flannel.${vni}` : `flannel-v6.${vni}`)

const weftDevice = /^(weft|weft6)\.\d+[bcd]?$/
const flannelDevice = /^(flannel|flannel-v6)\.\d+$/

export const vxlan = {
  type: 'vxlan',
  keys: {
    VNI: { rule: '1 to 16777215', default: '1', meaning: 'network identifier; the device is called `weft.VNI`' },
    Port: { rule: '0 to 65535', default: '8472', meaning: 'outer UDP port; 0 means 8472; the IANA port is 4789' },
    MTU: {
      rule: "0, or 118 (with IPv6 1350) to the link's",
      default: "the link's",
      meaning: 'MTU of the link between the nodes; pods get 50 (IPv6: 70) bytes less for the encapsulation'
    },
    DirectRouting: {
      rule: 'true or false',
      default: 'once proven',
      meaning:
        "plain routes to nodes that the kernel reaches on the interface's own link, without a gateway; without it, to each once probes of full size have passed in both directions"
    },
    GBP: { rule: 'true or false', default: 'false', meaning: 'group policy extension' },
    Learning: { rule: 'true or false', default: 'false', meaning: 'let the device learn addresses; not required' }
  },

  config: (keys: JsonObject): VxlanConfig => ({
    vni: integerKey(keys, 'VNI', { default: 1, min: 1, max: 0xff_ffff }),
    port: integerKey(keys, 'Port', { default: 0, min: 0, max: 65_535 }) || DEFAULT_PORT,
    underlayMtu: integerKey(keys, 'MTU', { default: 0, min: 0, max: 65_535 }),
    ...(findKey(keys, 'DirectRouting') !== undefined && { directRouting: booleanKey(keys, 'DirectRouting', false) }),
    gbp: booleanKey(keys, 'GBP', false),
    learning: booleanKey(keys, 'Learning', false)
  }),

  features: (): readonly Link[] => {
    const local: Ip = { family: 4, value: 0x7f00_0001n }
    const form = { type: 'vxlan', vni: 1, port: 8472, local, parent: 'lo', learning: false, gbp: false } as const
    return [{ kind: 'link', name: 'try-vxlan', form }]
  },

  ports: ({ port }: VxlanConfig): readonly BackendPort[] => [{ protocol: 'udp', port, key: 'Backend.Port' }],

  /** With the group policy extension the mark would travel to the other node. */
  markedOuter: ({ port, gbp }: VxlanConfig): MarkedOuter | undefined =>
    gbp ? undefined : { port, innerAt: HEADERS.udp + HEADERS.vxlan + HEADERS.ethernet },

  recognises: ({ name, form }: Device): Recognised | undefined => {
    if (form !== undefined && form.type !== 'vxlan') return undefined
    if (weftDevice.test(name)) return 'own'
    if (flannelDevice.test(name)) return 'adoptable'
    return form === undefined ? undefined : 'foreign'
  },

  /**
   * A MAC is compared within its family, since each family has a device of its own; `by` is the public address, where
   * the tunnel leads.
   */
  claims: (lease: Lease): readonly Claim[] =>
    perFamily(lease.publicIp).flatMap(([family, ip]) => {
      const { mac } = publishedMac(lease.backendData[family])
      return mac === undefined
        ? []
        : [{ code: 'VTEP_MAC_CONFLICT', key: `${family} ${mac}`, text: mac, by: formatIp(ip) }]
    }),

  namesOurDevice: ({ backendData }: Lease, links: readonly Link[]): boolean =>
    perFamily(backendData).some(([, published]) => {
      const { mac } = publishedMac(published)
      return mac !== undefined && links.some((link) => link.form?.type === 'vxlan' && link.mac === mac)
    }),

  namesAnotherDevice: ({ backendData }: Lease, links: readonly Link[]): boolean => {
    const others = perFamily(backendData).map(([family, published]) => {
      const { mac } = publishedMac(published)
      const vni = findKey(asObject(published), 'VNI')?.value
      const names = typeof vni === 'number' ? [...weftNames(vni, family), flannelName(vni, family)] : []
      const devices = links.filter(({ name, form }) => form?.type === 'vxlan' && names.includes(name))
      return mac !== undefined && devices.length > 0 && devices.every((device) => device.mac !== mac)
    })
    return others.length > 0 && others.every(Boolean)
  },

  mtu: (node: Node, config: VxlanConfig): number =>
    carried(node, config) - Math.max(...perFamily(node.subnet).map(([family]) => OVERHEAD[family])),

  underlayMtu: (node: Node, config: VxlanConfig): number => carried(node, config),

  publish: (node: Omit<Node, 'subnet'>, config: VxlanConfig): PerFamily<Json> =>
    Object.fromEntries(
      perFamily(node.publicIp).map(([family]) => [
        family,
        {
          ...{ VNI: config.vni, VtepMAC: vtepMac(node, config, family) },
          ...(config.port !== DEFAULT_PORT && { Port: config.port })
        }
      ])
    ),

  /** Flannel's format has no port: weftd publishes one that is not the default, and a lease without can be of any. */
  serves: ({ backendData }: Lease, { vni, port }: VxlanConfig): boolean =>
    perFamily(backendData).every(([, published]) => {
      const value = (key: string) => findKey(asObject(published), key)?.value
      return (value('VNI') ?? vni) === vni && (value('Port') ?? port) === port
    }),

  own: (node: Node, config: VxlanConfig): readonly KernelObject[] =>
    perFamily(node.subnet).flatMap(([family, subnet]) => ownVtep(node, config, family, subnet)),

  flannelDevice: { name: /^flannel(-v6)?\.\d+$/, outlivesFlanneld: true },

  /** The VTEP's, flanneld's too. */
  held: (subnet: Prefix): Ip => subnet.ip,
  heldByAll: true,

  asksRoutes: ({ directRouting }: VxlanConfig): boolean => directRouting !== false,

  plain: ({ directRouting }: VxlanConfig) => (directRouting === false ? undefined : trialRoutes),

  peer: (lease: Lease, node: Node, config: VxlanConfig, routes: PeerRoutes): readonly KernelObject[] =>
    perFamily(lease.subnet).flatMap(([family, subnet]) => {
      if (node.subnet[family] === undefined) return []
      const vtep = remoteVtep(lease, config, family, subnet)
      const because = `lease ${leaseKey(lease)} of ${formatIp(vtep.publicIp)}`
      const isPlain = routes[family]?.passes ?? config.directRouting === true
      return isPlain && config.directRouting !== false && isOnLink(node, routes[family])
        ? [directRoute(node, subnet, vtep.publicIp, because)]
        : encapsulated(vtep, node, config, because)
    })
} satisfies Backend<VxlanConfig>

const carried = (node: Node, config: VxlanConfig): number =>
  underlayMtu(
    config.underlayMtu,
    node,
    perFamily(node.subnet).map(([family]) => [family, OVERHEAD[family]])
  )

const deviceMtu = (node: Node, config: VxlanConfig, family: Family): number =>
  (config.underlayMtu || node.deviceMtu) - OVERHEAD[family]

/**
 * The name of our device: that of an existing device with our VNI and port, flanneld's included. A device with another
 * port keeps its name while nodes that still use that port are reached through it.
 */
function deviceName(node: Omit<Node, 'subnet'>, config: VxlanConfig, family: Family): string {
  const names = weftNames(config.vni, family)
  const free = names.find((name) => node.kept?.includes(name) !== true)
  return existing(node, config, family)?.name ?? free ?? weftName(config.vni, family)
}

const existing = ({ links }: Omit<Node, 'subnet'>, { vni, port }: VxlanConfig, family: Family): Link | undefined =>
  links.find(
    ({ name, form }) =>
      [...weftNames(vni, family), flannelName(vni, family)].includes(name) &&
      form?.type === 'vxlan' &&
      form.vni === vni &&
      form.port === port
  )

/**
 * The MAC that our lease already publishes; else, while it publishes another backend, that of our device, which nodes
 * may still send to; else one derived from the node: locally administered, unicast, the same after every restart.
 */
function vtepMac(node: Omit<Node, 'subnet'>, config: VxlanConfig, family: Family): Mac {
  const hex = digest(`vtep ${node.identity} ${config.vni} ${family}`)
  const first = ((Number.parseInt(hex.slice(0, 2), 16) & 0xfc) | 0x02).toString(16).padStart(2, '0')
  return (
    publishedMac(node.remembered[family]).mac ??
    existing(node, config, family)?.mac ??
    ([first, hex.slice(2, 4), hex.slice(4, 6), hex.slice(6, 8), hex.slice(8, 10), hex.slice(10, 12)].join(':') as Mac)
  )
}

function ownVtep(node: Node, config: VxlanConfig, family: Family, subnet: Prefix): readonly KernelObject[] {
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
    ...settings(node.ipv6 && mtu >= LEAST_MTU[6], name, family, because)
  ]
}

/**
 * Router advertisements must not configure the device. And a peer without direct routing sends through the tunnel what
 * we answer outside of it, which a strict reverse path filter (RFC 3704, rp_filter 1) on all interfaces would drop:
 * ours is loose. The last one lets it carry its family's packets, whatever net.*.conf.default says.
 */
function settings(has6: boolean, name: string, family: Family, because: string): readonly KernelObject[] {
  const sysctl = (path: string, value: string): KernelObject => ({ kind: 'sysctl', path, value, because })
  return [
    sysctl(`net/ipv4/conf/${name}/rp_filter`, '2'),
    ...(has6 ? [sysctl(`net/ipv6/conf/${name}/accept_ra`, '0')] : []),
    ...(family === 4 ? [sysctl(`net/ipv4/conf/${name}/forwarding`, '1')] : []),
    ...(family === 6 && has6 ? [sysctl(`net/ipv6/conf/${name}/disable_ipv6`, '0')] : [])
  ]
}

/** Errors: LEASE_MALFORMED. */
function remoteVtep(lease: Lease, config: VxlanConfig, family: Family, subnet: Prefix): Vtep {
  const publicIp = lease.publicIp[family]
  if (publicIp === undefined)
    throw malformed(lease, `has a subnet ${formatPrefix(subnet)} but no public IPv${family} address`)
  return { subnet, mac: peerMac(lease, config, family), publicIp }
}

function encapsulated(
  { subnet, mac, publicIp }: Vtep,
  node: Node,
  config: VxlanConfig,
  because: string
): readonly KernelObject[] {
  const { family } = subnet.ip
  const device = deviceName(node, config, family)
  const gateway = family === 4 ? subnet.ip : linkLocal(mac)
  const route: Route = {
    kind: 'route',
    table: MAIN_TABLE,
    destination: subnet,
    metric: defaultMetric(family),
    type: 'unicast',
    device,
    gateway,
    ...(family === 4 && { onlink: true }),
    protocol: ROUTE_PROTOCOL,
    because
  }
  return [
    { kind: 'neighbour', device, ip: gateway, mac, because },
    { kind: 'fdb', device, mac, destination: publicIp, because },
    route
  ]
}

/** The address that RFC 4291, appendix A, derives from a MAC, whether or not the peer's device has it. */
function linkLocal(mac: Mac): Ip {
  const value = BigInt(`0x${mac.replaceAll(':', '')}`) ^ 0x0200_0000_0000n
  return { family: 6, value: (0xfe80n << 112n) | ((value >> 24n) << 40n) | (0xfffen << 24n) | (value & 0xff_ffffn) }
}

const asObject = (published: Json | undefined): JsonObject =>
  typeof published === 'object' && published !== null && !Array.isArray(published) ? (published as JsonObject) : {}

/** VtepMAC in backend data, in any letter case: as written, and as an address where it is one. */
function publishedMac(published: Json | undefined): { readonly written: Json; readonly mac: Mac | undefined } {
  const written = findKey(asObject(published), 'VtepMAC')?.value ?? null
  return { written, mac: typeof written === 'string' ? parseMac(written) : undefined }
}

function peerMac(lease: Lease, config: VxlanConfig, family: Family): Mac {
  const published = lease.backendData[family]
  const { written, mac } = publishedMac(published)
  if (mac === undefined || !isUnicast(mac))
    throw malformed(lease, `has VtepMAC ${JSON.stringify(written)}, which is not a unicast MAC address`)
  const vni = findKey(asObject(published), 'VNI')?.value ?? config.vni
  if (vni !== config.vni)
    throw malformed(lease, `is in VNI ${JSON.stringify(vni)}, and this network's is ${config.vni}`)
  const port = findKey(asObject(published), 'Port')?.value ?? config.port
  if (port !== config.port)
    throw malformed(lease, `is on port ${JSON.stringify(port)}, and this network's is ${config.port}`)
  return mac
}

/** Not all zero, and not of a group (IEEE 802: the lowest bit of the first octet). */
const isUnicast = (mac: Mac): boolean => mac !== '00:00:00:00:00:00' && (Number.parseInt(mac.slice(0, 2), 16) & 1) === 0

const malformed = (lease: Lease, what: string): WeftError =>
  new WeftError(
    'LEASE_MALFORMED',
    `lease ${leaseKey(lease)} ${what}`,
    'restart the daemon of the node that holds it, or delete the key'
  )
