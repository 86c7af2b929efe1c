// Host misconfigurations that break the pod network without a kernel error: a link that is down, an old bridge address,
// networks that overlap.
import {
  contains,
  formatIp,
  formatPrefix,
  network,
  overlaps,
  type PerFamily,
  type Prefix,
  perFamily
} from '../../ipam/address.ts'
import { conflictsWith, gatewayHolders, gatewayOf } from '../attachment/bridge.ts'
import { bridgeMac } from '../attachment/identity.ts'
import type { ConditionCode } from '../health/conditions.ts'
import type { Node } from '../state/node.ts'
import { type Address, addressesIn, type Key, type Link, linkNamed, type State } from '../state/object.ts'
import type { Recognises } from '../state/ownership.ts'
import { devicesOf, isDefaultRoute } from '../state/route.ts'

type Fault = Extract<ConditionCode, 'LINK_DOWN' | 'FORWARDING_OFF' | 'BRIDGE_FOREIGN' | 'NETWORK_OVERLAPS'>

/** What is wrong and what to do, with the names of this host's objects. */
export type HostFault = { readonly detail: string; readonly cure: string }

export type HostExpectations = {
  /** The whole pod network of each family. */
  readonly networks: PerFamily<Prefix>
  /** The bridge of pods that name no other. */
  readonly bridge: string
  readonly recognises: Recognises
}

type CheckedNode = Pick<Node, 'device' | 'localIp' | 'subnet' | 'identity'>

/** Each fault, or `undefined` where there is none. */
export function checkHost(
  observed: State,
  node: CheckedNode,
  { networks, bridge, recognises }: HostExpectations
): Readonly<Record<Fault, HostFault | undefined>> {
  const addresses = addressesIn(observed)
  const outdated = addresses.filter((address) => address.device === bridge && refusesPods(address, node))
  const overlapping = addresses.flatMap((address) => {
    const whole = networks[address.prefix.ip.family]
    const link = linkNamed(observed, address.device)
    const isBackends = link !== undefined && recognises(link) !== undefined
    const isExpected = outdated.includes(address) || isBackends || isForPods(address, node)
    return whole === undefined || isExpected || !overlaps(whole, address.prefix)
      ? []
      : [{ text: `the pod network ${formatPrefix(whole)} and ${formatPrefix(network(address.prefix))}`, address }]
  })
  return {
    LINK_DOWN: linkFault(linkNamed(observed, node.device), node, addresses),
    FORWARDING_OFF: forwardingFault(observed, node),
    BRIDGE_FOREIGN:
      outdated.length === 0 ? secondGatewayFault(observed, node) : bridgeFault(outdated, node, observed, networks),
    NETWORK_OVERLAPS: overlapping.length === 0 ? undefined : (bipFault(overlapping, node) ?? overlapFault(overlapping))
  }
}

/**
 * Devices by which packets to pods arrive: the one to the other nodes, and those of default routes, by which answers to
 * pods come. The kernel asks each device whether it forwards IPv4; for IPv6 it asks `all` only, which weftd sets.
 */
function arrivals(observed: State, { device, subnet }: Pick<Node, 'device' | 'subnet'>): readonly string[] {
  if (subnet[4] === undefined) return []
  const devices = [...observed.values()].flatMap((object) =>
    object.kind === 'route' && object.destination.ip.family === 4 && isDefaultRoute(object) ? devicesOf(object) : []
  )
  // With the published address on lo, packets arrive by the links of the default route.
  return [...new Set([device, ...devices])].filter((name) => name !== 'lo')
}

const forwardingOf = (device: string): string => `net/ipv4/conf/${device}/forwarding`

/** Paths below /proc/sys that `checkHost` looks at: others' settings, which weftd reads and never writes. */
export const watchedSysctls = (
  observed: State,
  node: Pick<Node, 'device' | 'subnet'> | undefined
): readonly string[] => (node === undefined ? [] : arrivals(observed, node).map(forwardingOf))

function forwardingFault(observed: State, node: CheckedNode): HostFault | undefined {
  const off = arrivals(observed, node).filter((device) => {
    const setting = observed.get(`sysctl ${forwardingOf(device)}` as Key)
    return setting?.kind === 'sysctl' && setting.value === '0'
  })
  if (off.length === 0) return undefined
  // With slashes, since a device's name may have dots: sysctl(8) takes both.
  const paths = off.map(forwardingOf)
  return {
    detail: `${paths.map((path) => `${path}=0`).join(', ')}: packets to pods that arrive on ${off.join(' and ')} are dropped`,
    cure: `run: sysctl -w ${paths.map((path) => `${path}=1`).join(' ')}; for systemd-networkd also set IPv4Forwarding=yes (before version 256: IPForward=ipv4) in the .network file of ${off.join(' and ')}`
  }
}

/** Two links lead to the whole subnet, and the kernel uses one: a bridge without pods that was left, or Docker's. */
function secondGatewayFault(observed: State, { subnet }: CheckedNode): HostFault | undefined {
  for (const [family] of perFamily(subnet)) {
    const holders = gatewayHolders(observed, subnet).filter(({ prefix }) => prefix.ip.family === family)
    const [first] = holders
    const devices = holders.map(({ device }) => device)
    if (first === undefined || devices.length < 2) continue
    const each = devices.map((device) => `ip link del ${device}`).join(' or ')
    return {
      detail: `${devices.join(' and ')} have ${formatPrefix(first.prefix)}, the gateway address of this node's subnet, so the kernel sends packets to its pods and containers to one of them only`,
      cure: `keep one: delete the one that no pod and no container uses (${each}), or give Docker another network (dockerd --bip)`
    }
  }
  return undefined
}

/** `outdated`: of the pod bridge. Whose they are: a bridge with our MAC, or an address of the pod network, is Weft's. */
function bridgeFault(
  outdated: readonly Address[],
  { subnet, identity }: CheckedNode,
  observed: State,
  networks: PerFamily<Prefix>
): HostFault {
  const isWefts = outdated.every(({ device, prefix }) => {
    const whole = networks[prefix.ip.family]
    const isOfNetwork = whole !== undefined && contains(whole, prefix)
    return isOfNetwork || linkNamed(observed, device)?.mac === bridgeMac(identity, device)
  })
  const details = outdated.map(({ device, prefix }) => {
    const own = subnet[prefix.ip.family]
    const gateway = own !== undefined && contains(own, prefix.ip) ? `, whose gateway is ${gatewayText(own)}` : ''
    return `${device} has ${formatPrefix(prefix)}, and this node's subnet is ${own && formatPrefix(own)}${gateway}`
  })
  const old = outdated.map(({ prefix }) => formatPrefix(network(prefix))).join(' or ')
  const commands = outdated.map(({ device, prefix }) => `ip address del ${formatPrefix(prefix)} dev ${device}`)
  const from = isWefts ? " (from this node's earlier subnet)" : ''
  const [bridge] = outdated.map(({ device }) => device)
  const orAnother = isWefts
    ? ''
    : `; if ${bridge} is another program's, whose containers weftctl pods does not list, leave it alone and name a bridge of Weft's own in the CNI configuration list: "bridge":"weft0"`
  return {
    detail: `${details.join('; ')}${from}`,
    cure: `once ${isWefts ? 'no pod has' : 'nothing has'} an address of ${old}, run: ${commands.join('; ')}${orAnother}`
  }
}

function overlapFault(overlapping: readonly { readonly text: string; readonly address: Address }[]): HostFault {
  const devices = [...new Set(overlapping.map(({ address }) => address.device))].join(' and ')
  return {
    detail: overlapping.map(({ text, address }) => `${text} of ${address.device}`).join('; '),
    cure: `change Network in the network configuration, or renumber ${devices}`
  }
}

/** Docker was started with the subnet of an earlier lease and keeps it until it is restarted. */
function bipFault(
  overlapping: readonly { readonly address: Address }[],
  { subnet }: CheckedNode
): HostFault | undefined {
  for (const { address } of overlapping) {
    const { device, prefix } = address
    const own = subnet[prefix.ip.family]
    if (device !== DOCKER || own === undefined || prefix.length !== own.length || contains(own, prefix.ip)) continue
    return {
      detail: `${device} has ${formatPrefix(prefix)}, which is not in this node's subnet ${formatPrefix(own)} and may be another node's`,
      cure: `restart Docker with --bip=${gatewayText(own)} (FLANNEL_SUBNET in subnet.env), or with a network outside the pod network`
    }
  }
  return undefined
}

const DOCKER = 'docker0'

const gatewayText = (subnet: Prefix): string => formatPrefix(gatewayOf(subnet))

function linkFault(
  link: Link | undefined,
  { device, localIp }: CheckedNode,
  addresses: readonly Address[]
): HostFault | undefined {
  const fault = (detail: string, cure: string): HostFault => ({ detail: `${device} ${detail}`, cure })
  const kept = 'routes and pods of Weft are kept'
  const others = `${kept}, but the kernel has removed the host's own routes by ${device}, such as the default route: restore them with the host's network configuration (ifup ${device}, networkctl reconfigure ${device}, nmcli device connect ${device})`
  if (link === undefined)
    return fault('is gone', `bring ${device} back (driver, virtual machine, or a renamed interface); ${others}`)
  if (link.up === false) return fault('is set down', `run: ip link set ${device} up; ${others}`)
  if (link.carrier === false)
    return fault('has no carrier', `check the cable of ${device} and its switch port; ${kept}`)
  const has = (value: bigint) => addresses.some(({ prefix, device: on }) => on === device && prefix.ip.value === value)
  const [lost] = perFamily(localIp).filter(([, ip]) => !has(ip.value))
  if (lost === undefined) return undefined
  const ip = formatIp(lost[1])
  return fault(
    `has lost its address ${ip}`,
    `give ${device} its address ${ip} back, or restart weftd to use another; ${kept}, but not the host's own routes that had this source address`
  )
}

/** An address on the pod bridge for which it refuses this node's pods. */
function refusesPods(address: Address, { subnet }: CheckedNode): boolean {
  const own = subnet[address.prefix.ip.family]
  return own !== undefined && conflictsWith(address, gatewayOf(own))
}

/** An address of our subnet is a gateway of pods, unless it is on the interface to the other nodes. */
function isForPods({ device, prefix }: Address, node: CheckedNode): boolean {
  const own = node.subnet[prefix.ip.family]
  return device !== node.device && own !== undefined && contains(own, prefix)
}
