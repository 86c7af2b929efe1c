// The place of this node in the network: configuration, lease and the facts about the host; and when two places are
// equal.
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
import type { NetConf } from '../config/net-conf.ts'
import type { Lease } from '../lease/lease.ts'
import type { Node } from '../state/node.ts'
import type { InterfaceChoice } from './choose-interface.ts'
import type { InUse } from './configured.ts'

export type Place = InUse & {
  readonly node: Node
  readonly lease: Lease
  /** The store has confirmed the lease since this weftd started. */
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

export const publicIpsOf = (lease: Lease): readonly string[] => perFamily(lease.publicIp).map(([, ip]) => formatIp(ip))

export const familiesOf = (conf: NetConf): readonly Family[] =>
  FAMILIES.filter((family) => conf.families[family] !== undefined)

/** Whether two choices mean the same to the other nodes. */
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
