// Another node's lease → kernel objects on this node, or the reason why the lease is skipped.
import {
  contains,
  FAMILIES,
  formatIp,
  formatPrefix,
  hostPrefix,
  type Ip,
  isGlobalUnicast,
  isLinkLocal,
  overlaps,
  type PerFamily,
  type Prefix,
  perFamily,
  sameIp,
  samePrefix
} from '../../ipam/address.ts'
import type { ConfiguredBackend, PeerRoutes } from '../backend/backend.ts'
import { reasonOf, WeftError } from '../base/error.ts'
import { type Lease, leaseKey, typeOf } from '../lease/lease.ts'
import { encryptedSubnet } from '../state/encrypted-subnets.ts'
import type { Node } from '../state/node.ts'
import type { KernelObject } from '../state/object.ts'
import { tunnelNode, tunnelSubnet } from '../state/tunnel-nodes.ts'
import { addressFault, type Observed } from './host-addresses.ts'
import { coveredBy } from './host-networks.ts'

/** Local view needed to compute the objects for a peer. */
export type LocalView = {
  readonly node: Node
  readonly backend: ConfiguredBackend
  /** The whole network of each family: no lease may be outside. */
  readonly networks: PerFamily<Prefix>
  /** Our own lease. */
  readonly lease?: Lease
} & Partial<Observed>

export type PeerResult =
  | { readonly kind: 'objects'; readonly objects: readonly KernelObject[] }
  /** Of another backend than this network's: ignored. What it had before stays: its node has just changed. */
  | { readonly kind: 'foreign' }
  /** Invalid or implausible; `reason` names the lease and the fault. What it had before stays. */
  | { readonly kind: 'skipped'; readonly reason: string }
  /** Its backend can't reach the node, whatever the lease says. */
  | { readonly kind: 'off-link'; readonly reason: string; readonly cure: string }
  /** It would take what is this host's. What it had before is removed. */
  | { readonly kind: 'refused'; readonly reason: string }
  /** It would take what is another node's, for which there is a condition. What it had before is removed. */
  | { readonly kind: 'conflict'; readonly reason: string }

/** `routes`: the kernel's to the public addresses, where the backend asks for them. */
export function peerObjects(lease: Lease, view: LocalView, routes: PeerRoutes = {}): PeerResult {
  const { node, backend, networks } = view
  if (typeOf(lease) !== backend.type && !backend.serves(lease)) return { kind: 'foreign' }
  const covered = coveredBy(lease.subnet, [...(view.occupied ?? []), ...perFamily(lease.publicIp).map(hostOf)])
  if (covered !== undefined && view.earlier?.some((prefix) => samePrefix(prefix, covered)) === true) {
    const why = `covers ${formatPrefix(covered)}, an earlier subnet of this node that its bridge still has (BRIDGE_FOREIGN)`
    return { kind: 'conflict', reason: `lease ${leaseKey(lease)} ${why}` }
  }
  if (covered !== undefined) {
    const why = `covers ${formatPrefix(covered)}, a network or an address of a host; Network must leave it out`
    return { kind: 'refused', reason: `lease ${leaseKey(lease)} ${why}` }
  }
  const own = ourAddressIn(lease, node)
  if (own !== undefined)
    return { kind: 'conflict', reason: `lease ${leaseKey(lease)} publishes our own address ${formatIp(own)}` }
  const wrong = addressFault(lease.publicIp, view)
  if (wrong !== undefined) return { kind: 'refused', reason: `lease ${leaseKey(lease)} ${wrong}` }
  if (overlapsOurs(lease, node) && leaseKey(lease) === leaseKey(node))
    return { kind: 'conflict', reason: `lease ${leaseKey(lease)}, our subnet, is that of ${publicIpsOf(lease)}` }
  const reason = faultOf(lease, node, networks)
  if (reason !== undefined) return { kind: 'skipped', reason: `lease ${leaseKey(lease)} ${reason}` }
  try {
    return { kind: 'objects', objects: [...backend.peer(lease, node, routes), ...guarded(lease, view)] }
  } catch (error) {
    if (error instanceof WeftError && error.code === 'PEER_OFF_LINK')
      return { kind: 'off-link', reason: error.message, cure: error.cure }
    return { kind: 'skipped', reason: reasonOf(error) }
  }
}

/** What to do about a lease that is skipped although its node is alive: deleted, it would be taken again at once. */
export function skipCure(lease: Lease | undefined, view: LocalView | undefined, name: string): string | undefined {
  if (lease === undefined || view === undefined) return undefined
  const { networks, occupied = [], backend } = view
  const where = `on the node of ${publicIpsOf(lease)}`
  if (coveredBy(lease.subnet, occupied) !== undefined)
    return `choose a Network without the networks of hosts, or leave them out with SubnetMin and SubnetMax; then restart weftd ${where}`
  if (lease.backendType === backend.type && !backend.serves(lease))
    return `none if the configuration has just changed: weftd takes it within a minute or two; else make it the same for all nodes, and restart flanneld ${where}`
  if (!isInside(lease, networks))
    return `restart weftd ${where}, which still uses another configuration; if the node is gone, delete its lease ${name}`
  return undefined
}

/** Whether all subnets of the lease lie inside the network; a family that the network lacks does not count. */
export const isInside = ({ subnet }: Lease, networks: PerFamily<Prefix>): boolean =>
  perFamily(subnet).every(([family, prefix]) => {
    const network = networks[family]
    return network === undefined || contains(network, prefix)
  })

const hostOf = ([, ip]: readonly [unknown, Ip]): Prefix => hostPrefix(ip)

const ourAddressIn = ({ publicIp }: Lease, node: Node): Ip | undefined =>
  perFamily(publicIp).find(([family, ip]) => sameIp(ip, node.publicIp[family]))?.[1]

/** Whether a peer's lease takes nothing of this host's and has no fault. */
export const isPlausible = (lease: Lease, view: LocalView): boolean =>
  faultOf(lease, view.node, view.networks) === undefined &&
  coveredBy(lease.subnet, view.occupied ?? []) === undefined &&
  (ourAddressIn(lease, view.node) !== undefined || addressFault(lease.publicIp, view) === undefined)

/**
 * The node's addresses, for the rules that keep others than nodes from a tunnel; its subnets, for those inside, and where
 * nothing goes in clear.
 */
function guarded(lease: Lease, { node, backend }: LocalView): readonly KernelObject[] {
  const { ports, entry, onlyBy } = backend
  const nodes = perFamily(lease.publicIp).map(([, ip]) => tunnelNode(ip, `the node ${formatIp(ip)}`))
  const subnets = perFamily(lease.subnet)
  const inner = subnets.map(([, prefix]) => tunnelSubnet(prefix, `the pods of ${publicIpsOf(lease)}`))
  const encrypted = subnets
    .filter(([family]) => node.subnet[family] !== undefined)
    .map(([, prefix]) => encryptedSubnet(prefix, `lease ${leaseKey(lease)}`))
  return [
    ...(ports.length === 0 && entry === undefined ? [] : nodes),
    ...(entry === undefined ? [] : inner),
    ...(onlyBy === undefined ? [] : encrypted)
  ]
}

const overlapsOurs = ({ subnet }: Lease, node: Node): boolean =>
  perFamily(subnet).some(([family, prefix]) => {
    const own = node.subnet[family]
    return own !== undefined && overlaps(own, prefix)
  })

const listed = <T>(values: PerFamily<T>, format: (value: T) => string): string =>
  perFamily(values)
    .map(([, value]) => format(value))
    .join(', ')

const publicIpsOf = ({ publicIp }: Lease): string => listed(publicIp, formatIp)

function faultOf(lease: Lease, node: Node, networks: PerFamily<Prefix>): string | undefined {
  if (overlapsOurs(lease, node)) return `of ${publicIpsOf(lease)} overlaps our own ${leaseKey(node)}`
  const outside = perFamily(lease.subnet).some(([family, subnet]) => {
    const network = networks[family]
    return network === undefined ? node.subnet[family] !== undefined : !contains(network, subnet)
  })
  if (outside) return `lies outside the network ${listed(networks, formatPrefix)}`
  const odd = perFamily(lease.publicIp).find(([, ip]) => !isGlobalUnicast(ip) && !isLinkLocal(ip))
  if (odd !== undefined) return `has the public address ${formatIp(odd[1])}, which no packet can be sent to`
  return undefined
}

export const sameNetworks = (a: LocalView['networks'] | undefined, b: LocalView['networks']): boolean =>
  a !== undefined && FAMILIES.every((family) => textOf(a[family]) === textOf(b[family]))

const textOf = (prefix: Prefix | undefined): string => (prefix === undefined ? '' : formatPrefix(prefix))

/** Routes to pods with these MTUs; a route keeps what it has in the kernel where none is asked for. */
export const withMtus = (objects: readonly KernelObject[], mtus: PerFamily<number>): readonly KernelObject[] =>
  perFamily(mtus).length === 0
    ? objects
    : objects.map((object) => {
        const mtu = object.kind === 'route' ? mtus[object.destination.ip.family] : undefined
        return mtu === undefined ? object : { ...object, mtu }
      })
