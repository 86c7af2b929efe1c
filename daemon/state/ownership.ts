// Ownership: which kernel objects are Weft's, and so may be removed. A restarted weftd knows its objects by these marks
// alone; there is no state file.
import { isLinkLocal } from '../../ipam/address.ts'
import { isSetting, type KernelObject, type Link } from './object.ts'

/**
 * rtm_protocol of every route and of every neighbour proxy that Weft makes. Free in rtnetlink.h and in iproute2's
 * rt_protos (November 2026).
 */
export const ROUTE_PROTOCOL = 87
/** The nftables table that holds all of Weft's chains, in family inet. */
export const NFT_TABLE = 'weft'
/** Links in this group are being deleted; a weftd that starts finishes that. */
export const DOOMED_GROUP = 0x57ef
/**
 * The host's ends of containers in nft's syntax, whichever program made them: what a rule says of them it says of pods.
 */
export const CONTAINER_ENDS = 'veth*'

export const isContainerEnd = (device: string): boolean => device.startsWith('veth')

/** First word of the alias of every veth that Weft makes, followed by network, container id, interface name and pod. */
export const ALIAS_MARK = 'weft'
/**
 * Prefix of the first word of a comment in nftables where a plugin behind the interface's own made the element, portmap
 * or firewall; other elements have the pod's link there. The firewall plugin came later: the word is portmap's, so that
 * a weftd recognises the elements of an earlier one.
 */
export const CHAINED_MARK = 'ports-'

/** The device that limits what a pod sends: `weft` and the digits of the pod's link on the host. */
export const ifbName = (hostLink: string): string => hostLink.replace(/^veth/, 'weft')
const ifb = /^weft[0-9a-f]{8}$/

/**
 * A backend's device: made by Weft; made by flanneld, to be adopted under its name; or of the same kind and another
 * program's.
 */
export type Recognised = 'own' | 'adoptable' | 'foreign'
/**
 * What the backends say of a device (backend/registry.ts). Without `form` only the name is known, as from an address or
 * a route on the device.
 */
export type Recognises = (device: Pick<Link, 'name' | 'form'>) => Recognised | undefined

/**
 * Whether weftd may remove an object that is not desired. Pods' links are removed by DEL and GC only, never by a
 * comparison; shared objects stay. Objects on an adoptable device count as ours once we use it (`isAdopted`): before
 * that it belongs to another network.
 */
export function mayRemove(
  object: KernelObject,
  recognises: Recognises,
  isAdopted: (device: string) => boolean = () => false
): boolean {
  const isOnOurs = (name: string) => {
    const recognised = recognises({ name })
    return recognised === 'own' || (recognised === 'adoptable' && isAdopted(name))
  }
  switch (object.kind) {
    case 'link':
      if (object.form?.type === 'ifb') return ifb.test(object.name)
      return object.form !== undefined && recognises(object) === 'own'
    case 'address':
      // The kernel gives every IPv6 link its link-local address itself.
      return isOnOurs(object.device) && !isLinkLocal(object.prefix.ip)
    case 'neighbour':
    case 'fdb':
      return isOnOurs(object.device)
    case 'route':
      return (
        object.protocol === ROUTE_PROTOCOL ||
        (object.device !== undefined && isOnOurs(object.device) && object.protocol !== PROTOCOL_KERNEL)
      )
    case 'proxy':
      return object.protocol === ROUTE_PROTOCOL
    case 'fou':
      return object.marked === true
    case 'nft-chain':
    case 'nft-set':
    case 'nft-element':
      return object.table === NFT_TABLE
    case 'accept':
    case 'admin-call':
    case 'tunnel-socket':
    case 'tunnel-peer':
      return true
    case 'sysctl':
    case 'offload':
    case 'qdisc':
    case 'vlans':
      // A setting can't be removed; a queueing discipline and a port's VLANs are removed with the device.
      return false
  }
}

/**
 * What stays when its last owner is removed, because other programs may depend on it by then: kernel settings, and a
 * bridge of pods with its VLANs, addresses and their routes.
 */
export function staysWhenUnwanted(object: KernelObject, recognises: Recognises): boolean {
  return (
    isSetting(object) ||
    object.kind === 'vlans' ||
    (object.kind === 'link' &&
      (object.form?.type === 'bridge' || object.form?.type === 'vlan') &&
      recognises(object) !== 'own') ||
    (object.kind === 'route' && object.protocol === PROTOCOL_KERNEL) ||
    (object.kind === 'address' && !hasOurAddresses(object.device, recognises))
  )
}

/** A device whose addresses we may remove again: a backend's, or the host end of a pod. */
const hasOurAddresses = (name: string, recognises: Recognises): boolean =>
  ['own', 'adoptable'].includes(recognises({ name }) ?? '') || isContainerEnd(name)

/** RTPROT_KERNEL: routes that come and go with an address. */
export const PROTOCOL_KERNEL = 2
