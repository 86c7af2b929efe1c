// The queries of weftctl by name: status, changes, diff, nodes, peers, pods, why. They change nothing.
import { WeftError } from '../base/error.ts'
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
import { peersAnswer } from './peer-answers.ts'
import { pods, whyPod } from './pod-answers.ts'
import type { QueryContext } from './query-context.ts'
import type { Control } from './server.ts'

export function controlVerbs(context: QueryContext): ReadonlyMap<string, Control> {
  return new Map<string, Control>([
    ['changes', async () => ({ changes: changes(context) }) satisfies ChangesAnswer],
    ['diff', async () => diffAnswer(context.reconciler.differences())],
    ['nodes', async () => ({ leases: leases(context), listed: context.peers.isListed })],
    ['peers', async () => peersAnswer(context)],
    ['pods', async () => ({ pods: await pods(context) })],
    ['status', async () => statusAnswer(statusFacts(context))],
    ['why', async ([kind, name]) => why(context, kind ?? '', name ?? '')]
  ])
}

const changes = (context: QueryContext): readonly ChangeAnswer[] =>
  context.changes.list().map(({ at, text, culprit, unnamed, tookMs }) => ({
    at: new Date(at).toISOString(),
    text,
    ...(culprit !== undefined && { culprit }),
    ...(unnamed !== undefined && { unnamed }),
    tookMs
  }))

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

function why(context: QueryContext, kind: string, name: string): WhyPodAnswer | WhyNodeAnswer {
  if (kind === 'pod' && name !== '') return whyPod(context, name)
  if (kind === 'node' && name !== '') return whyNode(context, name)
  throw new WeftError(
    'UNKNOWN_QUESTION',
    `weftd has no answer to "why ${`${kind} ${name}`.trim()}"`,
    'run "weftctl why pod NAMESPACE/NAME" or "weftctl why node NAME"'
  )
}
