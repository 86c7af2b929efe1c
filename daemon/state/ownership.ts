// What is ours in the kernel, and so may be removed. A restarted weftd knows its own by these marks alone; there is no state file.
import { isLinkLocal } from '../../ipam/address.ts'
import type { KernelObject } from './object.ts'

/** rtm_protocol of every route and of every neighbour proxy we make. Free in rtnetlink.h and in iproute2's rt_protos (November 2026). */
export const ROUTE_PROTOCOL = 87
/** The nftables table that holds all our chains, in family inet. */
export const NFT_TABLE = 'weft'
/** Links in this group are being deleted: whoever starts finishes that. */
export const DOOMED_GROUP = 0x57ef
/** First word of the alias of every veth we make, followed by network, container id, interface name and pod. */
export const ALIAS_MARK = 'weft'
/**
 * How the first word of a comment begins in nftables where a plugin behind the interface's own made the element, portmap or firewall; others have the pod's
 * link there. The firewall plugin came later: the word is portmap's, by which a weftd knows what an earlier one made.
 */
export const CHAINED_MARK = 'ports-'

/** The device that carries VXLAN network `vni` over this tunnel family. Linux takes 15 bytes at most (IFNAMSIZ), and a VNI has up to eight digits. */
export const vxlanName = (vni: number, family: 4 | 6): string => (family === 4 ? `weft.${vni}` : `weft6.${vni}`)
/** What flanneld calls the same device. */
export const flannelName = (vni: number, family: 4 | 6): string =>
  family === 4 ? `flannel.${vni}` : `flannel-v6.${vni}`

const ourTunnel = /^(weft|weft6)\.\d+$/
const flannelTunnel = /^(flannel|flannel-v6)\.\d+$/

/** The device that holds back what a pod sends: `weft` and the digits of the pod's link on the host. */
export const ifbName = (hostLink: string): string => hostLink.replace(/^veth/, 'weft')
const ifb = /^weft[0-9a-f]{8}$/

/**
 * Whether weftd may remove an object that nobody desires. Pods' links are removed by DEL and GC only, never by a
 * comparison; what is shared stays. flanneld's tunnel counts as ours once we use it (`isAdopted`): another one is another network's.
 */
export function mayRemove(object: KernelObject, isAdopted: (device: string) => boolean = () => false): boolean {
  const onTunnel = (device: string) => ourTunnel.test(device) || (flannelTunnel.test(device) && isAdopted(device))
  switch (object.kind) {
    case 'link':
      if (object.form?.type === 'ifb') return ifb.test(object.name)
      return object.form?.type === 'vxlan' && ourTunnel.test(object.name)
    case 'address':
      // The kernel gives every IPv6 link its link-local address itself.
      return onTunnel(object.device) && !isLinkLocal(object.prefix.ip)
    case 'neighbour':
    case 'fdb':
      return onTunnel(object.device)
    case 'route':
      return (
        object.protocol === ROUTE_PROTOCOL ||
        (object.device !== undefined && onTunnel(object.device) && object.protocol !== PROTOCOL_KERNEL)
      )
    case 'proxy':
      return object.protocol === ROUTE_PROTOCOL
    case 'nft-chain':
    case 'nft-set':
    case 'nft-element':
      return object.table === NFT_TABLE
    case 'accept':
      return true
    case 'sysctl':
    case 'qdisc':
      // A setting has no absence, and a queueing discipline goes with its device.
      return false
  }
}

/** What stays when its last owner has gone, because others may stand on it by then: kernel settings, and a bridge with its addresses. */
export function staysWhenUnwanted(object: KernelObject): boolean {
  return (
    object.kind === 'sysctl' ||
    (object.kind === 'link' && object.form?.type === 'bridge') ||
    (object.kind === 'address' && !ourDevice.test(object.device))
  )
}
/** Devices whose addresses we may take away again: tunnels and the host ends of pods. */
const ourDevice = /^(weft|weft6|flannel|flannel-v6)\.\d+$|^veth/

/** RTPROT_KERNEL: routes that come and go with an address. */
const PROTOCOL_KERNEL = 2
