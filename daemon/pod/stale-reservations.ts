// Who holds a pool's addresses, for errors; and which reservations nobody holds: their pods went while no weftd watched, and no DEL came.
import { contains, formatIp } from '../../ipam/address.ts'
import type { Reservation } from '../../ipam/reservations.ts'
import type { Attachment } from '../../plugins/attachment.ts'
import { hostName, ownerOf, parseAlias } from '../attachment/identity.ts'
import { type KernelObject, type Link, linkNamed, type State } from '../state/object.ts'
import type { PodContext } from './context.ts'

/**
 * Accepts what surely belongs to no pod that lives: its link on the host is not there, and no verb on it is under way. Nothing where other programs' pods
 * may hold addresses of the same network, as on a node taken over from flannel.
 */
export function isStale(context: PodContext, attachment: Attachment): (reservation: Reservation) => boolean {
  const { attachments, host } = context
  if (attachment.interface.kind !== 'veth' || hasStrangers(host.observed, attachment, context)) return () => false
  return ({ owner }) => {
    if (owner?.ifname === undefined) return false
    const who = { network: attachment.network, containerId: owner.containerId, ifname: owner.ifname }
    const isKnown =
      attachments.isBusy(who) || attachments.get(who) !== undefined || attachments.reserved.has(ownerOf(who))
    return !isKnown && linkNamed(host.observed, hostName(who)) === undefined
  }
}

/** Pods' links that are not ours, on the bridge of this network or with an address or a route of this node's subnet. */
function hasStrangers(observed: State, attachment: Attachment, context: PodContext): boolean {
  const strangers = new Set(
    [...observed.values()]
      .filter((object): object is Link => object.kind === 'link' && object.form?.type === 'veth')
      .filter(({ alias }) => parseAlias(alias) === undefined)
      .flatMap(({ name, master }) => (master ? [name, master] : [name]))
  )
  if (strangers.size === 0) return false
  if (attachment.interface.kind === 'veth' && strangers.has(attachment.interface.bridge)) return true
  const subnet = context.place()?.node.subnet ?? {}
  const isOfSubnet = (object: KernelObject): boolean => {
    const prefix = object.kind === 'address' ? object.prefix : object.kind === 'route' ? object.destination : undefined
    const own = prefix && subnet[prefix.ip.family]
    return own !== undefined && prefix !== undefined && contains(own, prefix)
  }
  return [...observed.values()].some(
    (object) => 'device' in object && strangers.has(object.device ?? '') && isOfSubnet(object)
  )
}

/** Who holds addresses, for an error: the first few, each as container, interface and address. */
export function holdersText(held: readonly Reservation[]): string {
  const shown = held.slice(0, 8).map(({ ip, owner }) => {
    const who = owner === undefined ? 'nobody' : [owner.containerId.slice(0, 12), owner.ifname].join(' ').trim()
    return `${formatIp(ip)} ${who}`
  })
  const more = held.length - shown.length
  return [...shown, ...(more > 0 ? [`${more} more`] : [])].join(', ')
}
