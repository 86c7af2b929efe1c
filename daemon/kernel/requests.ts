// The rtnetlink messages of one change.
import { isLinkLocal } from '../../ipam/address.ts'
import type { Change } from '../state/difference.ts'
import type { Address, KernelObject, Link, Route } from '../state/object.ts'
import * as encode from './netlink/encode.ts'
import { putQdisc, removeQdisc } from './netlink/qdisc.ts'
import { putVlans } from './netlink/vlans.ts'

/** `creates`: the link that the messages create. `afterwards`: a message that needs it to exist. */
export type Requests = {
  readonly messages: readonly Buffer[]
  readonly creates?: string
  readonly afterwards?: Buffer | undefined
  /** So many of the first messages may fail. */
  readonly mayFail?: number
}

export function requestsOf(change: Change, resolve: encode.Resolve): Requests {
  const { object } = change
  const put = change.do === 'put'
  switch (object.kind) {
    case 'link':
      return linkRequests(object, change.instead?.kind === 'link' ? change.instead : undefined, resolve)
    case 'address':
      return {
        messages: put ? addressRequests(object, change.instead, resolve) : [encode.removeAddress(object, resolve)]
      }
    case 'route':
      return put ? routeRequests(object, change.instead, resolve) : { messages: [encode.removeRoute(object, resolve)] }
    case 'neighbour':
      return { messages: [put ? encode.putNeighbour(object, resolve) : encode.removeNeighbour(object, resolve)] }
    case 'proxy':
      return { messages: [put ? encode.putProxy(object, resolve) : encode.removeProxy(object, resolve)] }
    case 'fdb':
      return { messages: [put ? encode.putFdbEntry(object, resolve) : encode.removeFdbEntry(object, resolve)] }
    case 'vlans':
      return { messages: put ? putVlans(object, resolve) : [] }
    case 'qdisc':
      return { messages: put ? putQdisc(object, change.instead, resolve) : [removeQdisc(object, resolve)] }
    default:
      return { messages: [] }
  }
}

/**
 * IPv4 has several routes with one destination and metric, of which the first is used. A replacement replaces the
 * first, and is refused (EEXIST) when ours stands behind it: so ours is removed first, if it is there.
 */
function routeRequests(route: Route, instead: KernelObject | undefined, resolve: encode.Resolve): Requests {
  // In IPv6 a replacement would be a route that no longer goes with the address.
  const isKernels = route.withAddress !== undefined && route.destination.ip.family === 6 && instead === undefined
  // Every device has one to the link-local addresses.
  if (isKernels && isLinkLocal(route.destination.ip)) return { messages: [encode.addRoute(route, resolve)] }
  const put = encode.putRoute(isKernels ? { ...route, yields: true } : route, resolve)
  const isOthers = instead?.kind === 'route' && instead.protocol !== route.protocol
  if (!isOthers || route.yields || route.destination.ip.family !== 4) return { messages: [put] }
  return { messages: [encode.removeRoute(route, resolve), put], mayFail: 1 }
}

/**
 * For IPv4 the kernel acknowledges a replacement with other flags or another scope and changes neither (seen on 6.18),
 * so the old address is removed first.
 */
function addressRequests(
  address: Address,
  instead: KernelObject | undefined,
  resolve: encode.Resolve
): readonly Buffer[] {
  const put = encode.putAddress(address, resolve)
  return instead?.kind === 'address' && address.prefix.ip.family === 4
    ? [encode.removeAddress(instead, resolve), put]
    : [put]
}

const SETTINGS = [
  ...(['up', 'mtu', 'mac', 'master', 'alias', 'group', 'hairpin', 'isolated'] as const),
  ...(['promiscuous', 'allMulticast', 'queueLength', 'vlanFiltering'] as const)
]
const PORT_FLAGS: readonly (typeof SETTINGS)[number][] = ['hairpin', 'isolated']

const CREATED: ReadonlySet<string | undefined> = new Set(['vxlan', 'bridge', 'ipip', 'ifb', 'wireguard', 'vlan'])

/**
 * Changes what differs on an existing link; creates one whose form says how; any other must exist already (`lo`, a
 * pod's end of a pair).
 */
function linkRequests(link: Link, instead: Link | undefined, resolve: encode.Resolve): Requests {
  const form = link.form
  const canBeCreated =
    CREATED.has(form?.type) ||
    (form?.type === 'macvlan' && form.madeOn !== undefined) ||
    (form?.type === 'veth' && form.peer !== undefined)
  if (instead === undefined && canBeCreated) {
    return {
      creates: link.name,
      messages: [encode.createLink(link, resolve)],
      afterwards: encode.afterCreation(link, resolve)
    }
  }
  const differs = (field: (typeof SETTINGS)[number]): boolean =>
    link[field] !== undefined && (instead === undefined || link[field] !== instead[field])
  const changing = SETTINGS.filter(differs)
  if (changing.length === 0 && instead !== undefined) return { messages: [] }
  const change = (fields: readonly (typeof SETTINGS)[number][]): Buffer =>
    encode.changeLink(link.name, Object.fromEntries(fields.map((field) => [field, link[field]])), resolve)
  // A port's flags are refused (EOPNOTSUPP) in the message that sets its master: the kernel looks for the bridge before
  // it reads IFLA_MASTER.
  const flags = changing.filter((field) => PORT_FLAGS.includes(field))
  const isPortFirst = changing.includes('master') && flags.length > 0
  if (!isPortFirst) return { messages: [change(changing)] }
  return { messages: [change(changing.filter((field) => !flags.includes(field))), change(flags)] }
}
