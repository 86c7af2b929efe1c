// Dumps a network namespace: links first, since all other messages name devices by index.
import { FAMILIES } from '../../ipam/address.ts'
import type { KernelObject, Link, Route } from '../state/object.ts'
import {
  decodeAddress,
  decodeLink,
  decodeNeighbour,
  decodeRoute,
  linkIdentity,
  linkName,
  type NameOf
} from './netlink/decode.ts'
import { type Message, MessageWriter, NLM_F } from './netlink/message.ts'
import { withNextHops } from './netlink/next-hops.ts'
import { dumpQdiscs } from './netlink/qdisc.ts'
import type { RequestSocket } from './netlink/request-socket.ts'
import { AF_BRIDGE, AF_UNSPEC, afOf, IFLA, NTF_PROXY, NUD_PERMANENT, RTM, SKIP_STATS } from './netlink/uapi.ts'
import { decodeVlans, getVlans } from './netlink/vlans.ts'

const getLinks = () =>
  new MessageWriter(RTM.getLink, NLM_F.request)
    .fixed([4, AF_UNSPEC], [4, 0], [4, 0], [4, 0])
    .u32(IFLA.extMask, SKIP_STATS)
    .done()
const getAddresses = () => new MessageWriter(RTM.getAddress, NLM_F.request).fixed([4, AF_UNSPEC], [4, 0]).done()
const getRoutes = (af: number) => new MessageWriter(RTM.getRoute, NLM_F.request).fixed([4, af], [4, 0], [4, 0]).done()
const getNeighbours = (af: number) =>
  new MessageWriter(RTM.getNeighbour, NLM_F.request).fixed([4, af], [4, 0], [4, 0]).done()
const getProxies = () =>
  new MessageWriter(RTM.getNeighbour, NLM_F.request)
    .fixed([4, AF_UNSPEC], [4, 0], [2, 0], [1, NTF_PROXY], [1, 0])
    .done()

/** Every link by its index. Errors: KernelError. */
export async function dumpLinks(socket: RequestSocket): Promise<Map<number, Link>> {
  const messages = await socket.collect(getLinks, 'the links', (message) => message)
  // Masters and parents may come after those that name them.
  const names = new Map<number, string>()
  for (const message of messages) {
    const { index } = linkIdentity(message)
    const name = linkName(message)
    if (name !== undefined) names.set(index, name)
  }
  return new Map(
    messages.map((message) => [linkIdentity(message).index, decodeLink(message, (index) => names.get(index))])
  )
}

const dumpAddresses = (socket: RequestSocket, nameOf: NameOf) =>
  socket.collect(getAddresses, 'the addresses', (message) => decodeAddress(message, nameOf))

/** Routes of every table, one family after the other. */
async function dumpRoutes(socket: RequestSocket, nameOf: NameOf): Promise<readonly KernelObject[]> {
  const routes: Route[] = []
  for (const family of FAMILIES) {
    routes.push(
      ...(await socket.collect(
        () => getRoutes(afOf(family)),
        `the IPv${family} routes`,
        (message) => decodeRoute(message, nameOf)
      ))
    )
  }
  return withNextHops(routes, socket, nameOf)
}

function permanent(message: Message, nameOf: NameOf): KernelObject | undefined {
  // Checked before decoding: a busy host has thousands of learned neighbours.
  if (message.body.length >= 12 && (message.body.readUInt16LE(8) & NUD_PERMANENT) === 0) return undefined
  return decodeNeighbour(message, nameOf)?.object
}

const dumpNeighbours = (socket: RequestSocket, af: number, what: string, nameOf: NameOf) =>
  socket.collect(
    () => getNeighbours(af),
    what,
    (message) => permanent(message, nameOf)
  )

const dumpProxies = (socket: RequestSocket, nameOf: NameOf) =>
  socket.collect(getProxies, 'the neighbour proxies', (message) => decodeNeighbour(message, nameOf)?.object)

/** Links, addresses and routes, which is all that a pod has. */
export async function dumpSandbox(socket: RequestSocket): Promise<readonly KernelObject[]> {
  const links = await dumpLinks(socket)
  const nameOf: NameOf = (index) => links.get(index)?.name
  return [...links.values(), ...(await dumpAddresses(socket, nameOf)), ...(await dumpRoutes(socket, nameOf))]
}

/** All but the links, which the caller has dumped already. */
export async function dumpObjects(socket: RequestSocket, nameOf: NameOf): Promise<readonly KernelObject[]> {
  return [
    ...(await dumpAddresses(socket, nameOf)),
    ...(await dumpRoutes(socket, nameOf)),
    ...(await dumpNeighbours(socket, AF_UNSPEC, 'the neighbours', nameOf)),
    ...(await dumpProxies(socket, nameOf)),
    ...(await dumpNeighbours(socket, AF_BRIDGE, 'the forwarding entries', nameOf)),
    ...(await socket.collect(getVlans, 'the VLANs of bridge ports', (message) => decodeVlans(message, nameOf))),
    ...(await dumpQdiscs(socket, nameOf))
  ]
}
