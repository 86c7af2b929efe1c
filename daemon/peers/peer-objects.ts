// Another node's lease → kernel objects on this node, or the reason why the lease is skipped.
import {
  contains,
  formatIp,
  formatPrefix,
  isGlobalUnicast,
  isLinkLocal,
  overlaps,
  type PerFamily,
  type Prefix,
  perFamily
} from '../../ipam/address.ts'
import type { ConfiguredBackend, PeerRoutes } from '../backend/backend.ts'
import { reasonOf, WeftError } from '../base/error.ts'
import { type Lease, leaseKey } from '../lease/lease.ts'
import type { Node } from '../state/node.ts'
import type { KernelObject } from '../state/object.ts'
import { tunnelNode } from '../state/tunnel-nodes.ts'

/** Local view needed to compute the objects for a peer. */
export type LocalView = {
  readonly node: Node
  readonly backend: ConfiguredBackend
  /** The whole network of each family: no lease may be outside. */
  readonly networks: PerFamily<Prefix>
}

export type PeerResult =
  | { readonly kind: 'objects'; readonly objects: readonly KernelObject[] }
  /** Of another backend than this network's: ignored. */
  | { readonly kind: 'foreign' }
  /** Invalid or implausible; `reason` names the lease and the fault. */
  | { readonly kind: 'skipped'; readonly reason: string }
  /** Its backend can't reach the node, whatever the lease says. */
  | { readonly kind: 'off-link'; readonly reason: string; readonly cure: string }

/** `routes`: the kernel's to the public addresses, where the backend asks for them. */
export function peerObjects(lease: Lease, { node, backend, networks }: LocalView, routes: PeerRoutes = {}): PeerResult {
  if (lease.backendType !== backend.type) return { kind: 'foreign' }
  const reason = faultOf(lease, node, networks)
  if (reason !== undefined) return { kind: 'skipped', reason: `lease ${leaseKey(lease)} ${reason}` }
  try {
    return { kind: 'objects', objects: [...backend.peer(lease, node, routes), ...guarded(lease, backend)] }
  } catch (error) {
    if (error instanceof WeftError && error.code === 'PEER_OFF_LINK')
      return { kind: 'off-link', reason: error.message, cure: error.cure }
    return { kind: 'skipped', reason: reasonOf(error) }
  }
}

/** The node's addresses, for the rules that keep pods from its tunnel port. */
const guarded = ({ publicIp }: Lease, { ports }: ConfiguredBackend): readonly KernelObject[] =>
  ports.length === 0 ? [] : perFamily(publicIp).map(([, ip]) => tunnelNode(ip, `the node ${formatIp(ip)}`))

function faultOf(lease: Lease, node: Node, networks: PerFamily<Prefix>): string | undefined {
  const listed = <T>(values: PerFamily<T>, format: (value: T) => string) =>
    perFamily(values)
      .map(([, value]) => format(value))
      .join(', ')
  const overlap = perFamily(lease.subnet).some(([family, subnet]) => {
    const own = node.subnet[family]
    return own !== undefined && overlaps(own, subnet)
  })
  if (overlap) return `of ${listed(lease.publicIp, formatIp)} overlaps our own ${leaseKey(node)}`
  const outside = perFamily(lease.subnet).some(([family, subnet]) => {
    const network = networks[family]
    return network === undefined ? node.subnet[family] !== undefined : !contains(network, subnet)
  })
  if (outside) return `lies outside the network ${listed(networks, formatPrefix)}`
  const odd = perFamily(lease.publicIp).find(([, ip]) => !isGlobalUnicast(ip) && !isLinkLocal(ip))
  if (odd !== undefined) return `has the public address ${formatIp(odd[1])}, which no packet can be sent to`
  return undefined
}
