// The queries of weftctl by name: status, diff, nodes, pods, why. They change nothing.
import { WeftError } from '../base/error.ts'
import type { Condition } from '../health/conditions.ts'
import { diffAnswer, type StatusFacts, statusAnswer, type WhyNodeAnswer, type WhyPodAnswer } from './answers.ts'
import { leases, whyNode } from './node-answers.ts'
import { pods, whyPod } from './pod-answers.ts'
import type { QueryContext } from './query-context.ts'
import type { Control } from './server.ts'

export function controlVerbs(context: QueryContext): ReadonlyMap<string, Control> {
  return new Map<string, Control>([
    ['diff', async () => diffAnswer(context.reconciler.differences(), waitsFor(context))],
    ['nodes', async () => ({ leases: leases(context), listed: context.peers.isListed })],
    ['pods', async () => ({ pods: await pods(context) })],
    ['status', async () => statusAnswer(statusFacts(context))],
    ['why', async ([kind, name]) => why(context, kind ?? '', name ?? '')]
  ])
}

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
  const place = context.place()
  return {
    ...{ version, startedAt, name, store },
    peers: peers.others,
    pods: attachments.list().length,
    conditions: health.active(),
    ...(place && { backend: place.backend.type, network: place.conf.families, node: place.node })
  }
}

function why(context: QueryContext, kind: string, name: string): WhyPodAnswer | WhyNodeAnswer {
  if (kind === 'pod' && name !== '') return whyPod(context, name)
  if (kind === 'node' && name !== '') return whyNode(context, name)
  throw new WeftError(
    'UNKNOWN_QUESTION',
    `weftd has no answer to "why ${`${kind} ${name}`.trim()}"`,
    'run "weftctl why pod NAMESPACE/NAME" or "weftctl why node NAME"'
  )
}
