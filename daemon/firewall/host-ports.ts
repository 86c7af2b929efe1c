// Host ports: elements of maps, looked up by two chains that are the same for one port and for a thousand. Nothing here is a rule of a pod.
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

/** A port of this host that leads to a pod's. `hostIp` absent: by every address; unspecified: by every one of its family. */
export type PortMapping = {
  readonly protocol: PortProtocol
  readonly hostPort: number
  readonly containerPort: number
  readonly hostIp?: Ip
}

const because = 'host ports of pods'

/**
 * The mark that the reference's portmap puts on what must be masqueraded (bit 13), so that the two on one host mean the same. It is on a connection's
 * first packet only, from the lookup to the end of postrouting.
 */
const MARK = 0x2000
const setMark = `meta mark set meta mark | 0x${MARK.toString(16)}`
const clearMark = `meta mark set meta mark & 0x${(~MARK >>> 0).toString(16)}`

/** Single addresses first. A rule whose map has no such port, or whose conditions a packet does not meet, lets it pass on to the next. */
function lookUps(family: Family, conditions: readonly PortCondition[] = []): readonly string[] {
  const [ip, match, ending] = [protocol(family), matchOf(conditions), endingOf(conditions)]
  return [
    `${match}dnat ${ip} to ${ip} daddr . meta l4proto . th dport map @${hostPortMap(family, 'at', ending)}`,
    `${match}dnat ${ip} to meta l4proto . th dport map @${hostPortMap(family, 'any', ending)}`
  ]
}

const onlyToUs = 'fib daddr type != local return'
/** Behind a device of a pod with host ports: the answer of the one to the other must come back through this host, or it is not translated back. */
const fromPods = `iifname @${HOST_PORT_DEVICES}`
const fromLoopback = 'ip saddr 127.0.0.0/8'

/** Chains, maps and the set of devices: once a host, from its first pod with host ports on. */
export function hostPortGround(): readonly KernelObject[] {
  return [
    ...FAMILIES.flatMap((family) => maps(family)),
    set({ set: HOST_PORT_DEVICES, form: 'set', declaration: 'type ifname' }),
    ...waysIn(
      '',
      FAMILIES.flatMap((family) => lookUps(family))
    ),
    // Before anybody's own source translation: theirs may choose an address whose answers do not come back here.
    nftChain(
      'host_port_back',
      'type nat hook postrouting priority srcnat - 5',
      [`meta mark & 0x${MARK.toString(16)} != 0 masquerade`],
      because
    ),
    // route_localnet would open the host's loopback services to those pods (CVE-2020-8558). Here answers to 127.0.0.1 still have another address.
    nftChain(
      'host_port_guard',
      'type filter hook prerouting priority raw',
      [`ip daddr 127.0.0.0/8 ${fromPods} drop`, `${fromLoopback} ${fromPods} drop`],
      because
    )
  ]
}

/** The same for packets under conditions: once a host for each list of them. The rest of `hostPortGround` is theirs too. */
export const conditionedGround = (family: Family, conditions: readonly PortCondition[]): readonly KernelObject[] => [
  ...maps(family, conditions),
  ...waysIn(`_${family}${endingOf(conditions)}`, lookUps(family, conditions))
]

/** From other hosts and from this one. */
const waysIn = (ending: string, rules: readonly string[]): readonly KernelObject[] => [
  nftChain(
    `host_port_in${ending}`,
    'type nat hook prerouting priority dstnat',
    [onlyToUs, `${fromPods} ${setMark}`, ...rules, `${fromPods} ${clearMark}`],
    because
  ),
  nftChain(
    `host_port_out${ending}`,
    'type nat hook output priority -100',
    // The kernel lets no packet from ::1 leave by a device (RFC 4291 2.5.3): refused at once, programs go on to 127.0.0.1.
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
 * What the device needs behind which a pod with host ports is, the bridge or the pod's own link: packets from 127.0.0.1 may be sent to it, and nothing
 * may come from it that claims to be of the loopback network. `comment` begins with whose it is, for a device that is no pod's link of ours.
 */
export const hostPortDevice = (device: string, comment?: string): readonly KernelObject[] => [
  {
    ...{ kind: 'nft-element', family: 'inet', table: NFT_TABLE, set: HOST_PORT_DEVICES, key: `"${device}"`, because },
    ...(comment === undefined ? {} : { comment })
  },
  { kind: 'sysctl', path: `net/ipv4/conf/${device}/route_localnet`, value: '1', because }
]

/** What `translatedPods` stands on: like the ground, once a host. */
export function translationGround(): readonly KernelObject[] {
  const sets = FAMILIES.map((family) => addressSet(translatedPodSet(family), family, because))
  const rules = FAMILIES.map(
    (family) => `ct status dnat ${protocol(family)} daddr @${translatedPodSet(family)} masquerade`
  )
  return [...sets, nftChain('host_port_all', 'type nat hook postrouting priority srcnat - 5', rules, because)]
}

/** Pods that see whoever comes by a host port with this host's address. `link` and `whose` as in `hostPortElement`. */
export const translatedPods = (ips: readonly Ip[], link: string, whose: string): readonly KernelObject[] =>
  FAMILIES.flatMap((family) => ips.find((ip) => ip.family === family) ?? []).map((ip) =>
    addressElement(translatedPodSet(ip.family), ip, link, whose)
  )

/**
 * The elements of one pod. `ips`: the pod's, of which the first of each family counts; `link` and `whose` as in `hostPortElement`; `conditions` are on
 * `conditionedGround`.
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
