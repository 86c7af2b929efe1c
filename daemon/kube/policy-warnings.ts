// Warns of NetworkPolicies that no program enforces, since the API server accepts them silently: one node of the
// cluster writes an event on each of them.
import { setTimeout as sleep } from 'node:timers/promises'
import type { Log } from '../base/log.ts'
import { decode } from '../base/protobuf.ts'
import type { JsonObject } from '../config/json.ts'
import type { KubeApi } from './api.ts'
import type { EventContent, EventWriter } from './events.ts'
import { type KubeBody, OBJECT_META } from './protobuf.ts'
import { follow } from './watch.ts'

export type Policy = { readonly namespace: string; readonly name: string; readonly uid: string }

export type PolicyDeps = {
  readonly api: KubeApi
  readonly writer: Pick<EventWriter, 'write'>
  readonly log: Log
  /** Whether this node writes the warnings for the cluster. */
  readonly isLeader: () => boolean
}

export type PolicyPace = {
  /** Milliseconds between two checks of `isLeader`. */
  readonly checkMs: number
  /** Milliseconds after which a warning is renewed: by default API servers keep events for an hour. */
  readonly renewMs: number
}

const POLICY_PACE: PolicyPace = { checkMs: 30_000, renewMs: 50 * 60_000 }

export function policyOf(body: KubeBody): Policy {
  if (body.format === 'protobuf')
    return decode({ metadata: [1, OBJECT_META] } as const, body.bytes).metadata ?? { namespace: '', name: '', uid: '' }
  const { namespace = '', name = '', uid = '' } = (body.json.metadata ?? {}) as JsonObject
  return { namespace: String(namespace), name: String(name), uid: String(uid) }
}

const warningOf = ({ namespace, name, uid }: Policy): EventContent => ({
  regarding: { apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy', namespace, name, uid },
  type: 'Warning',
  reason: 'NetworkPolicyNotEnforced',
  message:
    'no program enforces this policy: Weft does not filter traffic between pods, so the pods that it selects stay reachable from every pod. ' +
    'Cure: run a policy controller beside Weft, such as kube-network-policies, and start weftd with --network-policy-enforced'
})

/** Watches policies while this node is the leader. Ends with the signal; trouble with the API server only delays it. */
export async function warnOfPolicies(deps: PolicyDeps, signal: AbortSignal, pace = POLICY_PACE): Promise<void> {
  while (!signal.aborted) {
    if (deps.isLeader()) await warnWhileLeader(deps, signal, pace)
    await sleep(pace.checkMs, undefined, { signal, ref: false }).catch(() => undefined)
  }
}

async function warnWhileLeader(
  { api, writer, log, isLeader }: PolicyDeps,
  signal: AbortSignal,
  pace: PolicyPace
): Promise<void> {
  const leading = new AbortController()
  const either = AbortSignal.any([signal, leading.signal])
  /** By uid, with the time of the last warning. */
  const warned = new Map<string, { readonly policy: Policy; at: number }>()
  const warn = async (policy: Policy) => {
    const known = warned.get(policy.uid)
    if (known !== undefined && performance.now() - known.at < pace.renewMs) return
    const now = { policy, at: performance.now() }
    warned.set(policy.uid, now)
    await writer.write(warningOf(policy), Date.now(), either)
  }
  const renewing = setInterval(() => {
    if (!isLeader()) leading.abort()
    else for (const { policy } of warned.values()) warn(policy).catch(() => undefined)
  }, pace.checkMs)
  renewing.unref()
  const path = '/apis/networking.k8s.io/v1/networkpolicies'
  try {
    for await (const event of follow(api, { path, project: policyOf, protobuf: true }, log, either)) {
      if (event.kind === 'gone') warned.delete(event.item.uid)
      else for (const policy of event.kind === 'list' ? event.items : [event.item]) await warn(policy)
    }
  } catch (error) {
    // Only the signal ends writing an event.
    if (!either.aborted) throw error
  } finally {
    clearInterval(renewing)
  }
}
