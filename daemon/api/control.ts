// The queries of weftctl by name: status, changes, diff, nodes, peers, pods, why, check. They change nothing; the last two
// send packets.
import { WeftError } from '../base/error.ts'
import type { Condition } from '../health/conditions.ts'
import {
  type ChangeAnswer,
  type ChangesAnswer,
  diffAnswer,
  type StatusFacts,
  statusAnswer,
  type WhyNodeAnswer,
  type WhyPodAnswer
} from './answers.ts'
import { leases, whyNode } from './node-answers.ts'
import type { WhyWayAnswer } from './path-answers.ts'
import { peersAnswer } from './peer-answers.ts'
import { pods, whyPod } from './pod-answers.ts'
import type { QueryContext } from './query-context.ts'
import type { Control } from './server.ts'
import { check, wayBetween, wayToAddress, wayToNode, wayToPod } from './way-answers.ts'

export function controlVerbs(context: QueryContext): ReadonlyMap<string, Control> {
  return new Map<string, Control>([
    ['changes', async () => ({ changes: changes(context) }) satisfies ChangesAnswer],
    ['diff', async () => diffAnswer(context.reconciler.differences(), waitsFor(context))],
    ['nodes', async () => ({ leases: leases(context), listed: context.peers.isListed })],
    ['peers', async () => peersAnswer(context)],
    ['pods', async () => ({ pods: await pods(context) })],
    ['status', async () => statusAnswer(statusFacts(context))],
    ['check', async ([names = '']) => check(context, names.split(',').filter(Boolean))],
    ['why', async (args) => why(context, args)]
  ])
}

const changes = (context: QueryContext): readonly ChangeAnswer[] =>
  context.changes.list().map(({ at, text, isOwn, culprit, unnamed, tookMs }) => ({
    at: new Date(at).toISOString(),
    text,
    ...(isOwn && { isOwn, culprit: 'weftd' }),
    ...(culprit !== undefined && { culprit }),
    ...(unnamed !== undefined && { unnamed }),
    ...(tookMs !== undefined && { tookMs })
  }))

/** Conditions that explain why there is no list of leases, or none that is believed, besides those that block. */
const OF_THE_STORE: readonly string[] = ['STORE_UNREACHABLE', 'STORE_DENIED', 'LIST_DOUBTED']

/** What is missing for a decision about what is stale; `undefined` once the reconciler may remove it. */
function waitsFor({ reconciler, place, peers, health }: QueryContext): string | undefined {
  if (reconciler.trusts) return undefined
  const active = health.active()
  const codes = active.filter(({ code, blocks }) => OF_THE_STORE.includes(code) || blocks.length > 0)
  const named = codes.map(({ code }) => code).filter((code) => code !== 'STARTING')
  return `${missing(active, place() !== undefined, peers.isListed)}${named.length > 0 ? ` (${named.join(', ')})` : ''}`
}

function missing(active: readonly Condition[], hasPlace: boolean, isListed: boolean): string {
  if (active.some(({ code }) => code === 'CONFIG_MISSING')) return 'the network configuration'
  if (!hasPlace) return "this node's subnet"
  return isListed ? "confirmation of the store's list of leases" : "the store's list of leases"
}

function statusFacts(context: QueryContext): StatusFacts {
  const { version, startedAt, nodeName: name, store, health, peers, attachments } = context
  const [place, leaseEnds] = [context.place(), context.leaseEnds()]
  return {
    ...{ version, startedAt, name, store },
    peers: peers.others,
    pods: attachments.list().length,
    conditions: health.active(),
    ...(leaseEnds !== undefined && { leaseEnds }),
    ...(place && { backend: place.backend.type, network: place.conf.families, node: place.node, mtu: place.mtu })
  }
}

async function why(
  context: QueryContext,
  args: readonly string[]
): Promise<WhyPodAnswer | WhyNodeAnswer | WhyWayAnswer> {
  const [kind = '', name = '', to, toKind = '', toName = ''] = args
  const isKnown = KINDS.has(kind) && name !== ''
  if (isKnown && to === 'to' && KINDS.has(toKind) && toName !== '')
    return { way: await wayBetween(context, [kind, name], [toKind, toName]) }
  if (isKnown && to === undefined) return whyOne(context, kind, name)
  throw new WeftError(
    'UNKNOWN_QUESTION',
    `weftd has no answer to "${['why', ...args].join(' ').trim()}"`,
    'run "weftctl why pod NAMESPACE/NAME", "why node NAME" or "why address IP", each also with "to pod|node|address NAME"'
  )
}

const KINDS = new Set(['pod', 'node', 'address'])

async function whyOne(
  context: QueryContext,
  kind: string,
  name: string
): Promise<WhyPodAnswer | WhyNodeAnswer | WhyWayAnswer> {
  if (kind === 'address') return { way: await wayToAddress(context, name) }
  if (kind === 'pod') {
    const way = await wayToPod(context, name)
    return { ...whyPod(context, name), ...(way && { way }) }
  }
  const answer = whyNode(context, name)
  const way = await wayToNode(context, answer.leases)
  return { ...answer, ...(way && { way }) }
}
