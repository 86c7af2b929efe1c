// The kernel state as one observer knows it: objects of interest by key and by device, and all links by index, since
// messages name devices by index.
import { isDeepStrictEqual } from 'node:util'
import type { KernelObject, Key, Link, LinkForm, PortVlans, Route } from '../state/object.ts'
import { deviceOf, keyOf, sameObject } from '../state/object.ts'
import { DOOMED_GROUP } from '../state/ownership.ts'
import {
  changedNextHop,
  decodeAddress,
  decodeLink,
  decodeNeighbour,
  decodeRoute,
  linkIdentity,
  linkName,
  type NameOf,
  portFlags
} from './netlink/decode.ts'
import { type Message, NLM_F } from './netlink/message.ts'
import { endsForwarding, settingsIn } from './netlink/netconf.ts'
import { decodeTraffic } from './netlink/qdisc.ts'
import { AF_BRIDGE, RTM } from './netlink/uapi.ts'
import { decodeVlans } from './netlink/vlans.ts'

/** What a notification changes. */
export type Update = {
  readonly changed: readonly { readonly key: Key; readonly object: KernelObject | undefined }[]
  /** Set when the kernel may have removed objects without a notification: only a dump shows which. */
  readonly dumpBecause?: string
  /** Paths below /proc/sys that may have changed without a notification. */
  readonly reread?: readonly string[]
}

const UNCHANGED: Update = { changed: [] }

export class Cache {
  readonly #interest: (object: KernelObject) => boolean
  readonly #desired: (key: Key) => KernelObject | undefined
  readonly #links = new Map<number, Link>()
  readonly #objects = new Map<Key, KernelObject>()
  readonly #byDevice = new Map<string, Set<Key>>()
  /**
   * IPv4 routes with the key of another that the kernel has before them: those are not used, until that one is removed.
   */
  readonly #behind = new Map<Key, readonly Route[]>()
  /** Some route was by a nexthop object, since the last dump. */
  #hasNextHops = false
  readonly nameOf: NameOf = (index) => this.#links.get(index)?.name

  constructor(
    interest: (object: KernelObject) => boolean,
    desired: (key: Key) => KernelObject | undefined = () => undefined
  ) {
    this.#interest = interest
    this.#desired = desired
  }

  /** A copy, since the consumer keeps it. */
  state(): Map<Key, KernelObject> {
    return new Map(this.#objects)
  }

  /** Replaces everything by the links of a dump; `put` the other objects afterwards. */
  restart(links: ReadonlyMap<number, Link>): void {
    this.#links.clear()
    this.#objects.clear()
    this.#byDevice.clear()
    this.#behind.clear()
    this.#hasNextHops = false
    for (const [index, link] of links) {
      this.#links.set(index, link)
      this.put(link)
    }
  }

  /** Stores an object of a dump, which lists the routes of one key in the kernel's order. */
  putListed(object: KernelObject): void {
    const key = object.kind === 'route' && isIpv4(object) && this.#interest(object) ? keyOf(object) : undefined
    if (key === undefined || object.kind !== 'route' || !this.#objects.has(key)) this.put(object)
    else this.#behind.set(key, [...(this.#behind.get(key) ?? []), object])
  }

  /**
   * Stores an object of interest; where an equivalent desired object exists, stores that one, so that thousands of
   * routes are in memory once.
   */
  put(decoded: KernelObject): Key | undefined {
    if (!this.#interest(decoded)) return undefined
    const key = keyOf(decoded)
    const desired = this.#desired(key)
    const object = desired !== undefined && isEquivalent(desired, decoded) ? desired : decoded
    // A route may come back under its key on another device.
    this.drop(key)
    this.#objects.set(key, object)
    if (object.kind === 'route' && object.nextHopId !== undefined) this.#hasNextHops = true
    const device = deviceOf(object)
    if (device !== undefined) {
      const keys = this.#byDevice.get(device)
      if (keys === undefined) this.#byDevice.set(device, new Set([key]))
      else keys.add(key)
    }
    return key
  }

  drop(key: Key): boolean {
    const object = this.#objects.get(key)
    if (object === undefined) return false
    this.#objects.delete(key)
    const device = deviceOf(object)
    if (device !== undefined) this.#byDevice.get(device)?.delete(key)
    return true
  }

  get(key: Key): KernelObject | undefined {
    return this.#objects.get(key)
  }

  /** Applies a message of rtnetlink's multicast groups. Errors: MalformedMessage. */
  apply(message: Message): Update {
    switch (message.type) {
      case RTM.newLink:
      case RTM.deleteLink:
        return this.#onLink(message)
      case RTM.newAddress:
        return this.#onObject(decodeAddress(message, this.nameOf))
      case RTM.deleteAddress:
        return this.#onAddressGone(message)
      case RTM.newRoute:
        return this.#onNewRoute(decodeRoute(message, this.nameOf), message.flags)
      case RTM.deleteRoute:
        return this.#onRouteGone(decodeRoute(message, this.nameOf))
      case RTM.newNextHop:
      case RTM.deleteNextHop:
        return this.#onNextHop(changedNextHop(message))
      case RTM.newNeighbour:
      case RTM.deleteNeighbour: {
        const entry = decodeNeighbour(message, this.nameOf)
        if (entry === undefined) return UNCHANGED
        // A permanent entry that became another kind counts as removed.
        return message.type === RTM.newNeighbour && entry.permanent
          ? this.#onObject(entry.object)
          : this.#onGone(entry.object)
      }
      case RTM.newQdisc:
      case RTM.newFilter:
        return this.#onObject(decodeTraffic(message, this.nameOf))
      case RTM.deleteQdisc:
      case RTM.deleteFilter:
        return this.#onGone(decodeTraffic(message, this.nameOf))
      case RTM.newNetconf:
        return this.#onSettings(message)
      default:
        return UNCHANGED
    }
  }

  /** A route that names its next hops by number only keeps those that are known of it; otherwise a dump finds them. */
  #onNewRoute(route: Route | undefined, flags: number): Update {
    const { nextHopId, device, nextHops } = route ?? {}
    if (route === undefined || nextHopId === undefined || device !== undefined || nextHops !== undefined)
      return this.#onRoute(route, flags)
    const known = this.#objects.get(keyOf(route))
    if (known?.kind === 'route' && known.nextHopId === nextHopId) return UNCHANGED
    const update = this.#onRoute(route, flags)
    return this.#interest(route) ? { ...update, dumpBecause: 'a route names its next hops by number' } : update
  }

  /**
   * With net.ipv4.nexthop_compat_mode=0 nothing else says that the routes by a nexthop object changed. It may be a
   * member of any group.
   */
  #onNextHop(id: number | undefined): Update {
    if (id === undefined || !this.#hasNextHops) return UNCHANGED
    for (const object of this.#objects.values()) {
      if (object.kind !== 'route' || object.nextHopId === undefined) continue
      if (object.nextHopId === id || object.nextHops !== undefined)
        return { ...UNCHANGED, dumpBecause: 'a nexthop object of a route changed' }
    }
    return UNCHANGED
  }

  /**
   * The flags say where the kernel put the route (fib_table_insert): instead of the first with its key (NLM_F_REPLACE),
   * behind all of them (NLM_F_APPEND), or before them.
   */
  #onRoute(route: Route | undefined, flags: number): Update {
    if (route === undefined || !isIpv4(route) || !this.#interest(route)) return this.#onObject(route)
    const key = keyOf(route)
    const first = this.#objects.get(key)
    if (first?.kind !== 'route' || isSameRoute(first, route)) return this.#onObject(route)
    // Also in a dump that was read after the change.
    const others = (this.#behind.get(key) ?? []).filter((other) => !isSameRoute(other, route))
    if ((flags & NLM_F.append) !== 0) {
      this.#behind.set(key, [...others, route])
      return UNCHANGED
    }
    if ((flags & (NLM_F.replace | NLM_F.exclusive)) === 0) this.#behind.set(key, [first, ...others])
    else this.#setBehind(key, others)
    return this.#onObject(route)
  }

  #onRouteGone(route: Route | undefined): Update {
    if (route === undefined || !isIpv4(route)) return this.#onGone(route)
    const key = keyOf(route)
    const first = this.#objects.get(key)
    const behind = this.#behind.get(key) ?? []
    if (first === undefined || isSameRoute(first, route)) {
      const update = this.#onGone(route)
      const [next, ...others] = behind
      this.#setBehind(key, others)
      return next === undefined ? update : this.#onObject(next)
    }
    const others = behind.filter((other) => !isSameRoute(other, route))
    this.#setBehind(key, others)
    return others.length < behind.length ? UNCHANGED : { ...UNCHANGED, dumpBecause: 'an unknown route was deleted' }
  }

  #setBehind(key: Key, routes: readonly Route[]): void {
    if (routes.length === 0) this.#behind.delete(key)
    else this.#behind.set(key, routes)
  }

  #onObject(object: KernelObject | undefined): Update {
    if (object === undefined) return UNCHANGED
    const key = this.put(object)
    if (key !== undefined) return { changed: [{ key, object: this.#objects.get(key) }] }
    // The key is still in use, but no longer for an object of interest: a route that another program replaced.
    return this.#onGone(object)
  }

  #onGone(object: KernelObject | undefined): Update {
    if (object === undefined) return UNCHANGED
    const key = keyOf(object)
    return this.drop(key) ? { changed: [{ key, object: undefined }] } : UNCHANGED
  }

  /** The few sysctls that the kernel notifies. Those of each new device, too, which are mostly of no interest. */
  #onSettings(message: Message): Update {
    const changed = settingsIn(message, this.nameOf).flatMap((setting) => {
      const key = this.put(setting)
      return key === undefined ? [] : [{ key, object: this.#objects.get(key) }]
    })
    return { changed, ...(endsForwarding(message) && { dumpBecause: 'this host no longer forwards packets' }) }
  }

  /**
   * With an address the kernel removes IPv4 routes without a notification: those with it as source, and with a device's
   * last address all routes of the device. IPv6 that is switched off on a device shows in its addresses only.
   */
  #onAddressGone(message: Message): Update {
    const address = decodeAddress(message, this.nameOf)
    const update = this.#onGone(address)
    const isOff = address && (`sysctl ${ipv6SwitchOf(address.device)}` as Key)
    if (address?.prefix.ip.family === 6 && isOff !== undefined && this.#desired(isOff) !== undefined)
      return { ...update, reread: [ipv6SwitchOf(address.device)] }
    if (address === undefined || address.prefix.ip.family !== 4 || !this.#hasObjects(address.device, ['route']))
      return update
    return { ...update, dumpBecause: `${address.device} lost an address, and with it perhaps routes` }
  }

  #hasObjects(device: string, kinds: readonly KernelObject['kind'][]): boolean {
    for (const key of this.#byDevice.get(device) ?? []) {
      const kind = this.#objects.get(key)?.kind
      if (kind !== undefined && kinds.includes(kind)) return true
    }
    return false
  }

  #onLink(message: Message): Update {
    const { index, af } = linkIdentity(message)
    const before = this.#links.get(index)
    if (af === AF_BRIDGE) return this.#onPort(message, before)
    if (message.type === RTM.deleteLink) return this.#onLinkGone(index, message)
    const link = decodeLink(message, this.nameOf)
    this.#links.set(index, link)
    if (before !== undefined && before.name !== link.name) {
      this.drop(keyOf(before))
      const update = this.#onObject(link)
      return {
        changed: [{ key: keyOf(before), object: undefined }, ...update.changed],
        dumpBecause: `${before.name} became ${link.name}`
      }
    }
    const update = before !== undefined && sameLink(before, link) ? UNCHANGED : this.#onObject(link)
    // A link that we are deleting goes down too; RTM_DELLINK follows.
    const wentDown =
      before?.up === true &&
      link.up === false &&
      link.group !== DOOMED_GROUP &&
      this.#hasObjects(link.name, ['route', 'proxy'])
    return wentDown
      ? {
          ...update,
          dumpBecause: `${link.name} went down: the kernel removed IPv4 routes and neighbour proxies without a notification`
        }
      : update
  }

  /**
   * Messages of family AF_BRIDGE describe a link as a bridge port: its flags and VLANs have no other notification.
   * Leaving the bridge is notified as AF_UNSPEC too.
   */
  #onPort(message: Message, before: Link | undefined): Update {
    if (before === undefined) return UNCHANGED
    const isPort = message.type === RTM.newLink
    const vlans = this.#onVlans(isPort ? decodeVlans(message, this.nameOf) : undefined, before)
    const link = { ...before, ...(isPort ? portFlags(message) : {}) }
    if (sameLink(before, link)) return vlans
    if (before.index !== undefined) this.#links.set(before.index, link)
    return { changed: [...this.#onObject(link).changed, ...vlans.changed] }
  }

  /**
   * A message without VLANs says of a port that it has none. Of the bridge itself it says nothing: each change of its
   * own VLANs has a second notification, without them (rtnl_bridge_notify).
   */
  #onVlans(vlans: PortVlans | undefined, { name, form }: Link): Update {
    if (vlans === undefined) return this.#onGone({ kind: 'vlans', device: name, untagged: [], tagged: [] })
    if (form?.type === 'bridge' && vlans.untagged.length + vlans.tagged.length === 0) return UNCHANGED
    const before = this.#objects.get(keyOf(vlans))
    return before !== undefined && isDeepStrictEqual(before, vlans) ? UNCHANGED : this.#onObject(vlans)
  }

  /** The device's objects are gone with it; the kernel notifies only some of them, before this message. */
  #onLinkGone(index: number, message: Message): Update {
    const link = this.#links.get(index)
    this.#links.delete(index)
    const gone = link?.name ?? linkName(message)
    if (gone === undefined) return UNCHANGED
    const keys = [...(this.#byDevice.get(gone) ?? [])]
    this.#byDevice.delete(gone)
    for (const key of keys) this.#objects.delete(key)
    const update = this.#onGone({ kind: 'link', name: gone })
    for (const [key, routes] of this.#behind)
      this.#setBehind(
        key,
        routes.filter(({ device }) => device !== gone)
      )
    const isBehind = keys.some((key) => this.#behind.has(key))
    const redirects = link?.form?.type === 'ifb' ? this.#redirectsTo(gone) : []
    return {
      changed: [...[...keys, ...redirects].map((key) => ({ key, object: undefined })), ...update.changed],
      ...(isBehind && { dumpBecause: `with ${gone} went routes that others were behind` })
    }
  }

  /** A redirect to a deleted device no longer works; the kernel has no notification for that. */
  #redirectsTo(device: string): readonly Key[] {
    const found = [...this.#objects].filter(
      ([, object]) =>
        object.kind === 'qdisc' && object.discipline.type === 'redirect' && object.discipline.to === device
    )
    for (const [key] of found) this.drop(key)
    return found.map(([key]) => key)
  }
}

const isIpv4 = ({ destination }: Route): boolean => destination.ip.family === 4

/** Whether two routes of one key are one: the kernel compares these, and what Weft does not set. */
const isSameRoute = (known: KernelObject, route: Route): boolean =>
  known.kind === 'route' &&
  known.type === route.type &&
  known.protocol === route.protocol &&
  known.device === route.device &&
  isDeepStrictEqual(known.gateway, route.gateway) &&
  isDeepStrictEqual(known.nextHops, route.nextHops)

/** Fields that a desired route leaves out and the kernel reports. */
const DEFAULTS = { scope: 0, onlink: false } as const
/** Kinds with thousands of objects. Unlike links they are read back with all their fields. */
const NUMEROUS: ReadonlySet<KernelObject['kind']> = new Set(['route', 'neighbour', 'fdb'])

function isEquivalent(desired: KernelObject, decoded: KernelObject): boolean {
  if (!NUMEROUS.has(decoded.kind) || !sameObject(desired, decoded)) return false
  return sameObject(decoded, desired.kind === 'route' ? { ...DEFAULTS, ...desired } : desired)
}

const FIELDS = [
  ...(['up', 'carrier', 'mtu', 'mac', 'master', 'alias', 'group', 'index'] as const),
  ...(['hairpin', 'isolated', 'promiscuous', 'allMulticast', 'queueLength', 'pointToPoint'] as const),
  'vlanFiltering' as const
]

/** Most link notifications change nothing here: a pod's start brings a dozen. */
const sameLink = (a: Link, b: Link): boolean =>
  FIELDS.every((field) => a[field] === b[field]) &&
  sameForm(a.form, b.form) &&
  isDeepStrictEqual(a.altNames, b.altNames)

const sameForm = (a: LinkForm | undefined, b: LinkForm | undefined): boolean =>
  a?.type === b?.type && (a?.type === 'veth' || a?.type === 'bridge' || isDeepStrictEqual(a, b))

const ipv6SwitchOf = (device: string): string => `net/ipv6/conf/${device}/disable_ipv6`
