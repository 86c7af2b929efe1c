// What weftd answers when weftctl asks: status, diff, nodes, pods, why. Nothing is tried and nothing changes.

import { WeftError } from '../base/error.ts'
import { diffAnswer, type StatusFacts, statusAnswer, type WhyNodeAnswer, type WhyPodAnswer } from './answers.ts'
import { leases, whyNode } from './node-answers.ts'
import { pods, whyPod } from './pod-answers.ts'
import type { QueryContext } from './query-context.ts'
import type { Control } from './server.ts'

/** Every question by its name. */
export function controlVerbs(facts: QueryContext): ReadonlyMap<string, Control> {
  return new Map<string, Control>([
    ['diff', async () => diffAnswer(facts.reconciler.differences())],
    ['nodes', async () => ({ leases: leases(facts) })],
    ['pods', async () => ({ pods: await pods(facts) })],
    ['status', async () => statusAnswer(statusFacts(facts))],
    ['why', async ([kind, name]) => why(facts, kind ?? '', name ?? '')]
  ])
}

function statusFacts(facts: QueryContext): StatusFacts {
  const { version, startedAt, nodeName: name, store, health, peers, attachments } = facts
  const place = facts.place()
  return {
    ...{ version, startedAt, name, store },
    peers: peers.others,
    pods: attachments.list().length,
    conditions: health.active(),
    ...(place && { backend: place.backend.type, network: place.conf.families, node: place.node })
  }
}

function why(facts: QueryContext, kind: string, name: string): WhyPodAnswer | WhyNodeAnswer {
  if (kind === 'pod' && name !== '') return whyPod(facts, name)
  if (kind === 'node' && name !== '') return whyNode(facts, name)
  throw new WeftError(
    'UNKNOWN_QUESTION',
    `weftd can't say why ${JSON.stringify(`${kind} ${name}`.trim())} is as it is`,
    'ask "why pod NAMESPACE/NAME" or "why node NAME"; use weftctl and weftd of one release'
  )
}
