// Decides whether a changed network configuration is taken while pods run, and by which steps; or what would be lost.
import { FAMILIES, formatIp, formatPrefix, type Prefix, perFamily } from '../../ipam/address.ts'
import type { PeerRoutes } from '../backend/backend.ts'
import { devicesOf } from '../backend/mixed.ts'
import { WeftError } from '../base/error.ts'
import { configurationChanges } from '../config/changes.ts'
import { fits, liesWithin } from '../lease/acquire.ts'
import { type Lease, leaseKey } from '../lease/lease.ts'
import type { Node } from '../state/node.ts'
import { differingFields, type Link } from '../state/object.ts'
import { type Configured, type Earlier, type InUse, inUseWith } from './configured.ts'

export type ChangeFacts = {
  readonly node: Node
  /** What this node publishes at present. */
  readonly lease: Lease
  /** Whether it may publish the present configuration already, although the store has not confirmed that. */
  readonly isUnsure: boolean
  /** The leases of the other nodes. */
  readonly others: readonly Lease[]
  readonly routesOf: (lease: Lease) => PeerRoutes
  /** How many pods this node has. */
  readonly pods: number
  /** Milliseconds since 1970. */
  readonly now: number
}

/** `beside`: the node for the next configuration, whose new devices are beside the present ones. */
type Beside = ChangeFacts & { readonly beside: Node }

export type Decision =
  | {
      readonly kind: 'live'
      readonly inUse: InUse
      readonly changes: readonly string[]
      readonly steps: readonly string[]
    }
  /** `by`: what applies it all the same, a restart of weftd or other subnets for the nodes. */
  | { readonly kind: 'refused'; readonly reasons: readonly string[]; readonly by: 'restart' | 'renumbering' }

/** Configurations beside the current one: more changes at once than anybody makes. */
const MOST_EARLIER = 3

export function planChange(before: InUse, next: Configured, change: ChangeFacts): Decision {
  const facts = { ...change, beside: { ...change.node, kept: devicesOf(before.backend, change.node) } }
  const families = otherFamilies(before.conf, next.conf)
  if (families.length > 0) return { kind: 'refused', reasons: families, by: 'restart' }
  const renumbering = lostSubnets(before.conf, next.conf, facts)
  if (renumbering.length > 0) return { kind: 'refused', reasons: renumbering, by: 'renumbering' }
  const alone = aloneIn(before.read, next)
  if (alone !== undefined)
    return { kind: 'refused', reasons: [`${alone} can't reach nodes of both configurations meanwhile`], by: 'restart' }
  const reasons = [
    ...remade(before.read, next, facts),
    ...indistinguishable(before.read, next, facts),
    ...unreached(next, facts)
  ]
  if (reasons.length > 0) return { kind: 'refused', reasons, by: 'restart' }
  const inUse = inUseWith(next, earlierOf(before, next, facts))
  return {
    ...{ kind: 'live', inUse, changes: configurationChanges(before.conf, next.conf) },
    steps: stepsOf(before, inUse, facts)
  }
}

/** What some nodes still use once this one has changed to `next`, the latest first. */
function earlierOf(before: InUse, next: Configured, facts: ChangeFacts): readonly Earlier[] {
  const { node, lease, isUnsure, now } = facts
  const hasPublished = isUnsure || publishedAnew(before.read, next, facts) !== undefined
  const all = [...(hasPublished ? [{ ...before.read, since: now }] : []), ...before.earlier]
  // Nodes of those that publish the same are reached by the next one.
  const isServed = ({ backend }: Configured) =>
    next.backend.serves({ ...lease, backendType: backend.type, backendData: backend.publish(node) })
  return all.filter((each) => !isServed(each)).slice(0, MOST_EARLIER)
}

const isSameBackend = (a: Configured, b: Configured): boolean =>
  a.backend.type === b.backend.type && JSON.stringify(a.conf.backend) === JSON.stringify(b.conf.backend)

/** What this node publishes with the next configuration, where it is anything else than now. */
function publishedAnew(before: Configured, next: Configured, { node, lease }: ChangeFacts): Lease | undefined {
  if (isSameBackend(before, next) && next.backend.serves(lease)) return undefined
  const published = { ...lease, backendType: next.backend.type, backendData: next.backend.publish(node) }
  return next.backend.serves(lease) && text(lease) === text(published) ? undefined : published

  function text({ backendData }: Lease): string {
    return perFamily(backendData)
      .map(([family, data]) => `${family} ${JSON.stringify(data, Object.keys(data ?? {}).sort())}`)
      .join()
  }
}

/**
 * The type of the backend of two that serves no other configuration beside its own: what is not encrypted must not pass
 * beside what is, commands have no second set of nodes, and only nodes of its own may enter its tunnel.
 */
export function aloneIn(a: Configured, b: Configured): string | undefined {
  if (isSameBackend(a, b)) return undefined
  return [b, a].find(
    ({ backend }) =>
      backend.onlyBy !== undefined ||
      backend.commands !== undefined ||
      backend.entry !== undefined ||
      backend.dataPaths.length > 0
  )?.backend.type
}

/** Whether two configurations differ in what they mean. */
export const isAnother = (a: Configured, b: Configured): boolean => configurationChanges(a.conf, b.conf).length > 0

/** Those of the earlier configurations by which some node is still reached, and the leases of these. */
export function stillNeeded(
  { read, earlier }: InUse,
  others: readonly Lease[]
): ReadonlyMap<Earlier, readonly Lease[]> {
  const needed = new Map<Earlier, Lease[]>()
  for (const lease of others) {
    if (read.backend.serves(lease)) continue
    const found = earlier.find((each) => each.backend.serves(lease))
    if (found !== undefined) needed.set(found, [...(needed.get(found) ?? []), lease])
  }
  return needed
}

function otherFamilies(before: Configured['conf'], next: Configured['conf']): readonly string[] {
  return FAMILIES.flatMap((family) => {
    const [had, has] = [before, next].map(({ families }) => families[family] !== undefined)
    if (had === has) return []
    return had
      ? [`running pods would keep IPv${family} addresses to which no node has routes`]
      : [`this node's lease has no IPv${family} subnet, and running pods have no such address`]
  })
}

function lostSubnets(before: Configured['conf'], next: Configured['conf'], facts: ChangeFacts): readonly string[] {
  const { node, others, pods } = facts
  const key = leaseKey(node)
  const own = !liesWithin(node.subnet, next) || (fits(node.subnet, before) && !fits(node.subnet, next))
  const lost = others.filter((lease) => liesWithin(lease.subnet, before) && !liesWithin(lease.subnet, next))
  return [
    ...(own ? [`this node's subnet ${key} would not fit any more, and ${podsText(pods)} would be cut off`] : []),
    ...(lost.length === 0 || own
      ? []
      : [`the subnets of ${nodesText(lost)} would lie outside Network, and their pods would be cut off`])
  ]
}

/** Devices that the kernel would have to make anew under their names. */
function remade(before: Configured, next: Configured, { node, beside }: Beside): readonly string[] {
  const had = new Map(linksOf(before, node).map((link) => [link.name, link]))
  return linksOf(next, beside).flatMap((link) => {
    const there = had.get(link.name)
    const [wanted, have] = [link, there].map(
      (each) => each && { kind: 'link' as const, name: each.name, form: each.form }
    )
    if (wanted?.form === undefined || have?.form === undefined) return []
    const fields = differingFields(wanted as Link, have as Link).map((field) => field.replace(/^form\./, ''))
    return fields.length === 0
      ? []
      : [
          `the kernel sets ${fields.join(' and ')} of ${link.name} only when it makes it: no node would be reached meanwhile`
        ]
  })
}

/** Nodes whose leases would not show when they have changed. */
function indistinguishable(before: Configured, next: Configured, facts: ChangeFacts): readonly string[] {
  const { others } = facts
  const published = publishedAnew(before, next, facts)
  if (published === undefined) return []
  if (others.length > 0 && before.backend.serves(published))
    return ["this node's lease would not say which of the two it uses, so nodes that change later would cut it off"]
  const both = others.filter((each) => next.backend.serves(each) && before.backend.serves(each))
  return both.length === 0
    ? []
    : [
        `the leases of ${nodesText(both)} do not say which of the two they use (flanneld's don't), so they would be cut off`
      ]
}

/** Nodes that the next backend can't reach. */
function unreached({ backend }: Configured, { node, others, routesOf }: ChangeFacts): readonly string[] {
  if (!backend.asksRoutes) return []
  const lost = others.filter((lease) => {
    try {
      backend.peer({ ...lease, backendType: backend.type }, node, routesOf(lease))
      return false
    } catch (error) {
      return error instanceof WeftError && error.code === 'PEER_OFF_LINK'
    }
  })
  return lost.length === 0
    ? []
    : [`${nodesText(lost)} can't be reached by ${backend.type}, not being on the link of ${node.device}`]
}

function stepsOf(before: InUse, inUse: InUse, { node, beside, pods }: Beside): readonly string[] {
  const had = linksOf(before, node).map(({ name }) => name)
  const made = linksOf(inUse.read, beside).filter(({ name }) => !had.includes(name))
  const left = inUse.earlier.length === 0 ? [] : linksOf(before, node)
  const [was, is] = [before.backend.mtu(node), inUse.read.backend.mtu(node)]
  const names = (links: readonly Link[]) => [...new Set(links.map(({ name }) => name))].join(' and ')
  const networks = [before, inUse].map(({ conf }) => perFamily(conf.families).map(([, range]) => text(range.network)))
  const [old = '', now = ''] = networks.map((each) => each.join(', '))
  const stays = linksOf(inUse.read, beside).map(({ name }) => name)
  const going = left.filter(({ name }) => !stays.includes(name))
  return [
    ...(made.length > 0 ? [`make ${names(made)}${had.length > 0 ? ` beside ${had.join(' and ')}` : ''}`] : []),
    ...(old === now ? [] : [`route, forward and masquerade for ${now} in place of ${old}`]),
    ...(inUse.earlier.length > 0
      ? [`publish ${inUse.read.backend.type} in this node's lease, and reach each node by what its own lease says`]
      : [`set the routes to the other nodes as ${inUse.read.backend.type} has them`]),
    ...(going.length > 0 ? [`remove ${names(going)} once all nodes have changed, and after a day at most`] : []),
    ...(was === is ? [] : [`give new pods MTU ${is}; running pods (${pods}) keep ${was}${is < was ? FOUND : ''}`])
  ]
}

const FOUND = ', and learn of the smaller one from ICMP'

const text = (prefix: Prefix): string => formatPrefix(prefix)

const linksOf = ({ backend }: Configured, node: Node): readonly Link[] =>
  backend.own(node).filter((object): object is Link => object.kind === 'link')

const podsText = (pods: number): string => (pods === 1 ? '1 pod' : `${pods} pods`)

/** Names that are listed; of thousands nobody reads all. */
const NAMED = 3

/** Nodes by name, or by public address. */
export function nodesText(leases: readonly Lease[]): string {
  const names = leases.slice(0, NAMED).map(({ node, publicIp, ...lease }) => {
    const [first] = perFamily(publicIp)
    return node ?? (first === undefined ? leaseKey(lease) : formatIp(first[1]))
  })
  const more = leases.length - names.length
  return `${names.join(', ')}${more > 0 ? ` and ${more} more nodes` : ''}`
}
