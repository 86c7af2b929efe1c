// Rules for bridge ports: only frames with the container's own MAC address (`macspoofchk`), none between isolated
// ports, no routing between isolated bridges.
//
// Table `bridge weft` sees every frame, whether or not br_netfilter passes it to the host's firewall. Ports are set
// elements, so one more costs no rule.
import { digest } from '../state/digest.ts'
import { elementComment } from '../state/host-port.ts'
import type { KernelObject, Mac, NftChain, NftElement, NftSet } from '../state/object.ts'
import { NFT_TABLE } from '../state/ownership.ts'
import { nftChain } from './chain.ts'

/** Ports whose frames are checked, and the source addresses allowed on each. */
const [CHECKED_PORTS, PORT_SOURCES] = ['checked_ports', 'port_sources']
const ISOLATED_PORTS = 'isolated_ports'
/** Bridges between which nothing passes; in `inet weft`, where packets are routed. */
const ISOLATED_BRIDGES = 'isolated_bridges'

const because = 'rules for bridge ports'

/** A priority without a name in nft, in any family: named ones print differently for bridges. */
const PRIORITY = -250

const set = (name: string, declaration: string, family: NftSet['family'] = 'bridge'): NftSet => ({
  ...{ kind: 'nft-set', family, table: NFT_TABLE, set: name, form: 'set', declaration, because }
})
const element = (name: string, key: string, comment: string): NftElement => ({
  ...{ kind: 'nft-element', family: 'bridge', table: NFT_TABLE, set: name, key, comment }
})
const chain = (name: string, hook: string, rule: string): NftChain => ({
  ...nftChain(name, `type filter hook ${hook} priority ${PRIORITY}`, [rule], because),
  family: 'bridge'
})

/** The sets and the chain that the elements of `ownSource` depend on, once per host. */
export const sourceCheckBase = (): readonly KernelObject[] => [
  set(CHECKED_PORTS, 'type ifname'),
  set(PORT_SOURCES, 'type ifname . ether_addr'),
  chain('port_sources', 'prerouting', `iifname @${CHECKED_PORTS} iifname . ether saddr != @${PORT_SOURCES} drop`)
]

/**
 * Accepts only frames with this source address from the port (`macspoofchk`). `mark` and `whose` as in
 * `hostPortElement`.
 */
export function ownSource(port: string, mac: Mac, mark: string, whose: string): readonly KernelObject[] {
  const comment = elementComment(mark, whose)
  return [element(CHECKED_PORTS, `"${port}"`, comment), element(PORT_SOURCES, `"${port}" . ${mac}`, comment)]
}

/** The set and the chain that the element of `isolatedPort` depends on, once per host. */
export const isolationBase = (): readonly KernelObject[] => [
  set(ISOLATED_PORTS, 'type ifname'),
  chain('isolated_ports', 'forward', `iifname @${ISOLATED_PORTS} oifname @${ISOLATED_PORTS} drop`)
]

/** Containers on such ports can't reach each other over their bridge (`ingressPolicy` isolated). */
export const isolatedPort = (port: string, mark: string, whose: string): KernelObject =>
  element(ISOLATED_PORTS, `"${port}"`, elementComment(mark, whose))

/**
 * Drops packets routed from this bridge to another isolated one (`ingressPolicy` same-bridge). Kept as long as the
 * bridge exists.
 */
export function isolatedBridge(bridge: string): readonly KernelObject[] {
  const rule = `iifname "${bridge}" oifname != "${bridge}" oifname @${ISOLATED_BRIDGES} drop`
  return [
    set(ISOLATED_BRIDGES, 'type ifname', 'inet'),
    nftChain(`isolate_${digest(bridge)}`, 'type filter hook forward priority filter - 5', [rule], because),
    {
      ...{ kind: 'nft-element', family: 'inet', table: NFT_TABLE, set: ISOLATED_BRIDGES, key: `"${bridge}"`, because }
    }
  ]
}

/** The bridge that an object of `isolatedBridge` is about; no other rule names devices that it can't do without. */
export function isolatedBridgeIn(object: KernelObject): string | undefined {
  if (object.kind !== 'nft-chain' || !object.chain.startsWith('isolate_')) return undefined
  return /^iifname "([^"]+)" /.exec(object.rules?.[0] ?? '')?.[1]
}

/**
 * The sets and chains that existing elements depend on, and isolated bridges: what a restarted weftd must want again.
 */
export function bridgePortBaseFor(
  elements: readonly NftElement[],
  isBridge: (device: string) => boolean
): readonly KernelObject[] {
  const has = (name: string) => elements.some((each) => each.set === name)
  const bridges = elements.flatMap((each) => (each.set === ISOLATED_BRIDGES ? [each.key.replaceAll('"', '')] : []))
  return [
    ...(has(CHECKED_PORTS) || has(PORT_SOURCES) ? sourceCheckBase() : []),
    ...(has(ISOLATED_PORTS) ? isolationBase() : []),
    ...bridges.filter(isBridge).flatMap(isolatedBridge)
  ]
}
