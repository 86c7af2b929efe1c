// What one observer was told: the accepted objects, by key and by the device they hang on, and all links by index for the names in messages. No I/O.
import { isDeepStrictEqual } from 'node:util'
import type { KernelObject, Key, Link, LinkForm } from '../state/object.ts'
import { deviceOf, keyOf, sameObject } from '../state/object.ts'
import { DOOMED_GROUP } from '../state/ownership.ts'
import {
  decodeAddress,
  decodeLink,
  decodeNeighbour,
  decodeRoute,
  linkIdentity,
  linkName,
  type NameOf,
  portFlags
} from './netlink/decode.ts'
import { Attributes, type Message } from './netlink/message.ts'
import { decodeTraffic } from './netlink/qdisc.ts'
import { AF_BRIDGE, ALL_DEVICES, NETCONFA, RTM } from './netlink/uapi.ts'

/** What a notification comes to. */
export type News = {
  readonly changed: readonly { readonly key: Key; readonly object: KernelObject | undefined }[]
  /** Set when objects may have gone of which the kernel says nothing; only a dump tells. */
  readonly dumpBecause?: string
}

const NOTHING: News = { changed: [] }

export class Cache {
  readonly #interest: (object: KernelObject) => boolean
  readonly #held: (key: Key) => KernelObject | undefined
  readonly #links = new Map<number, Link>()
  readonly #objects = new Map<Key, KernelObject>()
  readonly #byDevice = new Map<string, Set<Key>>()
  readonly nameOf: NameOf = (index) => this.#links.get(index)?.name

  constructor(
    interest: (object: KernelObject) => boolean,
    held: (key: Key) => KernelObject | undefined = () => undefined
  ) {
    this.#interest = interest
    this.#held = held
  }

  /** A copy: what the consumer gets may not change under it. */
  state(): Map<Key, KernelObject> {
    return new Map(this.#objects)
  }

  /** Starts anew with the links of a dump; `put` the other objects afterwards. */
  restart(links: ReadonlyMap<number, Link>): void {
    this.#links.clear()
    this.#objects.clear()
    this.#byDevice.clear()
    for (const [index, link] of links) {
      this.#links.set(index, link)
      this.put(link)
    }
  }

  /** Keeps an object if it is of interest, or what says the same and is held already. */
  put(decoded: KernelObject): Key | undefined {
    if (!this.#interest(decoded)) return undefined
    const key = keyOf(decoded)
    const held = this.#held(key)
    const object = held !== undefined && saysTheSame(held, decoded) ? held : decoded
    // A route may come back under its key on another device.
    this.drop(key)
    this.#objects.set(key, object)
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

  /** What a message of rtnetlink's groups changes. Errors: MalformedMessage. */
  hear(message: Message): News {
    switch (message.type) {
      case RTM.newLink:
      case RTM.deleteLink:
        return this.#hearLink(message)
      case RTM.newAddress:
        return this.#appeared(decodeAddress(message, this.nameOf))
      case RTM.deleteAddress:
        return this.#hearAddressGone(message)
      case RTM.newRoute:
        return this.#appeared(decodeRoute(message, this.nameOf))
      case RTM.deleteRoute:
        return this.#went(decodeRoute(message, this.nameOf))
      case RTM.newNeighbour:
      case RTM.deleteNeighbour: {
        const entry = decodeNeighbour(message, this.nameOf)
        if (entry === undefined) return NOTHING
        // A permanent entry that became another kind counts as gone.
        return message.type === RTM.newNeighbour && entry.permanent
          ? this.#appeared(entry.object)
          : this.#went(entry.object)
      }
      case RTM.newQdisc:
      case RTM.newFilter:
        return this.#appeared(decodeTraffic(message, this.nameOf))
      case RTM.deleteQdisc:
      case RTM.deleteFilter:
        return this.#went(decodeTraffic(message, this.nameOf))
      case RTM.newNetconf:
        return endsForwarding(message) ? { changed: [], dumpBecause: 'this host no longer forwards packets' } : NOTHING
      default:
        return NOTHING
    }
  }

  #appeared(object: KernelObject | undefined): News {
    if (object === undefined) return NOTHING
    const key = this.put(object)
    if (key !== undefined) return { changed: [{ key, object: this.#objects.get(key) }] }
    // It was of interest and became something else under the same key, as a route that another program replaced.
    return this.#went(object)
  }

  #went(object: KernelObject | undefined): News {
    if (object === undefined) return NOTHING
    const key = keyOf(object)
    return this.drop(key) ? { changed: [{ key, object: undefined }] } : NOTHING
  }

  /** With an address the kernel drops IPv4 routes without a word: those with it as source, and with a device's last address all of the device. */
  #hearAddressGone(message: Message): News {
    const address = decodeAddress(message, this.nameOf)
    const news = this.#went(address)
    if (address === undefined || address.prefix.ip.family !== 4 || !this.#carries(address.device, ['route']))
      return news
    return { ...news, dumpBecause: `${address.device} lost an address, and with it perhaps routes` }
  }

  #carries(device: string, kinds: readonly KernelObject['kind'][]): boolean {
    for (const key of this.#byDevice.get(device) ?? []) {
      const kind = this.#objects.get(key)?.kind
      if (kind !== undefined && kinds.includes(kind)) return true
    }
    return false
  }

  #hearLink(message: Message): News {
    const { index, af } = linkIdentity(message)
    const before = this.#links.get(index)
    if (af === AF_BRIDGE) return this.#hearPort(message, before)
    if (message.type === RTM.deleteLink) return this.#hearLinkGone(index, message)
    const link = decodeLink(message, this.nameOf)
    this.#links.set(index, link)
    if (before !== undefined && before.name !== link.name) {
      this.drop(keyOf(before))
      const news = this.#appeared(link)
      return {
        changed: [{ key: keyOf(before), object: undefined }, ...news.changed],
        dumpBecause: `${before.name} became ${link.name}`
      }
    }
    const news = before !== undefined && sameLink(before, link) ? NOTHING : this.#appeared(link)
    // A link that we are deleting goes down too; the message that it is gone follows and says all.
    const wentDown =
      before?.up === true &&
      link.up === false &&
      link.group !== DOOMED_GROUP &&
      this.#carries(link.name, ['route', 'proxy'])
    return wentDown
      ? { ...news, dumpBecause: `${link.name} went down, and with it IPv4 routes and neighbour proxies without a word` }
      : news
  }

  /** Family AF_BRIDGE tells about a link as a port: its flags change without any other notification. That it left the bridge comes as family AF_UNSPEC too. */
  #hearPort(message: Message, before: Link | undefined): News {
    const flags = message.type === RTM.newLink ? portFlags(message) : {}
    const link = before && { ...before, ...flags }
    if (before === undefined || link === undefined || sameLink(before, link)) return NOTHING
    if (before.index !== undefined) this.#links.set(before.index, link)
    return this.#appeared(link)
  }

  /** All that hung on the device went with it; the kernel says so for a part of it only, and before this message. */
  #hearLinkGone(index: number, message: Message): News {
    const link = this.#links.get(index)
    this.#links.delete(index)
    const gone = link?.name ?? linkName(message)
    if (gone === undefined) return NOTHING
    const keys = [...(this.#byDevice.get(gone) ?? [])]
    this.#byDevice.delete(gone)
    for (const key of keys) this.#objects.delete(key)
    const news = this.#went({ kind: 'link', name: gone })
    const redirects = link?.form?.type === 'ifb' ? this.#redirectsTo(gone) : []
    return { changed: [...[...keys, ...redirects].map((key) => ({ key, object: undefined })), ...news.changed] }
  }

  /** What is redirected to a device that has gone goes nowhere, and the kernel does not say so. */
  #redirectsTo(device: string): readonly Key[] {
    const found = [...this.#objects].filter(
      ([, object]) =>
        object.kind === 'qdisc' && object.discipline.type === 'redirect' && object.discipline.to === device
    )
    for (const [key] of found) this.drop(key)
    return found.map(([key]) => key)
  }
}

/** What a wanted route leaves out and the kernel tells. */
const SILENT = { scope: 0, onlink: false } as const
/** Kinds of which there are thousands. They are read back whole, which a link is not. */
const PLENTIFUL: ReadonlySet<KernelObject['kind']> = new Set(['route', 'neighbour', 'fdb'])

function saysTheSame(held: KernelObject, decoded: KernelObject): boolean {
  if (!PLENTIFUL.has(decoded.kind) || !sameObject(held, decoded)) return false
  return sameObject(decoded, held.kind === 'route' ? { ...SILENT, ...held } : held)
}

const FIELDS = [
  ...(['up', 'carrier', 'mtu', 'mac', 'master', 'alias', 'group', 'index'] as const),
  ...(['hairpin', 'isolated', 'promiscuous', 'allMulticast', 'queueLength'] as const)
]

/** Links speak often and say little: a pod's start brings a dozen notifications. */
const sameLink = (a: Link, b: Link): boolean =>
  FIELDS.every((field) => a[field] === b[field]) && sameForm(a.form, b.form)

const sameForm = (a: LinkForm | undefined, b: LinkForm | undefined): boolean =>
  a?.type === b?.type && (a?.type === 'veth' || a?.type === 'bridge' || isDeepStrictEqual(a, b))

/** Of sysctls the kernel tells few, and those of each new device too; the one whose loss cuts pods off is worth a dump. */
function endsForwarding({ body }: Message): boolean {
  const told = new Attributes(body, 4)
  return told.u32(NETCONFA.ifindex) === ALL_DEVICES && told.u32(NETCONFA.forwarding) === 0
}
