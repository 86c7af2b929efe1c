// NetworkPolicies that nobody enforces: the API server takes them in silence, and whoever wrote one believes to be protected. One node says it on each of them.
import { setTimeout as sleep } from 'node:timers/promises'
import type { Log } from '../base/log.ts'
import { decode } from '../base/protobuf.ts'
import type { JsonObject } from '../config/json.ts'
import type { KubeApi } from './api.ts'
import type { EventWriter, Saying } from './events.ts'
import { type KubeBody, OBJECT_META } from './protobuf.ts'
import { follow } from './watch.ts'

export type Policy = { readonly namespace: string; readonly name: string; readonly uid: string }

export type PolicyDeps = {
  readonly api: KubeApi
  readonly writer: Pick<EventWriter, 'write'>
  readonly log: Log
  /** Whether this node is the one that speaks for the cluster. */
  readonly isSpeaker: () => boolean
}

export type PolicyPace = {
  /** Milliseconds between two looks at who speaks. */
  readonly lookMs: number
  /** Milliseconds after which a warning is renewed: API servers keep events for an hour by default. */
  readonly renewMs: number
}

const POLICY_PACE: PolicyPace = { lookMs: 30_000, renewMs: 50 * 60_000 }

export function policyOf(body: KubeBody): Policy {
  if (body.format === 'protobuf')
    return decode({ metadata: [1, OBJECT_META] } as const, body.bytes).metadata ?? { namespace: '', name: '', uid: '' }
  const { namespace = '', name = '', uid = '' } = (body.json.metadata ?? {}) as JsonObject
  return { namespace: String(namespace), name: String(name), uid: String(uid) }
}

const sayingOf = ({ namespace, name, uid }: Policy): Saying => ({
  regarding: { apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy', namespace, name, uid },
  type: 'Warning',
  reason: 'NetworkPolicyNotEnforced',
  message:
    'nobody enforces this policy: Weft connects pods and filters nothing between them, so every pod still reaches the pods that it selects. ' +
    'Cure: run a policy controller beside Weft (kube-network-policies, say) and start weftd with --network-policy-enforced'
})

/** Follows policies for as long as this node speaks for the cluster. Ends with the signal; trouble with the API server only delays it. */
export async function warnOfPolicies(deps: PolicyDeps, signal: AbortSignal, pace = POLICY_PACE): Promise<void> {
  while (!signal.aborted) {
    if (deps.isSpeaker()) await speak(deps, signal, pace)
    await sleep(pace.lookMs, undefined, { signal, ref: false }).catch(() => undefined)
  }
}

async function speak(
  { api, writer, log, isSpeaker }: PolicyDeps,
  signal: AbortSignal,
  pace: PolicyPace
): Promise<void> {
  const turn = new AbortController()
  const either = AbortSignal.any([signal, turn.signal])
  /** By uid, and when each was last told of. */
  const told = new Map<string, { readonly policy: Policy; at: number }>()
  const tell = async (policy: Policy) => {
    const known = told.get(policy.uid)
    if (known !== undefined && performance.now() - known.at < pace.renewMs) return
    const now = { policy, at: performance.now() }
    told.set(policy.uid, now)
    await writer.write(sayingOf(policy), Date.now(), either)
  }
  const renewing = setInterval(() => {
    if (!isSpeaker()) turn.abort()
    else for (const { policy } of told.values()) tell(policy).catch(() => undefined)
  }, pace.lookMs)
  renewing.unref()
  const path = '/apis/networking.k8s.io/v1/networkpolicies'
  try {
    for await (const event of follow(api, { path, project: policyOf, protobuf: true }, log, either)) {
      if (event.kind === 'gone') told.delete(event.item.uid)
      else for (const policy of event.kind === 'list' ? event.items : [event.item]) await tell(policy)
    }
  } catch (error) {
    // Writing ends with the signal and with nothing else.
    if (!either.aborted) throw error
  } finally {
    clearInterval(renewing)
  }
}
