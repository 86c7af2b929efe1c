// What a node's place in the network is made of, and when two of them are the same. Pure.
import {
  FAMILIES,
  type Family,
  formatIp,
  type Ip,
  type PerFamily,
  type Prefix,
  perFamily,
  samePrefix
} from '../../ipam/address.ts'
import { publishedVtepMac } from '../backend/vtep-mac.ts'
import type { NetConf } from '../config/net-conf.ts'
import type { Lease } from '../lease/lease.ts'
import type { Node } from '../state/node.ts'
import type { Mac } from '../state/object.ts'
import type { InterfaceChoice } from './choose-interface.ts'
import type { Configured } from './configuration.ts'

export type Place = Configured & {
  readonly node: Node
  readonly lease: Lease
  /** The store has agreed to the lease since this weftd started. */
  readonly isConfirmed: boolean
  /** Bytes, for pods. */
  readonly mtu: number
}

/** The whole network of each family. */
export const networksOf = (conf: NetConf | undefined): PerFamily<Prefix> =>
  Object.fromEntries(
    FAMILIES.flatMap((family) =>
      conf?.families[family] === undefined ? [] : [[family, conf.families[family].network]]
    )
  )

export const familiesOf = (conf: NetConf): readonly Family[] =>
  FAMILIES.filter((family) => conf.families[family] !== undefined)

/** Whether two choices say the same to the other nodes. */
export const sameChoice = (a: InterfaceChoice, b: InterfaceChoice): boolean => sameFacts({ ...a, deviceMtu: a.mtu }, b)

export function sameFacts(
  node: Pick<Node, 'device' | 'deviceMtu' | 'localIp' | 'publicIp' | 'addresses'>,
  choice: InterfaceChoice
): boolean {
  const ips = (record: PerFamily<Ip>) =>
    perFamily(record)
      .map(([, ip]) => formatIp(ip))
      .join(' ')
  return (
    node.device === choice.device &&
    node.deviceMtu === choice.mtu &&
    ips(node.localIp) === ips(choice.localIp) &&
    ips(node.publicIp) === ips(choice.publicIp) &&
    node.addresses.length === choice.addresses.length &&
    node.addresses.every((prefix) =>
      choice.addresses.some((other) => prefix.ip.value === other.ip.value && samePrefix(prefix, other))
    )
  )
}

/** The VTEP MACs that a lease publishes: they stay ours for as long as the lease does. */
export function publishedMac(lease: Lease | undefined): PerFamily<Mac> {
  const macs: { [F in Family]?: Mac } = {}
  for (const [family, published] of perFamily(lease?.backendData ?? {})) {
    const { mac } = publishedVtepMac(published)
    if (mac !== undefined) macs[family] = mac
  }
  return macs
}
