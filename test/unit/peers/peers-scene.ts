// Other nodes' leases on a kernel that is a Map: what the tests of Peers have in common.
import assert from 'node:assert/strict'
import { after } from 'node:test'
import { BACKENDS, registry } from '../../../daemon/backend/registry.ts'
import { AsyncQueue } from '../../../daemon/base/async-queue.ts'
import { Health } from '../../../daemon/health/health.ts'
import { type Lease, leaseKey } from '../../../daemon/lease/lease.ts'
import type { LeaseEvent } from '../../../daemon/lease/store.ts'
import { Peers } from '../../../daemon/peers/peers.ts'
import { Reconciler } from '../../../daemon/reconcile/reconciler.ts'
import type { KernelObject } from '../../../daemon/state/object.ts'
import { ROUTE_PROTOCOL } from '../../../daemon/state/ownership.ts'
import { formatPrefix, parseIp, parsePrefix } from '../../../ipam/address.ts'
import { silent } from '../logs.ts'
import type { MapKernel } from '../map-kernel.ts'
import { testNode } from '../test-node.ts'

export const backends = registry(BACKENDS)
export const ip = (text: string) => parseIp(text) ?? assert.fail(text)
export const prefix = (text: string) => parsePrefix(text) ?? assert.fail(text)
export const eth0: KernelObject = { kind: 'link', name: 'eth0', up: true, mtu: 1500, form: { type: 'other', of: '' } }
export const lease = (n: number, over: Partial<Lease> = {}): Lease => ({
  subnet: { 4: prefix(`10.244.${n}.0/24`) },
  publicIp: { 4: ip(`192.0.2.${n}`) },
  backendType: 'host-gw',
  backendData: {},
  ...over
})
export const staleRoute = (n: number): KernelObject => ({
  kind: 'route',
  table: 254,
  destination: prefix(`10.244.${n}.0/24`),
  metric: 0,
  type: 'unicast',
  device: 'eth0',
  gateway: ip(`192.0.2.${n}`),
  protocol: ROUTE_PROTOCOL
})

const stops: AbortController[] = []
after(() => {
  for (const stop of stops) stop.abort()
})

export async function followed(kernel: MapKernel, doubtMs: number, isPlaced = true) {
  const stop = new AbortController()
  stops.push(stop)
  const health = new Health(
    () => 0,
    () => undefined
  )
  const reconciler = new Reconciler({
    kernel,
    log: silent,
    now: () => performance.now(),
    refused() {},
    drift() {},
    interest: () => true,
    recognises: backends.recognises
  })
  void reconciler.run(stop.signal)
  const { claims } = backends
  const peers = new Peers({
    kernel,
    reconciler,
    health,
    log: silent,
    claims,
    doubtMs,
    counted() {},
    now: Date.now,
    bridge: 'cni0'
  })
  if (isPlaced)
    await peers.settle({
      node: testNode(),
      backend: backends.configure('host-gw', {}),
      networks: { 4: prefix('10.244.0.0/16') }
    })
  const queue = new AsyncQueue<LeaseEvent>(stop.signal)
  const following = peers.follow(queue)
  following.catch(() => undefined)
  const send = (...some: readonly LeaseEvent[]) => {
    for (const event of some) queue.push(event)
  }
  const routes = () =>
    [...kernel.objects.values()]
      .flatMap((object) => (object.kind === 'route' ? [formatPrefix(object.destination)] : []))
      .sort()
  return { health, peers, send, routes, following }
}

export const active = (health: Health) => health.active().map((condition) => condition.code)

export const own = (network: string) => ({
  node: testNode(),
  backend: backends.configure('host-gw', {}),
  networks: { 4: prefix(network) },
  lease: lease(1, { created: 5 })
})
export const skipped = ({ peers }: Awaited<ReturnType<typeof followed>>, of: Lease) =>
  peers.skipped.get(leaseKey(of)) ?? ''
