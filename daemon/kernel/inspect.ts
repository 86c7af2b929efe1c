// Implements state/inspection.ts: answers the questions of `weftctl why` from the kernel, through sockets that are open
// for one question only.
import { closeSync, readdirSync } from 'node:fs'
import { setImmediate as turn } from 'node:timers/promises'
import type { Family, Ip } from '../../ipam/address.ts'
import type {
  CameBy,
  InsidePod,
  Inspection,
  LinkNow,
  NeighbourNow,
  RefusingRule,
  RouteNow,
  Unanswered
} from '../state/inspection.ts'
import type { Route } from '../state/object.ts'
import { dumpSandbox } from './dump.ts'
import { sendEchoes } from './echo.ts'
import { inside, openNamespace } from './namespace.ts'
import { decodeRoute } from './netlink/decode.ts'
import { findRoute } from './netlink/encode.ts'
import { KernelError } from './netlink/error.ts'
import {
  decodeForwarding,
  decodeLinkNow,
  decodeNamespaceId,
  decodeNeighbourNow,
  decodeRefusingRule,
  getForwarding,
  getLink,
  getNamespaceId,
  getNeighbour,
  getRules
} from './netlink/inspect.ts'
import { Lane } from './netlink/lane.ts'
import type { Message } from './netlink/message.ts'
import { RequestSocket } from './netlink/request-socket.ts'
import { legacyTablesWithRules } from './nftables/legacy-in-use.ts'
import { removeTraces, Tracer } from './nftables/trace.ts'
import { readSysctl } from './sysctl.ts'

/** Where runtimes keep the namespaces of pods: iproute2, containerd and cri-o; Docker. */
const NAMESPACES = ['/run/netns', '/var/run/netns', '/run/docker/netns', '/var/run/docker/netns'] as const
/** Files of them that are tried. */
const MOST_NAMESPACES = 2_000
/** Of them in one turn of the event loop: some twenty microseconds each. */
const TOGETHER = 50
/** The kernel has no such object. */
const MISSING = new Set(['ENOENT', 'ENODEV', 'ESRCH', 'ENXIO'])

/**
 * In the namespace of this process, until the signal; disposing waits for the trace that runs. Removes what a weftd that
 * was killed left of a trace.
 */
export async function openInspection(signal: AbortSignal): Promise<Inspection & AsyncDisposable> {
  await removeTraces()
  const tracer = new Tracer(sendEchoes, signal)
  return {
    [Symbol.asyncDispose]: () => tracer[Symbol.asyncDispose](),
    link: (name) => asking((socket) => linkNow(socket, name)),
    route: (destination, from) => asking((socket) => routeNow(socket, destination, from)),
    refusingRules: (family) => asking((socket) => refusingRules(socket, family)),
    neighbour: (device, ip) => asking((socket) => neighbourNow(socket, device, ip)),
    forwarding: (device, mac) => asking((socket) => forwardingNow(socket, device, mac)),
    sysctl: (path) => readSysctl(path)?.value,
    legacyTables: legacyTablesWithRules,
    namespaceOf: (link, known) => asking((socket) => namespaceOf(socket, link, known)),
    insidePod,
    echo: (echoes) => tracer.follow(echoes)
  }
}

async function asking<T>(work: (socket: RequestSocket) => Promise<T>): Promise<T> {
  using socket = new RequestSocket(new Lane())
  return await work(socket)
}

/** One answer. `undefined`: the object is not there; `unknown`: this kernel has no such question. */
async function one<T>(ask: Promise<Message>, decode: (message: Message) => T): Promise<T | Unanswered | undefined> {
  try {
    return decode(await ask)
  } catch (error) {
    if (!(error instanceof KernelError)) throw error
    return MISSING.has(error.errnoName) ? undefined : 'unknown'
  }
}

async function linkNow(socket: RequestSocket, name: string): Promise<LinkNow | undefined> {
  const found = await one(socket.ask(getLink(name), `link ${name}`), (message) =>
    decodeLinkNow(message, (index) => socket.nameOf(index))
  )
  return found === 'unknown' ? undefined : found
}

async function routeNow(socket: RequestSocket, destination: Ip, from?: CameBy): Promise<RouteNow> {
  const index = from && socket.indexOf(from.device)
  if (from !== undefined && index === undefined) return { kind: 'refused', errno: 'ENODEV' }
  const came = from && index !== undefined ? { index, source: from.source } : undefined
  const [entry, used] = await socket.askAll(
    [findRoute(destination, came), findRoute(destination, came, false)],
    'the route of a packet'
  )
  if (entry === undefined || entry instanceof KernelError)
    return { kind: 'refused', errno: entry?.errnoName ?? 'ENOBUFS' }
  const decode = (message: Message): Route | undefined => decodeRoute(message, (at) => socket.nameOf(at), true)
  const route = decode(entry)
  if (route === undefined) return { kind: 'refused', errno: 'ENETUNREACH' }
  if (route.type === 'blackhole' || route.type === 'unreachable' || route.type === 'prohibit')
    return { kind: 'refused', errno: 'EHOSTUNREACH' }
  const taken = used === undefined || used instanceof KernelError ? route : (decode(used) ?? route)
  return {
    ...{ kind: 'found', entry: route },
    ...(taken.device !== undefined && { device: taken.device }),
    ...(taken.gateway !== undefined && { gateway: taken.gateway }),
    ...(taken.mtu !== undefined && { mtu: taken.mtu })
  }
}

const refusingRules = (socket: RequestSocket, family: Family): Promise<readonly RefusingRule[]> =>
  socket.collect(() => getRules(family), `the IPv${family} rules`, decodeRefusingRule)

async function neighbourNow(
  socket: RequestSocket,
  device: string,
  ip: Ip
): Promise<NeighbourNow | Unanswered | undefined> {
  const index = socket.indexOf(device)
  if (index === undefined) return undefined
  return one(socket.ask(getNeighbour(index, ip), 'a neighbour'), decodeNeighbourNow)
}

async function forwardingNow(socket: RequestSocket, device: string, mac: string): Promise<Ip | Unanswered | undefined> {
  const index = socket.indexOf(device)
  if (index === undefined) return undefined
  return one(socket.ask(getForwarding(index, mac), 'a forwarding entry'), decodeForwarding)
}

/** The path that the runtime named, as long as it is this namespace; otherwise a file of a runtime's directories. */
async function namespaceOf(
  socket: RequestSocket,
  { netnsId }: LinkNow,
  known: string | undefined
): Promise<string | undefined> {
  if (netnsId === undefined) return undefined
  if (known !== undefined && (await isNamespace(socket, known, netnsId))) return known
  let tried = 0
  for (const directory of NAMESPACES) {
    for (const file of filesIn(directory)) {
      if (++tried > MOST_NAMESPACES) return undefined
      if (tried % TOGETHER === 0) await turn()
      if (await isNamespace(socket, `${directory}/${file}`, netnsId)) return `${directory}/${file}`
    }
  }
  return undefined
}

function filesIn(directory: string): readonly string[] {
  try {
    return readdirSync(directory)
  } catch {
    return []
  }
}

async function isNamespace(socket: RequestSocket, path: string, netnsId: number): Promise<boolean> {
  let file: number
  try {
    file = openNamespace(path)
  } catch {
    return false
  }
  try {
    return (await one(socket.ask(getNamespaceId(file), 'a namespace'), decodeNamespaceId)) === netnsId
  } finally {
    closeSync(file)
  }
}

async function insidePod(namespace: string, device: string, destination: Ip): Promise<InsidePod> {
  const file = openNamespace(namespace)
  try {
    using socket = inside(file, () => new RequestSocket(new Lane()))
    const objects = await dumpSandbox(socket)
    const link = objects.find((object) => object.kind === 'link' && object.name === device)
    const addresses = objects.flatMap((object) =>
      object.kind === 'address' && object.device === device ? [object.prefix.ip] : []
    )
    return {
      ...(link?.kind === 'link' && { link }),
      addresses,
      route: await routeNow(socket, destination)
    }
  } finally {
    closeSync(file)
  }
}
