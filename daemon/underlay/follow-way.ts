// Follows the way of packets for `weftctl why`: asks the kernel about each hop from one end to the other, and sends one
// traced packet. Nothing is asked before somebody asks weftctl.
import { contains, type Ip, sameIp } from '../../ipam/address.ts'
import { sentence } from '../health/conditions.ts'
import type { Health } from '../health/health.ts'
import type { Place } from '../node/place.ts'
import { leaseOwnerOf } from '../peers/peers.ts'
import type { Reconciler } from '../reconcile/reconciler.ts'
import type {
  CameBy,
  Echo,
  EchoOutcome,
  InsidePod,
  Inspection,
  LinkNow,
  RefusingRule,
  RouteNow
} from '../state/inspection.ts'
import { type FdbEntry, type KernelObject, type Neighbour, type Route, tunnelOf } from '../state/object.ts'
import { addressOf, judgeWay } from './judge-way.ts'
import type {
  From,
  Hop,
  LinkFact,
  LocalPod,
  NeighbourFact,
  PeerSaid,
  Probed,
  Refusal,
  To,
  WayFacts
} from './way-facts.ts'

export type WayDeps = {
  readonly inspection: Inspection
  readonly reconciler: Pick<Reconciler, 'wantedBy' | 'observed'>
  readonly place: () => Pick<Place, 'mtu' | 'backend' | 'node'> | undefined
  readonly health: Pick<Health, 'active'>
  /** What probes found on the ways to a lease's node; `undefined`: not asked. */
  readonly probes: (key: string) => readonly Probed[] | undefined
  /** What that node published. */
  readonly peerSaid: (key: string) => Promise<PeerSaid | undefined>
}

export type Way = { readonly from: From; readonly to: To }
export type FollowedWay = Way & { readonly hops: readonly Hop[]; readonly answeredUs?: number }

/** Conditions that say what firewalls do with pods' packets. */
const ABOUT_FIREWALLS = new Set<string>(['FORWARD_DROPPED', 'FIREWALL_TOO_LONG'])

/** All facts but what the packet found out, and that packet. */
type Asked = { readonly facts: Omit<WayFacts, 'echo'>; readonly echo: Echo }

/** The ways in their order, their packets sent together. Errors: those of the kernel's answers. */
export async function followWays(ways: readonly Way[], given: WayDeps): Promise<readonly FollowedWay[]> {
  const deps = { ...given, inspection: rememberingNamespaces(given.inspection) }
  const asked: Asked[] = []
  for (const way of ways) asked.push(await ask(way, deps))
  const outcomes = await deps.inspection.echo(asked.map(({ echo }) => echo))
  const followed: FollowedWay[] = []
  for (const [at, { facts }] of asked.entries()) {
    const echo: EchoOutcome = outcomes[at] ?? { unsent: 'no outcome', passed: [], dropped: [] }
    const { answeredUs } = echo
    const { from, to } = facts
    const hops = judgeWay({ ...facts, ...(await resolved(facts, deps.inspection)), echo })
    followed.push({ from, to, hops, ...(answeredUs !== undefined && { answeredUs }) })
  }
  return followed
}

/** Many ways begin at one pod, and its namespace may have to be looked for among those of all pods. */
function rememberingNamespaces(inspection: Inspection): Inspection {
  const found = new Map<string, Promise<string | undefined>>()
  return {
    ...inspection,
    namespaceOf(link, known) {
      const path = found.get(link.name) ?? inspection.namespaceOf(link, known)
      found.set(link.name, path)
      return path
    }
  }
}

/** The neighbours that the kernel resolves itself, which it did for the packet if it had not before. */
async function resolved(
  { neighbour, underlay }: Asked['facts'],
  inspection: Inspection
): Promise<Pick<WayFacts, 'neighbour' | 'underlay'>> {
  const again = async (fact: NeighbourFact | undefined) =>
    fact === undefined || fact.wanted !== undefined
      ? fact
      : { ...fact, now: await inspection.neighbour(fact.device, fact.ip) }
  const [near, far] = [await again(neighbour), await again(underlay?.neighbour)]
  return {
    ...(near && { neighbour: near }),
    ...(underlay && { underlay: { ...underlay, ...(far && { neighbour: far }) } })
  }
}

async function ask(way: Way, deps: WayDeps): Promise<Asked> {
  const { inspection } = deps
  const { from, to } = way
  const destination = addressOf(to)
  const sender = from.kind === 'pod' ? await podFacts(from.pod, destination, deps) : undefined
  const receiver = to.kind === 'pod' ? await podFacts(to.pod, destination, deps) : undefined
  const came: CameBy | undefined =
    from.kind === 'pod' && sender !== undefined ? { device: sender.cameBy, source: from.pod.address } : undefined
  const route = await inspection.route(destination, came)
  const isBridged = sender !== undefined && sender.links.length > 1 && lastOf(receiver) === lastOf(sender)
  const { tunnelPort, ...next } = await nextHop(to, route, deps)
  const namespace = sender?.namespace
  return {
    facts: {
      ...{ from, to, route, isBridged, podLinks: sender?.links ?? [], toLinks: receiver?.links ?? [] },
      ...next,
      forwarding: forwardingOf(came, inspection),
      ...(sender?.inside && { inside: sender.inside }),
      ...(receiver?.inside && { toInside: receiver.inside }),
      ...(came && { cameBy: came.device }),
      ...(route.kind === 'refused' && came && { refusal: await refusalOf(destination, came, inspection) }),
      ...(isBridged || to.kind === 'own' ? {} : await backFacts(came, next.out, destination, inspection)),
      ...(await hostFacts(to, destination, deps))
    },
    echo: {
      destination,
      bridged: [sender, receiver].some((pod) => (pod?.links.length ?? 0) > 1),
      ...(came && namespace !== undefined && { source: came.source, namespace }),
      ...(tunnelPort !== undefined && { tunnelPort })
    }
  }
}

const lastOf = (pod: PodFacts | undefined): string | undefined => pod?.links.at(-1)?.name

async function hostFacts(
  to: To,
  { family }: Ip,
  deps: WayDeps
): Promise<Pick<WayFacts, 'mtu' | 'legacy' | 'conditions' | 'probes' | 'peer'>> {
  const { inspection, place, health } = deps
  return {
    mtu: place()?.mtu ?? 0,
    legacy: await inspection.legacyTables(family),
    conditions: health.active().flatMap((each) => (ABOUT_FIREWALLS.has(each.code) ? [sentence(each)] : [])),
    ...(await said(to, deps))
  }
}

async function said(to: To, { probes, peerSaid }: WayDeps): Promise<Pick<WayFacts, 'probes' | 'peer'>> {
  if (to.kind !== 'remote') return {}
  const [found, peer] = [probes(to.remote.key), await peerSaid(to.remote.key)]
  return { ...(found && { probes: found }), ...(peer && { peer }) }
}

type PodFacts = {
  readonly links: readonly LinkFact[]
  readonly cameBy: string
  readonly namespace?: string
  readonly inside?: InsidePod
}

async function podFacts(pod: LocalPod, destination: Ip, { inspection, reconciler }: WayDeps): Promise<PodFacts> {
  const link = await inspection.link(pod.link)
  const links: LinkFact[] = [{ name: pod.link, now: link }]
  const master = link?.master ?? ''
  if (master !== '') links.push({ name: master, now: await inspection.link(master) })
  const namespace = link && (await inspection.namespaceOf(link, pod.sandbox))
  const inside = namespace === undefined ? undefined : await lookInside(namespace, pod, destination, inspection)
  const gateway = inside?.route.kind === 'found' ? inside.route.gateway : undefined
  const cameBy = master === '' ? pod.link : (holderOf(gateway, master, reconciler.observed.values()) ?? master)
  return { links, cameBy, ...(namespace !== undefined && { namespace }), ...(inside && { inside }) }
}

/** The bridge, or a VLAN of it, whichever has the address that is the pod's gateway. */
function holderOf(gateway: Ip | undefined, master: string, observed: Iterable<KernelObject>): string | undefined {
  if (gateway === undefined) return undefined
  for (const object of observed) {
    if (object.kind !== 'address' || !sameIp(object.prefix.ip, gateway)) continue
    if (object.device === master || object.device.startsWith(`${master}.`)) return object.device
  }
  return undefined
}

async function lookInside(
  namespace: string,
  { ifname }: LocalPod,
  destination: Ip,
  inspection: Inspection
): Promise<InsidePod | undefined> {
  try {
    return await inspection.insidePod(namespace, ifname, destination)
  } catch {
    // It was deleted meanwhile.
    return undefined
  }
}

function forwardingOf(came: CameBy | undefined, { sysctl }: Inspection): WayFacts['forwarding'] {
  if (came === undefined) return []
  const { device, source } = came
  const paths =
    source.family === 6
      ? ['net/ipv6/conf/all/forwarding']
      : ['net/ipv4/ip_forward', `net/ipv4/conf/${device}/forwarding`]
  return paths.map((path) => ({ path, value: sysctl(path) }))
}

async function refusalOf(destination: Ip, came: CameBy, inspection: Inspection): Promise<Refusal> {
  const { device, source } = came
  const rule = await refusingRule(destination, came, inspection)
  // IPv6 has no such filter; nftables does it there (fib).
  const filter = source.family === 6 ? [] : ['all', device].map((name) => `net/ipv4/conf/${name}/rp_filter`)
  return {
    ...{ device, source, ...(rule && { rule }) },
    own: await inspection.route(destination),
    reverse: await inspection.route(source),
    filter: filter.map((path) => ({ path, value: inspection.sysctl(path) }))
  }
}

/** The first rule that refuses all packets of this way; others may depend on what no look-up has (ports, marks). */
async function refusingRule(destination: Ip, came: CameBy, inspection: Inspection): Promise<RefusingRule | undefined> {
  const rules = await inspection.refusingRules(destination.family)
  return rules.find(
    ({ source, destination: to, iif, oif, marked }) =>
      !marked &&
      oif === undefined &&
      (to === undefined || contains(to, destination)) &&
      (source === undefined || contains(source, came.source)) &&
      (iif === undefined || iif === came.device)
  )
}

type Next = Pick<WayFacts, 'out' | 'neighbour' | 'entry' | 'underlay' | 'wantedRoute'> & {
  readonly tunnelPort?: number
}

/** The device by which the packet leaves, and what leads on from there. */
async function nextHop(to: To, route: RouteNow, deps: WayDeps): Promise<Next> {
  const { inspection, reconciler } = deps
  const wanted = to.kind === 'remote' ? reconciler.wantedBy(leaseOwnerOf(to.remote.key)) : []
  const wantedRoute = wanted.find(
    (object): object is Route => object.kind === 'route' && contains(object.destination, addressOf(to))
  )
  const expected = wantedRoute && { wantedRoute }
  if (route.kind === 'refused' || route.device === undefined) return { ...expected }
  const { device, gateway = addressOf(to) } = route
  const out: LinkFact = { name: device, now: await inspection.link(device) }
  if (out.now !== undefined && tunnelOf(out.now) !== undefined)
    return { ...expected, out, ...(await tunnel(wanted, out, gateway, deps)) }
  if (out.now?.pointToPoint || to.kind === 'own' || to.kind === 'pod') return { ...expected, out }
  return { ...expected, out, neighbour: { device, ip: gateway, now: await inspection.neighbour(device, gateway) } }
}

async function tunnel(
  wanted: readonly KernelObject[],
  { name: device, now }: LinkFact,
  gateway: Ip,
  deps: WayDeps
): Promise<Omit<Next, 'out'>> {
  const { inspection } = deps
  const neighbour = wanted.find(
    (object): object is Neighbour =>
      object.kind === 'neighbour' && object.device === device && sameIp(object.ip, gateway)
  )
  const entry = wanted.find(
    (object): object is FdbEntry => object.kind === 'fdb' && object.device === device && object.mac === neighbour?.mac
  )
  const found = await inspection.neighbour(device, gateway)
  const form = now && tunnelOf(now)
  return {
    neighbour: { device, ip: gateway, now: found, ...(neighbour && { wanted: neighbour }) },
    ...(entry && { entry: { wanted: entry, now: await inspection.forwarding(device, entry.mac) } }),
    ...(entry && form && { underlay: await underlayOf(entry.destination, form, deps) }),
    ...(form && { tunnelPort: form.port })
  }
}

async function underlayOf(
  publicIp: Ip,
  { port, parent }: NonNullable<ReturnType<typeof tunnelOf>>,
  { inspection, place }: WayDeps
): Promise<NonNullable<WayFacts['underlay']>> {
  const route = await inspection.route(publicIp)
  const here = place()
  const overhead = here === undefined ? 0 : here.backend.underlayMtu(here.node) - here.mtu
  const base = { publicIp, port, overhead, route }
  if (route.kind === 'refused' || route.device === undefined)
    return { ...base, link: { name: parent, now: await inspection.link(parent) } }
  const { device, gateway: ip = publicIp } = route
  const now: LinkNow | undefined = await inspection.link(device)
  const link: LinkFact = { name: device, now }
  if (now?.pointToPoint || device === 'lo') return { ...base, link }
  return { ...base, link, neighbour: { device, ip, now: await inspection.neighbour(device, ip) } }
}

/** Where an answer of the destination would be sent that comes by the device by which the request leaves. */
async function backFacts(
  came: CameBy | undefined,
  out: LinkFact | undefined,
  destination: Ip,
  inspection: Inspection
): Promise<Pick<WayFacts, 'back' | 'backRefusal'>> {
  if (came === undefined || out?.now === undefined || out.now.up === false) return {}
  const from: CameBy = { device: out.name, source: destination }
  const back = await inspection.route(came.source, from)
  return { back, ...(back.kind === 'refused' && { backRefusal: await refusalOf(came.source, from, inspection) }) }
}
