// Reads nexthop objects (`ip nexthop`): with net.ipv4.nexthop_compat_mode=0, as routing daemons set it, the kernel
// describes a route by the number of its nexthop object alone.
import { ipFromBytes } from '../../../ipam/address.ts'
import type { NextHop, Route } from '../../state/object.ts'
import type { NameOf } from './decode.ts'
import { Attributes, type Message, MessageWriter, NLM_F } from './message.ts'
import type { RequestSocket } from './request-socket.ts'
import { NHA, RTM } from './uapi.ts'

/** Octets of struct nhmsg, and of struct nexthop_grp: number, weight, reserved. */
const FIXED = 8
const MEMBER = 8

/** One next hop, or the numbers of a group's members. */
type Entry = { readonly id: number; readonly hop?: NextHop; readonly members?: readonly number[] }

const isUnresolved = ({ nextHopId, device, nextHops }: Route): boolean =>
  nextHopId !== undefined && device === undefined && nextHops === undefined

/** The routes with the next hops that they name by number; asks the kernel only if there are such routes. */
export async function withNextHops(
  routes: readonly Route[],
  socket: RequestSocket,
  nameOf: NameOf
): Promise<readonly Route[]> {
  if (!routes.some(isUnresolved)) return routes
  const found = await socket.collect(
    () => new MessageWriter(RTM.getNextHop, NLM_F.request).fixed([4, 0], [4, 0]).done(),
    'the nexthop objects',
    (message) => decodeNextHop(message, nameOf)
  )
  const entries = new Map(found.map((entry) => [entry.id, entry]))
  return routes.map((route) => (isUnresolved(route) ? resolved(route, entries) : route))
}

function resolved(route: Route, entries: ReadonlyMap<number, Entry>): Route {
  const entry = entries.get(route.nextHopId ?? 0)
  if (entry?.members === undefined) return { ...route, ...entry?.hop }
  return { ...route, nextHops: entry.members.map((id) => entries.get(id)?.hop ?? {}) }
}

/** Errors: MalformedMessage. */
export function decodeNextHop({ body }: Message, nameOf: NameOf): Entry | undefined {
  const attributes = new Attributes(body, FIXED)
  const id = attributes.u32(NHA.id)
  if (id === undefined) return undefined
  const group = attributes.bytes(NHA.group)
  if (group !== undefined) {
    const members = Array.from({ length: Math.floor(group.length / MEMBER) }, (_, at) =>
      group.readUInt32LE(at * MEMBER)
    )
    return { id, members }
  }
  const device = nameOf(attributes.u32(NHA.oif) ?? 0)
  const bytes = attributes.bytes(NHA.gateway)
  const gateway = bytes && ipFromBytes(bytes)
  return { id, hop: { ...(device !== undefined && { device }), ...(gateway !== undefined && { gateway }) } }
}
