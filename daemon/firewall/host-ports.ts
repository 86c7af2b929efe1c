// Host ports: map elements, looked up by two chains whose size does not depend on the number of ports. No rule per pod.
import { FAMILIES, type Family, type Ip, type PerFamily } from '../../ipam/address.ts'
import {
  HOST_PORT_DEVICES,
  hostPortElement,
  hostPortMap,
  type PortProtocol,
  translatedPodSet
} from '../state/host-port.ts'
import type { KernelObject, NftSet } from '../state/object.ts'
import { NFT_TABLE } from '../state/ownership.ts'
import { addressElement, addressSet, addressType } from './address-set.ts'
import { nftChain } from './chain.ts'
import { protocol } from './match.ts'
import { endingOf, matchOf, type PortCondition } from './port-conditions.ts'

/**
 * A port of this host that is forwarded to a pod's. `hostIp` absent: on every address; unspecified (`0.0.0.0`, `::`):
 * on every address of its family.
 */
export type PortMapping = {
  readonly protocol: PortProtocol
  readonly hostPort: number
  readonly containerPort: number
  readonly hostIp?: Ip
}

const because = 'host ports of pods'

/**
 * The mark of packets to be masqueraded (bit 13), the same as the reference portmap's, so that both can run on one
 * host. Only the first packet of a connection has it, from the lookup to the end of postrouting.
 */
const MARK = 0x2000
const setMark = `meta mark set meta mark | 0x${MARK.toString(16)}`
const clearMark = `meta mark set meta mark & 0x${(~MARK >>> 0).toString(16)}`

/**
 * Single addresses first. A packet for which a map has no entry, or that does not match the conditions, continues to
 * the next rule.
 */
function lookUps(family: Family, conditions: readonly PortCondition[] = []): readonly string[] {
  const [ip, match, ending] = [protocol(family), matchOf(conditions), endingOf(conditions)]
  return [
    `${match}dnat ${ip} to ${ip} daddr . meta l4proto . th dport map @${hostPortMap(family, 'at', ending)}`,
    `${match}dnat ${ip} to meta l4proto . th dport map @${hostPortMap(family, 'any', ending)}`
  ]
}

const onlyToUs = 'fib daddr type != local return'
/**
 * Packets from a device of a pod with host ports: replies between two such pods must come back through this host, or
 * they are not translated back.
 */
const fromPods = `iifname @${HOST_PORT_DEVICES}`
const fromLoopback = 'ip saddr 127.0.0.0/8'

/** Chains, maps and the set of devices: once a host, from its first pod with host ports on. */
export function hostPortBase(): readonly KernelObject[] {
  return [
    ...FAMILIES.flatMap((family) => maps(family)),
    set({ set: HOST_PORT_DEVICES, form: 'set', declaration: 'type ifname' }),
    ...entryChains(
      '',
      FAMILIES.flatMap((family) => lookUps(family))
    ),
    // Before any other source NAT, which may choose an address whose replies do not come back here.
    nftChain(
      'host_port_back',
      'type nat hook postrouting priority srcnat - 5',
      [`meta mark & 0x${MARK.toString(16)} != 0 masquerade`],
      because
    ),
    // route_localnet would expose the host's loopback services to those pods (CVE-2020-8558). At this hook replies to
    // 127.0.0.1 still have another address.
    nftChain(
      'host_port_guard',
      'type filter hook prerouting priority raw',
      [`ip daddr 127.0.0.0/8 ${fromPods} drop`, `${fromLoopback} ${fromPods} drop`],
      because
    )
  ]
}

/**
 * The same for packets under conditions: once a host for each list of them. The rest of `hostPortBase` is theirs too.
 */
export const conditionedPortBase = (family: Family, conditions: readonly PortCondition[]): readonly KernelObject[] => [
  ...maps(family, conditions),
  ...entryChains(`_${family}${endingOf(conditions)}`, lookUps(family, conditions))
]

/** The lookups for packets from other hosts and from this one. */
const entryChains = (ending: string, rules: readonly string[]): readonly KernelObject[] => [
  nftChain(
    `host_port_in${ending}`,
    'type nat hook prerouting priority dstnat',
    [onlyToUs, `${fromPods} ${setMark}`, ...rules, `${fromPods} ${clearMark}`],
    because
  ),
  nftChain(
    `host_port_out${ending}`,
    'type nat hook output priority -100',
    // The kernel sends no packet from ::1 through a device (RFC 4291 2.5.3). It is refused at once, and programs try
    // 127.0.0.1 next.
    [onlyToUs, 'ip6 daddr ::1 return', `${fromLoopback} ${setMark}`, ...rules, `${fromLoopback} ${clearMark}`],
    because
  )
]

function maps(family: Family, conditions: readonly PortCondition[] = []): readonly NftSet[] {
  const [type, ending] = [addressType(family), endingOf(conditions)]
  const map = (which: 'any' | 'at', key: string): NftSet =>
    set({
      set: hostPortMap(family, which, ending),
      form: 'map',
      declaration: `type ${key} : ${type} . inet_service`
    })
  return [map('any', 'inet_proto . inet_service'), map('at', `${type} . inet_proto . inet_service`)]
}

const set = (rest: Pick<NftSet, 'set' | 'form' | 'declaration'>): NftSet => ({
  kind: 'nft-set',
  family: 'inet',
  table: NFT_TABLE,
  ...rest,
  because
})

/**
 * Objects for the device of a pod with host ports, a bridge or the pod's own link: packets from 127.0.0.1 may be sent
 * to it, and packets from it with loopback addresses are dropped. `comment` begins with the owner, for a device that is
 * not one of our pods' links.
 */
export const hostPortDevice = (device: string, comment?: string): readonly KernelObject[] => [
  {
    ...{ kind: 'nft-element', family: 'inet', table: NFT_TABLE, set: HOST_PORT_DEVICES, key: `"${device}"`, because },
    ...(comment === undefined ? {} : { comment })
  },
  { kind: 'sysctl', path: `net/ipv4/conf/${device}/route_localnet`, value: '1', because }
]

/** The sets and the chain that the elements of `translatedPods` depend on, once per host. */
export function translationBase(): readonly KernelObject[] {
  const sets = FAMILIES.map((family) => addressSet(translatedPodSet(family), family, because))
  const rules = FAMILIES.map(
    (family) => `ct status dnat ${protocol(family)} daddr @${translatedPodSet(family)} masquerade`
  )
  return [...sets, nftChain('host_port_all', 'type nat hook postrouting priority srcnat - 5', rules, because)]
}

/**
 * Pods that see connections to their host ports as coming from this host's address. `link` and `whose` as in
 * `hostPortElement`.
 */
export const translatedPods = (ips: readonly Ip[], link: string, whose: string): readonly KernelObject[] =>
  FAMILIES.flatMap((family) => ips.find((ip) => ip.family === family) ?? []).map((ip) =>
    addressElement(translatedPodSet(ip.family), ip, link, whose)
  )

/**
 * The elements of one pod. `ips`: the pod's, of which the first of each family counts; `link` and `whose` as in
 * `hostPortElement`; `conditions` are on `conditionedPortBase`.
 */
export function hostPorts(
  mappings: readonly PortMapping[],
  ips: readonly Ip[],
  link: string,
  whose: string,
  conditions: PerFamily<readonly PortCondition[]> = {}
): readonly KernelObject[] {
  const targets = FAMILIES.flatMap((family) => ips.find((ip) => ip.family === family) ?? [])
  return mappings.flatMap(({ protocol, hostPort, containerPort, hostIp }) =>
    targets
      .filter(({ family }) => hostIp === undefined || hostIp.family === family)
      .map((ip) =>
        hostPortElement(
          {
            protocol,
            port: hostPort,
            to: { ip, port: containerPort },
            ...(hostIp === undefined ? {} : { at: hostIp })
          },
          link,
          whose,
          endingOf(conditions[ip.family] ?? [])
        )
      )
  )
}
