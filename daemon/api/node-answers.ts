// Answers about nodes for weftctl: their leases, and how each is reached.
import { contains, formatIp, formatPrefix, type Ip, type PerFamily, parseIp, perFamily } from '../../ipam/address.ts'
import { sentence } from '../health/conditions.ts'
import { type Lease, typeOf } from '../lease/lease.ts'
import type { Place } from '../node/place.ts'
import { leaseOwnerOf } from '../peers/peers.ts'
import type { KernelObject, Key, State } from '../state/object.ts'
import type { WayView } from '../underlay/probe-views.ts'
import type { LeaseAnswer, ReachAnswer, WhyNodeAnswer } from './answers.ts'
import { probeAnswer } from './peer-answers.ts'
import { nearTo, objectAnswer, type QueryContext, stateIn } from './query-context.ts'

/** The own lease first, then by subnet; last those that can't be read. */
export function leases(context: QueryContext): readonly LeaseAnswer[] {
  const { peers } = context
  // Each by itself would be looked up by its key, thousands of them.
  const ways = new Map(context.probes.views.all().map((view) => [view.key, view.ways]))
  const understood = [...peers.leases].map(([key, lease]) => leaseAnswer(context, key, lease, ways.get(key)))
  const unreadable = [...peers.skipped]
    .filter(([key]) => !peers.leases.has(key))
    .map(([key, reason]) => unreadableAnswer(key, reason))
  const rank = (lease: Lease) => perFamily(lease.subnet)[0]?.[1].ip.value ?? 0n
  const ranks = new Map([...peers.leases].map(([key, lease]) => [key, peers.isOwn(key) ? -1n : rank(lease)]))
  const order = ({ key: a }: LeaseAnswer, { key: b }: LeaseAnswer) => {
    const [left = 0n, right = 0n] = [ranks.get(a), ranks.get(b)]
    return left < right ? -1 : left > right ? 1 : 0
  }
  return [...understood.sort(order), ...unreadable]
}

const texts = <T>(values: PerFamily<T>, format: (value: T) => string): readonly string[] =>
  perFamily(values).map(([, value]) => format(value))

function leaseAnswer(
  context: QueryContext,
  key: string,
  lease: Lease,
  ways: readonly WayView[] | undefined
): LeaseAnswer {
  const { peers, nodeName, reconciler } = context
  const [isOwn, since, skipped] = [peers.isOwn(key), peers.since(key), peers.skipped.get(key)]
  const shadowed = context.shadowed(key)
  const wanted = wantedFor(context, key)
  return {
    key,
    node: lease.node ?? (isOwn ? nodeName : ''),
    isOwn,
    subnet: texts(lease.subnet, formatPrefix),
    publicIp: texts(lease.publicIp, formatIp),
    backend: typeOf(lease),
    reach: isOwn ? [] : wanted.flatMap((object) => reachBy(object, reconciler.observed, context.place())),
    inKernel:
      (isOwn || wanted.length > 0) && wanted.every((object) => stateIn(reconciler.observed, object) === 'there'),
    ...(shadowed !== undefined && { shadowed }),
    ...(ways !== undefined && { ways: ways.map(probeAnswer) }),
    ...(since !== undefined && { since: new Date(since).toISOString() }),
    ...(skipped === undefined ? notUsed(context, lease, isOwn) : { skipped })
  }
}

/** Why a valid lease is not used. */
function notUsed({ place }: QueryContext, lease: Lease, isOwn: boolean): { readonly skipped?: string } {
  const ownType = place()?.backend.type
  if (ownType === undefined) return { skipped: 'this node has no subnet yet' }
  if (typeOf(lease) === ownType || isOwn) return {}
  return {
    skipped:
      lease.backendType === ''
        ? 'it is reserved for a node that has not joined yet'
        : `its backend is ${lease.backendType}, and this network's is ${ownType}`
  }
}

const unreadableAnswer = (key: string, skipped: string): LeaseAnswer => ({
  ...{ key, node: '', isOwn: false, subnet: [], publicIp: [], backend: '', reach: [], inKernel: false, skipped }
})

/** Without the elements that keep pods from a node's tunnel port: they lead nowhere. */
const wantedFor = ({ reconciler, peers }: QueryContext, key: string): readonly KernelObject[] =>
  reconciler.wantedBy(peers.isOwn(key) ? 'node' : leaseOwnerOf(key)).filter(({ kind }) => kind !== 'nft-element')

function reachBy(object: KernelObject, observed: State, place: Place | undefined): readonly ReachAnswer[] {
  if (object.kind !== 'route' || object.device === undefined) return []
  const { device } = object
  if (device === place?.node.device) return [{ how: 'direct', device }]
  const link = observed.get(`link ${device}` as Key)
  const form = link?.kind === 'link' ? link.form?.type : undefined
  // An ipip device may put more in front than IP.
  const isKnown = form !== undefined && form !== 'other' && form !== 'vlan' && form !== 'ipip'
  return [{ how: isKnown ? form : (place?.backend.type ?? 'tunnel'), device }]
}

/** `name` is a node's name, one of its public addresses, its subnet, the lease's key, or an address in the subnet. */
export function whyNode(context: QueryContext, name: string): WhyNodeAnswer {
  const { reconciler, health } = context
  const all = leases(context)
  const found = all.filter((each) => isOfLease(context, each, name))
  const objects = (key: string) => wantedFor(context, key).map((object) => objectAnswer(reconciler.observed, object))
  return {
    name,
    leases: found.map((each) => ({ ...each, objects: objects(each.key) })),
    conditions: health.active().map(sentence),
    near: found.length > 0 ? [] : nearTo(name, all.flatMap(namesOf))
  }
}

/** Whether a name, public address, subnet, key or address in the subnet is this lease's. */
export const isOfLease = ({ peers }: QueryContext, lease: LeaseAnswer, name: string): boolean =>
  namesOf(lease).includes(name) || isIn(peers.leases.get(lease.key), parseIp(name))

const namesOf = ({ key, node, subnet, publicIp }: LeaseAnswer): readonly string[] => [
  ...(node === '' ? [] : [node]),
  ...publicIp,
  ...subnet,
  key
]

const isIn = (lease: Lease | undefined, ip: Ip | undefined): boolean =>
  lease !== undefined && ip !== undefined && perFamily(lease.subnet).some(([, subnet]) => contains(subnet, ip))
