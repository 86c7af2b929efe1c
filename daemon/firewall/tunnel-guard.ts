// Drops what pods send to a node's tunnel port: a tunnel takes any frame that comes to it, so a pod could forge packets
// of other pods. Packets to another node leave with this node's address, and only this node can tell them apart.
import { FAMILIES, type Family, type PerFamily, type Prefix, perFamily } from '../../ipam/address.ts'
import type { KernelObject, NftSet } from '../state/object.ts'
import { CONTAINER_ENDS, isContainerEnd, NFT_TABLE } from '../state/ownership.ts'
import { tunnelNodeSet, tunnelSubnetSet } from '../state/tunnel-nodes.ts'
import { addressSet } from './address-set.ts'
import { nftChain } from './chain.ts'
import { fromAny, fromPrefix, protocol } from './match.ts'

export type Tunnel = {
  readonly ports: readonly { readonly protocol: 'tcp' | 'udp'; readonly port: number }[]
  /** What a rule matches outer packets by that only nodes may send, and the device that the inner ones come by. */
  readonly entry?: { readonly outer: string; readonly isShared?: true; readonly device: string }
}

const because = 'pods must not speak to a tunnel'

/** The chain for what is sent to this node itself. */
const INPUT = 'tunnel_input'
const SENDERS = 'tunnel_senders'

const senderSet: NftSet = {
  ...{ kind: 'nft-set', family: 'inet', table: NFT_TABLE, set: SENDERS, form: 'set' },
  ...{ declaration: 'type ifname', because }
}

const sender = (device: string): KernelObject => ({
  ...{ kind: 'nft-element', family: 'inet', table: NFT_TABLE, set: SENDERS, key: `"${device}"` },
  because
})

/**
 * Pods by their addresses, and by the devices that they send through (`bridge`, that of the pods, also before it
 * exists; tunnelSenders), since a pod can write any source address. What comes by `device`, the link to the other
 * nodes, is never dropped: it may be the tunnel's own. So may what a node sends that comes by another link, where a
 * default route has several, and a pod network contains the nodes' addresses.
 */
export function tunnelGuard(
  { ports, entry }: Tunnel,
  networks: PerFamily<Prefix>,
  { device, bridge }: { readonly device: string; readonly bridge: string }
): readonly KernelObject[] {
  const outers = new Set([
    ...ports.map(({ protocol: transport, port }) => `${transport} dport ${port}`),
    ...(entry === undefined ? [] : [entry.outer])
  ])
  if (outers.size === 0) return []
  const senders: readonly (readonly [match: string, families: readonly Family[]])[] = [
    ...perFamily(networks).map(([family, network]) => {
      const isNoNode = `${fromAny(family)} != @${tunnelNodeSet(family)}`
      return [`iifname != "${device}" ${fromPrefix(network)} ${isNoNode}`, [family]] as const
    }),
    ...(isContainerEnd(device) ? [] : [[`iifname "${CONTAINER_ENDS}"`, FAMILIES] as const]),
    [`iifname != "${device}" iifname @${SENDERS}`, FAMILIES]
  ]
  const rules = (endings: (families: readonly Family[]) => readonly string[]) =>
    [...outers].flatMap((outer) =>
      senders.flatMap(([match, families]) => endings(families).map((ending) => `${outer} ${match} ${ending}`))
    )
  const toNodes = (family: Family) => `${protocol(family)} daddr @${tunnelNodeSet(family)} drop`
  return [
    ...FAMILIES.map((family) => addressSet(tunnelNodeSet(family), family, because)),
    senderSet,
    sender(bridge),
    nftChain(
      INPUT,
      'type filter hook input priority filter',
      rules(() => ['drop']),
      because
    ),
    nftChain(
      'tunnel_forward',
      'type filter hook forward priority filter',
      rules((families) => families.map(toNodes)),
      because
    ),
    ...(entry === undefined ? [] : nodesOnly(entry, networks))
  ]
}

const ONLY_NODES = 'only nodes may send by the tunnel'

const entryChain = (outer: string, families: readonly (readonly [Family, Prefix])[]): KernelObject =>
  nftChain(
    'tunnel_entry',
    'type filter hook input priority filter',
    families.map(([family]) => `${outer} ${fromAny(family)} != @${tunnelNodeSet(family)} drop`),
    ONLY_NODES
  )

/**
 * A tunnel without a sender of its own takes a packet from any host. Inside, an address of the pod network must be of
 * another node's pods; others are those of nodes, which send from any address they have.
 */
function nodesOnly({ outer, isShared, device }: NonNullable<Tunnel['entry']>, networks: PerFamily<Prefix>) {
  const families = perFamily(networks)
  return [
    ...families.map(([family]) => addressSet(tunnelSubnetSet(family), family, ONLY_NODES, 'interval')),
    ...(isShared ? [] : [entryChain(outer, families)]),
    nftChain(
      'tunnel_inner',
      'type filter hook prerouting priority filter',
      families.map(
        ([family, network]) =>
          `iifname "${device}" ${fromPrefix(network)} ${fromAny(family)} != @${tunnelSubnetSet(family)} drop`
      ),
      ONLY_NODES
    )
  ]
}

/**
 * The devices by which pods of this host send, besides the ends of single containers: those with pods of the cluster
 * (`local`), but not the backend's own, and the bridges and VLANs of other networks that weftd set up. Nothing where
 * there is no guard.
 */
export function tunnelSenders(desired: Iterable<KernelObject>, local: readonly string[]): readonly KernelObject[] {
  const devices = new Set(local.filter((name) => name !== CONTAINER_ENDS))
  let isGuarded = false
  for (const object of desired) {
    if (object.kind === 'nft-chain') isGuarded ||= object.table === NFT_TABLE && object.chain === INPUT
    if (object.kind !== 'link') continue
    if (isSegment(object)) devices.add(object.name)
    else devices.delete(object.name)
  }
  return isGuarded ? [senderSet, ...[...devices].sort().map(sender)] : []
}

/** Whether this is a bridge, or a VLAN of one, to which pods are connected. */
export const isSegment = (object: KernelObject): boolean =>
  object.kind === 'link' && (object.form?.type === 'bridge' || object.form?.type === 'vlan')
