// A reconciler that has begun, on a kernel that is a Map, and objects for it: an uplink, a tunnel, routes and entries.
import assert from 'node:assert/strict'
import { after } from 'node:test'
import { BACKENDS, registry } from '../../../daemon/backend/registry.ts'
import type { DriftReport } from '../../../daemon/reconcile/drift.ts'
import { Reconciler } from '../../../daemon/reconcile/reconciler.ts'
import type { KernelObject, Mac } from '../../../daemon/state/object.ts'
import { ROUTE_PROTOCOL } from '../../../daemon/state/ownership.ts'
import { parseIp, parsePrefix } from '../../../ipam/address.ts'
import { silent } from '../logs.ts'
import type { MapKernel } from '../map-kernel.ts'

export const backends = registry(BACKENDS)
export const ip = (text: string) => parseIp(text) ?? assert.fail(text)
export const prefix = (text: string) => parsePrefix(text) ?? assert.fail(text)

export const uplink: KernelObject = { kind: 'link', name: 'eth0', up: true, mtu: 1500, form: { type: 'other', of: '' } }
export const tunnel: KernelObject = {
  kind: 'link',
  name: 'weft.1',
  up: true,
  mtu: 1450,
  form: { type: 'vxlan', vni: 1, port: 8472, local: ip('192.0.2.1'), parent: 'eth0', learning: false, gbp: false }
}
export const route = (n: number, protocol = ROUTE_PROTOCOL): KernelObject => ({
  kind: 'route',
  table: 254,
  destination: prefix(`10.244.${n}.0/24`),
  metric: 0,
  type: 'unicast',
  device: 'weft.1',
  gateway: ip(`10.244.${n}.0`),
  onlink: true,
  protocol
})
export const fdb = (n: number): KernelObject => ({
  kind: 'fdb',
  device: 'weft.1',
  mac: `02:00:00:00:00:${n.toString(16).padStart(2, '0')}` as Mac,
  destination: ip(`192.0.2.${n}`)
})

const stops: AbortController[] = []
after(() => {
  for (const stop of stops) stop.abort()
})

export async function started(kernel: MapKernel, now = () => performance.now()) {
  const stop = new AbortController()
  stops.push(stop)
  const drifts: DriftReport[] = []
  const refusals: (readonly string[])[] = []
  const reconciler = new Reconciler({
    kernel,
    log: silent,
    now,
    refused: (errors) => refusals.push(errors),
    drift: (report) => drifts.push(report),
    interest: () => true,
    recognises: backends.recognises
  })
  void reconciler.run(stop.signal)
  await reconciler.observing
  return { reconciler, drifts, refusals }
}
