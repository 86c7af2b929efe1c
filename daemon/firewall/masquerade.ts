// Masquerading: pods reach the world with the host's address, and each other with their own. Rules and order are flannel's.
import { type PerFamily, type Prefix, perFamily } from '../../ipam/address.ts'
import type { NftChain } from '../state/object.ts'
import { nftChain } from './chain.ts'
import { fromPrefix, MULTICAST, toPrefix } from './match.ts'

/**
 * Chain postrouting for this node's subnets `own` in the networks `cluster`. A family takes part when both know it. `randomFully`: source ports are chosen
 * at random, which avoids lost SYNs when two connections race for one port.
 */
export function masquerade(own: PerFamily<Prefix>, cluster: PerFamily<Prefix>, randomFully: boolean): NftChain {
  const translate = randomFully ? 'masquerade fully-random' : 'masquerade'
  const rules = perFamily(cluster).flatMap(([family, network]) => {
    const subnet = own[family]
    if (subnet === undefined) return []
    return [
      `${fromPrefix(subnet)} ${toPrefix(network)} return`,
      `${fromPrefix(network)} ${toPrefix(subnet)} return`,
      `${fromPrefix(network, true)} ${toPrefix(subnet)} return`,
      `${fromPrefix(network)} ${toPrefix(MULTICAST[family], true)} ${translate}`,
      `${fromPrefix(network, true)} ${toPrefix(network)} ${translate}`
    ]
  })
  // kube-proxy marks what it masquerades itself with this bit (flannel.md 7).
  const marked = 'meta mark & 0x4000 == 0x4000 return'
  return nftChain('postrouting', 'type nat hook postrouting priority srcnat', [marked, ...rules], '--ip-masq')
}
