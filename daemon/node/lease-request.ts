// What this node asks of its lease store: a subnet, and what it publishes.
import type { PerFamily, Prefix } from '../../ipam/address.ts'
import type { Registry } from '../backend/registry.ts'
import { Backoff, retry } from '../base/backoff.ts'
import { reasonOf, WeftError } from '../base/error.ts'
import type { Health } from '../health/health.ts'
import type { Lease } from '../lease/lease.ts'
import type { LeaseRequest, Store } from '../lease/store.ts'
import { areOfTwoNodes } from '../peers/conflicts.ts'
import { hostNetworks } from '../peers/host-networks.ts'
import type { Node } from '../state/node.ts'
import type { State } from '../state/object.ts'
import type { Configured } from './configured.ts'
import type { Remembered } from './lease-file.ts'
import { networksOf, type Place } from './place.ts'
import { dataOfOurs, proofOf } from './published-before.ts'

export type LeaseRequestDeps = {
  readonly backends: Pick<Registry, 'recognises' | 'namesOurDevice' | 'namesAnotherDevice' | 'claims'>
  readonly observed: State
  readonly nodeName: string
  readonly remembered: Remembered | undefined
  /** The subnets in the subnet.env of an earlier daemon. */
  readonly previous: PerFamily<Prefix>
}

/** Milliseconds between two attempts. */
const RETRY = 1_000

/** Asks until there is one; until then conditions say why there is none. */
export async function acquireLease(
  request: LeaseRequest,
  { store, health }: { readonly store: Pick<Store, 'acquire'>; readonly health: Pick<Health, 'raise' | 'clear'> },
  signal: AbortSignal
): Promise<Lease> {
  const onError = (error: unknown) => {
    if (!(error instanceof WeftError)) throw error
    if (error.code === 'SUBNETS_EXHAUSTED' || error.code === 'LEASE_LOST')
      health.raise(error.code, error.message, error.cure)
    else health.raise('NO_LEASE', reasonOf(error), error.cure)
  }
  const lease = await retry(() => store.acquire(request, signal), {
    ...{ signal, backoff: Backoff.constant(RETRY), onError }
  })
  health.clear('SUBNETS_EXHAUSTED')
  return lease
}

/** `before`: the place that this weftd has. */
export function leaseRequest(
  { conf, backend }: Configured,
  facts: Omit<Node, 'subnet'>,
  before: Place | undefined,
  deps: LeaseRequestDeps
): LeaseRequest {
  const { backends, observed, nodeName, remembered } = deps
  const previous = before === undefined ? deps.previous : before.node.subnet
  const publish = (kept: Lease['backendData']) => backend.publish({ ...facts, remembered: kept })
  const proof = proofOf({
    ...{ previous, backends, links: facts.links, publicIp: facts.publicIp },
    ...{ present: before?.lease, remembered: remembered?.lease },
    fresh: { backendType: backend.type, backendData: publish({}) }
  })
  return {
    ...{ node: nodeName, network: conf, publicIp: facts.publicIp, backendType: backend.type, ...proof },
    ...(before !== undefined && { only: before.node.subnet }),
    areOfTwoNodes: (a, b) => areOfTwoNodes(a, b, backends.claims),
    occupied: hostNetworks(observed, {
      ...{ networks: networksOf(conf), device: facts.device, subnet: previous, recognises: backends.recognises }
    }),
    backendData: (held) => publish(dataOfOurs(held, proof))
  }
}
