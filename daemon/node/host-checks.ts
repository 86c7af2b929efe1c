// What on this host is in the way of the pod network although nothing is refused: a link that is down, an old bridge address, networks that overlap. Pure.
import {
  contains,
  formatIp,
  formatPrefix,
  isLinkLocal,
  network,
  overlaps,
  type PerFamily,
  type Prefix,
  perFamily
} from '../../ipam/address.ts'
import { defaultBridge } from '../../plugins/keys/veth.ts'
import type { ConditionCode } from '../health/conditions.ts'
import type { Node } from '../state/node.ts'
import type { Address, Key, Link, State } from '../state/object.ts'

type Fault = Extract<ConditionCode, 'LINK_DOWN' | 'BRIDGE_FOREIGN' | 'NETWORK_OVERLAPS'>

/** What is wrong, and what to do where the table of conditions can not say it as exactly. */
export type HostFault = { readonly detail: string; readonly cure?: string }

/** Each fault, or `undefined` where there is none. `networks`: the whole pod network of each family. */
export function checkHost(
  observed: State,
  node: Pick<Node, 'device' | 'localIp' | 'subnet'>,
  networks: PerFamily<Prefix>
): Readonly<Record<Fault, HostFault | undefined>> {
  const addresses = [...observed.values()].filter((object): object is Address => object.kind === 'address')
  const foreign = addresses.filter((address) => isForeign(address, node))
  const overlapping = addresses.flatMap((address) => {
    const whole = networks[address.prefix.ip.family]
    const isExpected = foreign.includes(address) || isOurs(observed, address, node)
    return whole === undefined || isExpected || !overlaps(whole, address.prefix)
      ? []
      : [`the pod network ${formatPrefix(whole)} and ${formatPrefix(network(address.prefix))} of ${address.device}`]
  })
  return {
    LINK_DOWN: linkFault(linkOf(observed, node.device), node, addresses),
    BRIDGE_FOREIGN: joined(
      foreign.map(({ prefix }) => {
        const subnet = node.subnet[prefix.ip.family]
        return `${defaultBridge} has ${formatPrefix(prefix)}, and this node's subnet is ${subnet && formatPrefix(subnet)}`
      })
    ),
    NETWORK_OVERLAPS: joined(overlapping)
  }
}

const joined = (parts: readonly string[]): HostFault | undefined =>
  parts.length === 0 ? undefined : { detail: parts.join('; ') }

const linkOf = (observed: State, name: string): Link | undefined => {
  const object = observed.get(`link ${name}` as Key)
  return object?.kind === 'link' ? object : undefined
}

function linkFault(
  link: Link | undefined,
  { device, localIp }: Pick<Node, 'device' | 'localIp'>,
  addresses: readonly Address[]
): HostFault | undefined {
  const told = (fault: string, cure: string): HostFault => ({
    detail: `${device} ${fault}`,
    cure: `${cure}; routes and pods stay as they are`
  })
  if (link === undefined) return told('is gone', `bring ${device} back (driver, virtual machine, or who renamed it)`)
  if (link.up === false) return told('is set down', `ip link set ${device} up, and see which program set it down`)
  if (link.carrier === false) return told('has no carrier', `see to the cable of ${device} and the switch behind it`)
  const has = (value: bigint) => addresses.some(({ prefix, device: on }) => on === device && prefix.ip.value === value)
  const [lost] = perFamily(localIp).filter(([, ip]) => !has(ip.value))
  if (lost === undefined) return undefined
  const ip = formatIp(lost[1])
  return told(`has lost its address ${ip}`, `give ${device} the address ${ip} back, or restart weftd to use another`)
}

function isForeign({ device, prefix, scope = 0 }: Address, { subnet }: Pick<Node, 'subnet'>): boolean {
  const own = subnet[prefix.ip.family]
  return (
    device === defaultBridge && scope === 0 && !isLinkLocal(prefix.ip) && own !== undefined && !contains(own, prefix.ip)
  )
}

/** Addresses of our subnet are where pods are; on the link to the other nodes they would be somebody else's. */
function isOurs(observed: State, { device, prefix }: Address, node: Pick<Node, 'device' | 'subnet'>): boolean {
  const own = node.subnet[prefix.ip.family]
  if (linkOf(observed, device)?.form?.type === 'vxlan') return true
  return device !== node.device && own !== undefined && contains(own, prefix)
}
