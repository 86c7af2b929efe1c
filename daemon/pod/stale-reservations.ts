// Reservations of pods that ended without a DEL while no weftd ran, and the holders of a pool's addresses for error
// messages.
import { contains, formatIp } from '../../ipam/address.ts'
import type { Reservation } from '../../ipam/unusable.ts'
import type { Attachment } from '../../plugins/attachment.ts'
import { hostName, parseAlias } from '../attachment/identity.ts'
import { type KernelObject, type Link, linkNamed, type State } from '../state/object.ts'
import type { PodContext } from './context.ts'

/**
 * Accepts reservations that certainly belong to no running pod: there is no link on the host, and no verb on the
 * attachment is running. None where other programs' pods may have addresses of the same network, as on a node taken
 * over from flannel.
 */
export function isStale(context: PodContext, attachment: Attachment): (reservation: Reservation) => boolean {
  const { attachments, host } = context
  if (attachment.interface.kind !== 'veth' || hasForeignPods(host.observed, attachment, context)) return () => false
  return ({ owner }) => {
    if (owner?.ifname === undefined) return false
    const who = { network: attachment.network, containerId: owner.containerId, ifname: owner.ifname }
    return !attachments.isInUse(who) && linkNamed(host.observed, hostName(who)) === undefined
  }
}

/** veths that are not Weft's, on the bridge of this network or with an address or route in this node's subnet. */
function hasForeignPods(observed: State, attachment: Attachment, context: PodContext): boolean {
  const foreign = new Set(
    [...observed.values()]
      .filter((object): object is Link => object.kind === 'link' && object.form?.type === 'veth')
      .filter(({ alias }) => parseAlias(alias) === undefined)
      .flatMap(({ name, master }) => (master ? [name, master] : [name]))
  )
  if (foreign.size === 0) return false
  if (attachment.interface.kind === 'veth' && foreign.has(attachment.interface.bridge)) return true
  const subnet = context.place()?.node.subnet ?? {}
  const isOfSubnet = (object: KernelObject): boolean => {
    const prefix = object.kind === 'address' ? object.prefix : object.kind === 'route' ? object.destination : undefined
    const own = prefix && subnet[prefix.ip.family]
    return own !== undefined && prefix !== undefined && contains(own, prefix)
  }
  return [...observed.values()].some(
    (object) => 'device' in object && foreign.has(object.device ?? '') && isOfSubnet(object)
  )
}

/** For an error: the first eight holders, each as address, container and interface. */
export function holdersText(held: readonly Reservation[]): string {
  const shown = held.slice(0, 8).map(({ ip, owner }) => {
    const who = owner === undefined ? 'nobody' : [owner.containerId.slice(0, 12), owner.ifname].join(' ').trim()
    return `${formatIp(ip)} ${who}`
  })
  const more = held.length - shown.length
  return [...shown, ...(more > 0 ? [`${more} more`] : [])].join(', ')
}
