// WireGuard backend in flannel's layout: an encrypted tunnel, one device (or one per family); per node a peer whose
// allowed addresses are its subnets, and a route.
import {
  FAMILIES,
  type Family,
  formatIp,
  formatPrefix,
  hostPrefix,
  type Ip,
  isPrivate,
  network,
  type PerFamily,
  type Prefix,
  perFamily
} from '../../ipam/address.ts'
import { WeftError } from '../base/error.ts'
import type { Json, JsonObject } from '../config/json.ts'
import { findKey, integerKey, invalid, textKey } from '../config/keys.ts'
import { type Lease, leaseKey } from '../lease/lease.ts'
import { LEAST_MTU, type Node } from '../state/node.ts'
import type { KernelObject, Link, Route } from '../state/object.ts'
import { type Recognised, ROUTE_PROTOCOL } from '../state/ownership.ts'
import { defaultMetric, MAIN_TABLE } from '../state/route.ts'
import { type Endpoint, isWgKey, Secret, sortedPrefixes, WG_NAMES } from '../state/wireguard.ts'
import type { Backend, BackendPort, Claim, Device, HostSecret } from './backend.ts'
import { underlayMtu } from './underlay-mtu.ts'

const MODES = ['separate', 'auto', 'ipv4', 'ipv6'] as const
type Mode = (typeof MODES)[number]

export type WireguardConfig = {
  readonly mode: Mode
  /** UDP, of the only device, or in mode "separate" of the one for IPv4. */
  readonly listenPort: number
  readonly listenPort6: number
  /** MTU in bytes of the underlay, where the interface's own is not the right one. 0: the interface's. */
  readonly underlayMtu: number
  /** One for all nodes. */
  readonly presharedKey: Secret | null
  /** Seconds. */
  readonly keepalive: number
}

/** Bytes that the tunnel adds: outer IP 20 or 40, UDP 8, WireGuard 32. */
const OVERHEAD = { 4: 60, 6: 80 } as const
/** What flannel takes in any case: the device's MTU and the pods' must be those of its nodes. */
const ALLOWANCE = OVERHEAD[6]
/** flannel's defaults. */
const PORTS = { 4: 51_820, 6: 51_821 } as const

/** What a tunnel over IPv4 or IPv6 carries, of these families of pods, by which port. */
type Tunnel = { readonly of: Family; readonly carries: readonly Family[]; readonly port: number }

/** One for each device. In mode "auto" the family of the outer packets is chosen for each peer. */
function tunnels({ mode, listenPort, listenPort6 }: WireguardConfig, families: readonly Family[]): readonly Tunnel[] {
  if (mode !== 'separate') return [{ of: 4, carries: families, port: listenPort }]
  return families.map((family) => ({ of: family, carries: [family], port: family === 4 ? listenPort : listenPort6 }))
}

const familiesOf = (subnets: PerFamily<unknown>): readonly Family[] =>
  FAMILIES.filter((family) => subnets[family] !== undefined)

function presharedKeyIn(text: string): Secret | null {
  if (text === '') return null
  if (!isWgKey(text)) throw invalid({ path: 'Backend.PSK' }, text, 'a text: a key in base64, as "wg genpsk" prints it')
  return new Secret(text)
}

const secret: HostSecret = {
  files: ['/var/lib/weft/wgkey', '/run/flannel/wgkey'],
  keyPair: 'x25519',
  isValid: isWgKey,
  /** 32 random octets, some bits of which are given (RFC 7748, section 5). */
  make: (random, base64) => {
    const key = Uint8Array.from(random(32))
    key[0] = (key[0] ?? 0) & 0xf8
    key[31] = ((key[31] ?? 0) & 0x7f) | 0x40
    return base64(key)
  }
}

export const wireguard = {
  type: 'wireguard',
  keys: {
    Mode: {
      rule: 'separate, auto, ipv4 or ipv6',
      default: 'separate',
      meaning:
        'separate: a device for each family; else one for both, whose packets go over IPv4, over IPv6, or (auto) over IPv4 unless only the IPv6 addresses are public'
    },
    ListenPort: { rule: '1 to 65535', default: '51820', meaning: 'UDP port' },
    ListenPortV6: { rule: '1 to 65535', default: '51821', meaning: 'UDP port of the device for IPv6 in mode separate' },
    MTU: {
      rule: "0, or 148 (with IPv6 1360) to the link's",
      default: "the link's",
      meaning: 'MTU between nodes; pods get 80 less'
    },
    PSK: {
      rule: 'a key in base64, as `wg genpsk` prints it',
      default: 'none',
      meaning: 'a secret of all nodes, beside the keys of each; never shown by weftctl or in the log'
    },
    PersistentKeepaliveInterval: {
      rule: '0 to 65535',
      default: '0',
      meaning: 'seconds after which an idle tunnel sends a packet, for nodes behind NAT; 0: never'
    }
  },

  config: (keys: JsonObject): WireguardConfig => ({
    mode: textKey(keys, 'Mode', { allowed: MODES, default: 'separate' }) as Mode,
    listenPort: integerKey(keys, 'ListenPort', { default: PORTS[4], min: 1, max: 65_535 }),
    listenPort6: integerKey(keys, 'ListenPortV6', { default: PORTS[6], min: 1, max: 65_535 }),
    underlayMtu: integerKey(keys, 'MTU', { default: 0, min: 0, max: 65_535 }),
    presharedKey: presharedKeyIn(textKey(keys, 'PSK', { default: '' })),
    keepalive: integerKey(keys, 'PersistentKeepaliveInterval', { default: 0, min: 0, max: 65_535 })
  }),

  features: (): readonly Link[] => [{ kind: 'link', name: 'try-wireguard', form: { type: 'wireguard' } }],

  recognises: ({ name, form }: Device): Recognised | undefined => {
    if (form !== undefined && form.type !== 'wireguard') return undefined
    if (Object.values<string>(WG_NAMES.own).includes(name)) return 'own'
    if (Object.values<string>(WG_NAMES.flanneld).includes(name)) return 'adoptable'
    return form === undefined ? undefined : 'foreign'
  },
  flannelDevice: { name: /^flannel-wg(-v6)?$/, outlivesFlanneld: false },

  secret,

  ports: (config: WireguardConfig): readonly BackendPort[] =>
    tunnels(config, FAMILIES).map(({ of, port }) => ({
      ...({ protocol: 'udp', port } as const),
      key: of === 4 ? 'Backend.ListenPort' : 'Backend.ListenPortV6'
    })),

  onlyBy: (node: Node, config: WireguardConfig): readonly string[] =>
    tunnels(config, familiesOf(node.subnet)).map(({ of }) => deviceName(node, of)),

  /** Two nodes with one key, as clones of a machine have it, take each other's packets. */
  claims: ({ backendData, publicIp }: Lease): readonly Claim[] => {
    const keys = new Set(perFamily(backendData).flatMap(([, published]) => publishedKey(published) ?? []))
    const [by] = perFamily(publicIp).map(([, ip]) => formatIp(ip))
    return by === undefined
      ? []
      : [...keys].map((key) => ({ code: 'WIREGUARD_KEY_CONFLICT', key, text: `public key ${key}`, by }))
  },

  namesOurDevice: (): boolean => false,

  namesAnotherDevice: (): boolean => false,

  mtu: (node: Node, config: WireguardConfig): number => carried(node, config) - ALLOWANCE,

  underlayMtu: (node: Node, config: WireguardConfig): number =>
    carried(node, config) - ALLOWANCE + Math.max(...outerFamilies(node, config).map((family) => OVERHEAD[family])),

  publish: (node: Omit<Node, 'subnet'>, config: WireguardConfig): PerFamily<Json> =>
    Object.fromEntries(
      tunnels(config, familiesOf(node.publicIp)).flatMap(({ carries, port }) =>
        carries.map((family) => [family, { PublicKey: node.publicKey ?? '', Port: port }])
      )
    ),

  own: (node: Node, config: WireguardConfig): readonly KernelObject[] =>
    tunnels(config, familiesOf(node.subnet)).flatMap((tunnel) => ownDevice(node, config, tunnel)),

  /** The device's, flanneld's too. */
  held: (subnet: Prefix): Ip => subnet.ip,
  heldByAll: true,

  peer: (lease: Lease, node: Node, config: WireguardConfig): readonly KernelObject[] => {
    const families = FAMILIES.filter(
      (family) => node.subnet[family] !== undefined && lease.subnet[family] !== undefined
    )
    return tunnels(config, families).flatMap((tunnel) => peerOn(tunnel, lease, node, config))
  }
} satisfies Backend<WireguardConfig>

/** The families of the outer packets. */
const outerFamilies = (node: Node, { mode }: WireguardConfig): readonly Family[] =>
  mode === 'ipv4' ? [4] : mode === 'ipv6' || mode === 'auto' ? [6] : familiesOf(node.subnet)

/** What the nodes carry between them, if that leaves enough for the pods' families. */
const carried = (node: Node, config: WireguardConfig): number =>
  underlayMtu(
    config.underlayMtu,
    node,
    familiesOf(node.subnet).map((family) => [family, ALLOWANCE])
  )

/** The name of our device: flanneld's where there is one. */
function deviceName(node: Omit<Node, 'subnet'>, family: Family): string {
  const theirs = WG_NAMES.flanneld[family]
  const isThere = node.links.some(({ name, form }) => name === theirs && form?.type === 'wireguard')
  return isThere ? theirs : WG_NAMES.own[family]
}

function ownDevice(node: Node, config: WireguardConfig, { of, carries, port }: Tunnel): readonly KernelObject[] {
  const name = deviceName(node, of)
  const because = 'our end of WireGuard'
  const mtu = (config.underlayMtu || node.deviceMtu) - ALLOWANCE
  return [
    { kind: 'link', name, form: { type: 'wireguard' }, mtu, up: true, because },
    {
      ...{ kind: 'wg-device', device: name, publicKey: node.publicKey ?? '', listenPort: port, because },
      ...(node.secret !== undefined && { privateKey: new Secret(node.secret) })
    },
    ...carries.flatMap((family): readonly KernelObject[] => {
      const subnet = node.subnet[family]
      const prefix = subnet && hostPrefix(subnet.ip)
      return prefix ? [{ kind: 'address', device: name, prefix, scope: 0, nodad: true, because }] : []
    }),
    ...settings(node.ipv6 && mtu >= LEAST_MTU[6], name, carries, because)
  ]
}

/** As of a VXLAN device: no configuration by router advertisements, and each family that it carries is on. */
function settings(has6: boolean, name: string, carries: readonly Family[], because: string): readonly KernelObject[] {
  const sysctl = (path: string, value: string): KernelObject => ({ kind: 'sysctl', path, value, because })
  return [
    sysctl(`net/ipv4/conf/${name}/rp_filter`, '2'),
    ...(has6 ? [sysctl(`net/ipv6/conf/${name}/accept_ra`, '0')] : []),
    ...(carries.includes(4) ? [sysctl(`net/ipv4/conf/${name}/forwarding`, '1')] : []),
    ...(carries.includes(6) && has6 ? [sysctl(`net/ipv6/conf/${name}/disable_ipv6`, '0')] : [])
  ]
}

/** Errors: LEASE_MALFORMED. */
function peerOn(tunnel: Tunnel, lease: Lease, node: Node, config: WireguardConfig): readonly KernelObject[] {
  const subnets = tunnel.carries.flatMap((family) => lease.subnet[family] ?? [])
  if (subnets.length === 0) return []
  const device = deviceName(node, tunnel.of)
  const ip = outerAddress(tunnel, lease, node, config)
  const because = `lease ${leaseKey(lease)} of ${formatIp(ip)}`
  const { publicKey, port } = published(lease, tunnel)
  if (publicKey === node.publicKey) throw malformed(lease, "has this node's own PublicKey")
  const endpoint: Endpoint = { ip, port }
  return [
    {
      ...({ kind: 'wg-peer', device, publicKey, endpoint, because } as const),
      allowedIps: sortedPrefixes(subnets.map(network)),
      presharedKey: config.presharedKey,
      keepalive: config.keepalive
    },
    ...subnets.map((subnet) => route(subnet, device, because))
  ]
}

const route = (destination: Prefix, device: string, because: string): Route => ({
  ...{ kind: 'route', table: MAIN_TABLE, destination, metric: defaultMetric(destination.ip.family) },
  ...{ type: 'unicast', device, protocol: ROUTE_PROTOCOL, because }
})

/** Where the peer is sent to. Errors: LEASE_MALFORMED. */
function outerAddress(tunnel: Tunnel, lease: Lease, node: Node, { mode }: WireguardConfig): Ip {
  const wanted = mode === 'auto' ? reachableFamily(lease, node) : mode === 'ipv6' ? 6 : mode === 'ipv4' ? 4 : tunnel.of
  const ip = lease.publicIp[wanted]
  if (ip === undefined) {
    const subnets = perFamily(lease.subnet).map(([, subnet]) => formatPrefix(subnet))
    throw malformed(lease, `has a subnet ${subnets.join(', ')} but no public IPv${wanted} address`)
  }
  return ip
}

/** As flannel chooses: IPv4, unless only the IPv6 addresses are public. */
function reachableFamily({ publicIp }: Lease, node: Node): Family {
  const [four, six] = [publicIp[4], publicIp[6]]
  if (four === undefined || six === undefined) return four === undefined ? 6 : 4
  if (!isPrivate(four) && node.publicIp[4] !== undefined) return 4
  const ours = node.publicIp[6]
  return !isPrivate(six) && ours !== undefined && !isPrivate(ours) ? 6 : 4
}

const asObject = (value: Json | undefined): JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as JsonObject) : {}

function publishedKey(data: Json | undefined): string | undefined {
  const key = findKey(asObject(data), 'PublicKey')?.value
  return typeof key === 'string' && isWgKey(key) ? key : undefined
}

/**
 * What the peer publishes for this tunnel; of a tunnel that carries both families, either has it. Leases of older
 * flanneld have no port: all nodes listen on the same then. Errors: LEASE_MALFORMED.
 */
function published(
  { backendData, ...lease }: Lease,
  tunnel: Tunnel
): { readonly publicKey: string; readonly port: number } {
  const data = tunnel.carries.map((family) => backendData[family])
  const found = data.find((each) => publishedKey(each) !== undefined)
  const publicKey = publishedKey(found)
  const written = data.flatMap((each) => findKey(asObject(each), 'PublicKey')?.value ?? [])
  if (publicKey === undefined)
    throw malformed(
      { backendData, ...lease },
      `has PublicKey ${JSON.stringify(written[0] ?? null)}, which is no key in base64`
    )
  const port = findKey(asObject(found), 'Port')?.value ?? tunnel.port
  if (typeof port !== 'number' || !Number.isInteger(port) || port < 1 || port > 65_535)
    throw malformed({ backendData, ...lease }, `has Port ${JSON.stringify(port)}, which is not from 1 to 65535`)
  return { publicKey, port }
}

const malformed = (lease: Lease, what: string): WeftError =>
  new WeftError(
    'LEASE_MALFORMED',
    `lease ${leaseKey(lease)} ${what}`,
    'restart the daemon of the node that holds it, or delete the key'
  )
