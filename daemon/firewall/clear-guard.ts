// Drops packets between pods of different nodes that are not encrypted, where the backend encrypts: a route that is
// missing or another program's route must not send them in clear.
import { contains, type Family, formatIp, netmask, type PerFamily, type Prefix, perFamily } from '../../ipam/address.ts'
import { encryptedSet } from '../state/encrypted-subnets.ts'
import type { KernelObject } from '../state/object.ts'
import { CONTAINER_ENDS } from '../state/ownership.ts'
import { addressSet } from './address-set.ts'
import { nftChain } from './chain.ts'
import { fromAny, protocol, toPrefix } from './match.ts'

const because = 'packets between nodes must be encrypted'

export type ClearGuard = {
  /** The devices that encrypt. */
  readonly devices: readonly string[]
  readonly networks: PerFamily<Prefix>
  /** This node's. */
  readonly subnet: PerFamily<Prefix>
  readonly addresses: readonly Prefix[]
  /** The bridge of pods that name no other. */
  readonly bridge: string
}

/**
 * Subnets of other nodes are looked up by their network's address, at the length of this node's own. Where no host has
 * an address in the pod network, all of it counts, but for what goes to pods here: a subnet that is not known yet, too.
 */
export function clearGuard({ devices, networks, subnet, addresses, bridge }: ClearGuard): readonly KernelObject[] {
  const names = `{ ${devices.map((device) => `"${device}"`).join(', ')} }`
  const local = `{ ${[...devices, bridge, CONTAINER_ENDS, 'lo'].map((device) => `"${device}"`).join(', ')} }`
  const masked = perFamily(subnet).map(([family, own]) => [family, formatIp(netmask(own))] as const)
  const leaving = [
    ...masked.map(([family, mask]) => `${toAny(family)} & ${mask} @${encryptedSet(family)} oifname != ${names} drop`),
    ...perFamily(networks).flatMap(([family, network]) => {
      const own = subnet[family]
      const hasHosts = addresses.some((address) => contains(network, address.ip))
      if (own === undefined || hasHosts) return []
      return [`${toPrefix(network)} ${toPrefix(own, true)} oifname != ${local} drop`]
    })
  ]
  const arriving = masked.map(
    ([family, mask]) => `${fromAny(family)} & ${mask} @${encryptedSet(family)} iifname != ${names} drop`
  )
  const chain = (hook: string, rules: readonly string[]) =>
    nftChain(`clear_${hook}`, `type filter hook ${hook} priority filter`, rules, because)
  return [
    ...masked.map(([family]) => addressSet(encryptedSet(family), family, because)),
    chain('forward', [...leaving, ...arriving]),
    chain('output', leaving),
    chain('input', arriving)
  ]
}

const toAny = (family: Family): string => `${protocol(family)} daddr`
