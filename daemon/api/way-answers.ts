// Answers about the way of packets: finds the ends that the user names, has the way followed, and turns it into JSON.
import {
  contains,
  type Family,
  formatIp,
  formatPrefix,
  type Ip,
  network,
  offset,
  type Prefix,
  parseIp,
  perFamily,
  sameIp
} from '../../ipam/address.ts'
import { WeftError } from '../base/error.ts'
import { networksOf } from '../node/place.ts'
import type { Known } from '../pod/attachments.ts'
import type { FollowedWay, Way } from '../underlay/follow-way.ts'
import { addressOf, firstFault } from '../underlay/judge-way.ts'
import type { From, LocalPod, PeerSaid, Remote, To } from '../underlay/way-facts.ts'
import type { LeaseAnswer } from './answers.ts'
import { isOfLease, leases } from './node-answers.ts'
import type { CellAnswer, CheckAnswer, ReportAnswer, RowAnswer, WayAnswer, WayEndAnswer } from './path-answers.ts'
import { attachmentsNamed, nameOfPod } from './pod-answers.ts'
import type { QueryContext } from './query-context.ts'

/** Nodes of one `check`: their packets are sent at once, and each has some rules in the trace. */
const SAMPLE = 16

/** The way to a node's pods, or `undefined`: this daemon follows none, or the lease is our own. */
export async function wayToNode(context: QueryContext, found: readonly LeaseAnswer[]): Promise<WayAnswer | undefined> {
  const lease = found.find(({ isOwn, subnet }) => !isOwn && subnet.length > 0)
  const to = lease && remoteEnd(context, lease)
  return to && (await follow(context, sender(context, to), to))
}

/** From this host to a pod of it. */
export async function wayToPod(context: QueryContext, name: string): Promise<WayAnswer | undefined> {
  const pod = localPod(context, name, undefined)
  return pod && (await follow(context, { kind: 'host' }, { kind: 'pod', pod }))
}

/** `why address IP`. Errors: ADDRESS_INVALID. */
export async function wayToAddress(context: QueryContext, address: string): Promise<WayAnswer> {
  const to = toEnd(context, 'address', address)
  return one(await context.ways?.([{ from: to.kind === 'pod' ? { kind: 'host' } : sender(context, to), to }]))
}

/** `why KIND NAME to KIND NAME`. Errors: ADDRESS_INVALID, POD_UNKNOWN, NODE_UNKNOWN. */
export async function wayBetween(
  context: QueryContext,
  [kind = '', name = '']: readonly string[],
  [toKind = '', toName = '']: readonly string[]
): Promise<WayAnswer> {
  const to = toEnd(context, toKind, toName)
  return one(await context.ways?.([{ from: fromEnd(context, kind, name, to), to }]))
}

async function follow(context: QueryContext, from: From, to: To): Promise<WayAnswer | undefined> {
  const [followed] = (await context.ways?.([{ from, to }])) ?? []
  return followed && wayAnswer(followed)
}

function one(followed: readonly FollowedWay[] | undefined): WayAnswer {
  const [way] = followed ?? []
  if (way === undefined)
    throw new WeftError(
      'UNKNOWN_QUESTION',
      'this weftd follows no paths of packets',
      'use weftctl and weftd of the same release'
    )
  return wayAnswer(way)
}

function wayAnswer({ from, to, hops, answeredUs }: FollowedWay): WayAnswer {
  const first = firstFault(hops)
  return {
    ...{ from: fromAnswer(from), to: toAnswer(to), hops },
    ...(first && { first }),
    ...(answeredUs !== undefined && { answeredUs })
  }
}

const fromAnswer = (from: From): WayEndAnswer =>
  from.kind === 'host' ? { kind: 'host', name: '', address: '' } : podEnd(from.pod)

const podEnd = ({ name, address }: LocalPod): WayEndAnswer => ({ kind: 'pod', name, address: formatIp(address) })

const nameOf = ({ node, publicIp, key }: Remote): string => node || (publicIp ? formatIp(publicIp) : key)

function toAnswer(to: To): WayEndAnswer {
  const address = formatIp(addressOf(to))
  if (to.kind === 'pod') return podEnd(to.pod)
  if (to.kind === 'remote') return { kind: 'node', name: nameOf(to.remote), address }
  return { kind: 'address', name: '', address }
}

/** A pod of this node as the sender, since firewalls treat pods' packets differently; otherwise the host itself. */
function sender(context: QueryContext, to: To): From {
  const address = addressOf(to)
  const named = context.attachments.list().map((known) => localPodOf(known, address.family))
  const pod = named.find((each) => each !== undefined && !sameIp(each.address, address))
  return pod === undefined ? { kind: 'host' } : { kind: 'pod', pod }
}

function localPodOf(known: Known, family: Family | undefined): LocalPod | undefined {
  const address = known.addresses.find((ip) => family === undefined || ip.family === family)
  if (address === undefined) return undefined
  const { ifname, link, sandbox } = known
  return {
    name: nameOfPod(known) || known.containerId,
    address,
    ifname,
    link,
    ...(sandbox !== undefined && { sandbox })
  }
}

/** With several interfaces: the one that has the address, or the first. */
function localPod(context: QueryContext, name: string, family: Family | undefined): LocalPod | undefined {
  const ip = parseIp(name)
  const pods = attachmentsNamed(context, name).flatMap((known) => localPodOf(known, ip?.family ?? family) ?? [])
  return pods.find(({ address }) => sameIp(address, ip)) ?? pods[0]
}

function fromEnd(context: QueryContext, kind: string, name: string, to: To): From {
  if (kind === 'node') {
    const own = leases(context).find((lease) => lease.isOwn)
    if (name === context.nodeName || (own && isOfLease(context, own, name))) return sender(context, to)
    throw new WeftError(
      'NODE_UNKNOWN',
      `${name} is not this node, and a path is followed from the node that it begins on`,
      `run weftctl there, or: kubectl weft why --node ${name} …`
    )
  }
  const { family } = addressOf(to)
  const pod = localPod(context, name, family)
  if (pod !== undefined) return { kind: 'pod', pod }
  if (localPod(context, name, undefined) !== undefined)
    throw new WeftError(
      'POD_UNKNOWN',
      `pod ${name} has no IPv${family} address, and ${formatIp(addressOf(to))} is one`,
      'use an address of the other family'
    )
  throw notHere(name, 'run weftctl on its node (kubectl get pods -o wide), or: kubectl weft why pod …')
}

const notHere = (name: string, cure: string): WeftError =>
  new WeftError('POD_UNKNOWN', `this node has no pod ${name}`, cure)

function toEnd(context: QueryContext, kind: string, name: string): To {
  if (kind === 'node') return nodeEnd(context, name)
  const ip = parseIp(name)
  if (ip !== undefined) return addressEnd(context, ip)
  if (kind === 'address')
    throw new WeftError(
      'ADDRESS_INVALID',
      `${JSON.stringify(name)} is no IPv4 or IPv6 address`,
      'write it as 10.244.2.7'
    )
  const pod = localPod(context, name, undefined)
  if (pod !== undefined) return { kind: 'pod', pod }
  throw notHere(
    name,
    'of a pod on another node use its address: weftctl why pod … to address IP (kubectl get pods -o wide)'
  )
}

function nodeEnd(context: QueryContext, name: string): To {
  const found = leases(context).filter((lease) => isOfLease(context, lease, name))
  const lease = found.find(({ isOwn }) => !isOwn) ?? found[0]
  if (lease === undefined || lease.subnet.length === 0)
    throw new WeftError('NODE_UNKNOWN', `no lease matches ${name}`, 'weftctl nodes lists all leases')
  const end = lease.isOwn ? undefined : remoteEnd(context, lease)
  if (end !== undefined) return end
  throw new WeftError('NODE_UNKNOWN', `${name} is this node`, 'name a pod of it: weftctl why pod NAMESPACE/NAME')
}

/** The address that the other node always has, or else that of the gateway on its bridge. */
function remoteEnd(context: QueryContext, lease: LeaseAnswer): To | undefined {
  const [first] = perFamily(context.peers.leases.get(lease.key)?.subnet ?? {})
  if (first === undefined) return undefined
  const [family, subnet] = first
  const { ip } = network(subnet)
  const held = heldOffset(context, family)
  const address = offset(ip, held ?? 1n) ?? ip
  return {
    kind: 'remote',
    remote: { ...remoteOf(context, lease, address), ...(held === undefined && { isGuess: true }) }
  }
}

/** Where in their subnets the nodes of this backend have an address of their own, as this one has. */
function heldOffset({ place, reconciler }: QueryContext, family: Family): bigint | undefined {
  const own = place()?.node.subnet[family]
  if (own === undefined) return undefined
  const held = reconciler
    .wantedBy('node')
    .find((object) => object.kind === 'address' && contains(own, object.prefix.ip))
  return held?.kind === 'address' ? held.prefix.ip.value - network(own).ip.value : undefined
}

function remoteOf({ peers }: QueryContext, { key, node, skipped }: LeaseAnswer, address: Ip): Remote {
  const publicIp = peers.leases.get(key)?.publicIp[address.family]
  return { key, node, address, ...(publicIp && { publicIp }), ...(skipped !== undefined && { skipped }) }
}

function addressEnd(context: QueryContext, ip: Ip): To {
  const { peers, reconciler, place } = context
  const pod = localPod(context, formatIp(ip), undefined)
  if (pod !== undefined) return { kind: 'pod', pod }
  for (const object of reconciler.observed.values())
    if (object.kind === 'address' && sameIp(object.prefix.ip, ip)) return { kind: 'own', address: ip }
  const isIn = ({ key }: LeaseAnswer): boolean =>
    perFamily(peers.leases.get(key)?.subnet ?? {}).some(([, subnet]) => contains(subnet, ip))
  const covering = leases(context).filter(isIn)
  const lease = covering.find(({ isOwn }) => !isOwn)
  if (lease !== undefined) return { kind: 'remote', remote: remoteOf(context, lease, ip) }
  const networks = perFamily(networksOf(place()?.conf)).map(([, prefix]) => prefix)
  const inside: Prefix | undefined = networks.find((prefix) => contains(prefix, ip))
  const [node] = leases(context).filter(({ publicIp }) => publicIp.includes(formatIp(ip)))
  return {
    ...(node && { node: node.node || node.key }),
    ...{ kind: 'elsewhere', address: ip, networks: networks.map(formatPrefix).join(', ') || 'not known yet' },
    ...(inside && { network: formatPrefix(inside) }),
    ...(covering.length > 0 && { isOurs: true })
  }
}

/** `check [NODES]`: the ways from this node to a sample of the others, or to those named, and what others published. */
export async function check(context: QueryContext, names: readonly string[]): Promise<CheckAnswer> {
  const reports = (await context.probes.reports?.()) ?? []
  const all = named(leases(context), reports, context.nodeName)
  const own = all.find(({ isOwn }) => isOwn)
  const others = all.filter(({ isOwn, subnet, skipped }) => !isOwn && subnet.length > 0 && skipped === undefined)
  const asked =
    names.length === 0 ? others : others.filter((lease) => names.some((name) => isOfLease(context, lease, name)))
  const sample = spread(asked, SAMPLE)
  const ends = sample.flatMap((lease) => {
    const to = remoteEnd(context, lease)
    return to === undefined ? [] : [{ lease, to }]
  })
  const ways: readonly Way[] = ends.map(({ to }) => ({ from: sender(context, to), to }))
  const followed = ways.length === 0 ? [] : ((await context.ways?.(ways)) ?? [])
  const row: RowAnswer = {
    ...{ key: own?.key ?? '', node: context.nodeName, source: 'tried' },
    cells: followed.map(({ hops, answeredUs }, at) => {
      const { key = '', node = '' } = ends[at]?.lease ?? {}
      const first = firstFault(hops)
      if (first === undefined) return { key, node, state: answeredUs === undefined ? 'unknown' : 'whole' }
      return { key, node, state: 'wrong', at: first.at, text: first.text, ...(first.cure && { cure: first.cure }) }
    })
  }
  const unasked = names.flatMap((name) => {
    const found = all.filter((lease) => isOfLease(context, lease, name))
    if (found.some((lease) => lease.isOwn || others.includes(lease))) return []
    const skipped = found.find((lease) => lease.skipped !== undefined)?.skipped
    return [{ node: name, reason: skipped === undefined ? 'no lease matches it' : `its lease is skipped: ${skipped}` }]
  })
  return {
    ...{ node: row.node, key: row.key, nodes: others.length, sampled: ends.length },
    rows: [row, ...reportedRows(reports, all, sample)],
    ...(unasked.length > 0 && { unasked })
  }
}

/** A store without names of nodes (etcd): by the name in a node's own report, or else by its address. */
const named = (
  all: readonly LeaseAnswer[],
  reports: readonly ReportAnswer[],
  ownName: string
): readonly LeaseAnswer[] => {
  const names = new Map(reports.map(({ key, node }) => [key, node]))
  return all.map((lease) => ({
    ...lease,
    node: lease.node || (lease.isOwn ? ownName : (names.get(lease.key) ?? lease.publicIp[0] ?? ''))
  }))
}

/** Of a long list every n-th, so that no part of the cluster is left out. */
export const spread = <T>(items: readonly T[], most: number): readonly T[] =>
  items.length <= most
    ? items
    : Array.from({ length: most }, (_, at) => items[Math.floor((at * items.length) / most)] as T)

/** Of sampled nodes that published what is bad; without a word about a pair it is whole for them. */
function reportedRows(
  published: readonly ReportAnswer[],
  all: readonly LeaseAnswer[],
  sample: readonly LeaseAnswer[]
): readonly RowAnswer[] {
  return sample.flatMap((lease) => {
    const report = published.find(({ key }) => key === lease.key)
    if (report === undefined) return []
    const cells = all
      .filter(({ key, isOwn }) => key !== lease.key && (isOwn || sample.some((each) => each.key === key)))
      .map(({ key, node }) => reportedCell(report, key, node))
    return [{ key: lease.key, node: lease.node, source: 'reported', cells }]
  })
}

function reportedCell({ asked, bad, cut = false }: ReportAnswer, key: string, node: string): CellAnswer {
  const found = bad.find((each) => each.key === key && each.way === 'pods')
  if (asked === 0 || found?.verdict === 'not-asked' || (found === undefined && cut))
    return { key, node, state: 'unknown' }
  if (found === undefined) return { key, node, state: 'whole' }
  return { key, node, state: 'wrong', at: 'probe', text: `${found.verdict} since ${found.since}` }
}

/** What one node published about the ways to this one. */
export function peerSaid(
  reports: readonly ReportAnswer[] | undefined,
  key: string,
  ownKey: string
): PeerSaid | undefined {
  const report = reports?.find((each) => each.key === key)
  if (report === undefined) return undefined
  const bad = report.bad.filter((each) => each.key === ownKey && each.way === 'pods')
  if (bad.length === 0 && report.cut === true) return undefined
  return {
    at: report.at,
    bad: bad.map(({ family, verdict, since }) => ({ verdict, text: `${verdict} (${family}) since ${since}` }))
  }
}
