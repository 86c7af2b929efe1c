// The condition for a fight names the program where the kernel does, and otherwise says why it can't, with a device.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Health } from '../../../daemon/health/health.ts'
import { createMetrics } from '../../../daemon/health/metrics.ts'
import { Drift } from '../../../daemon/reconcile/drift.ts'
import { repairReport } from '../../../daemon/reconcile/repair-report.ts'
import type { Sender } from '../../../daemon/state/kernel.ts'
import { type KernelObject, keyOf } from '../../../daemon/state/object.ts'
import { silent } from '../logs.ts'
import { fdb, prefix, route, tunnel } from './started.ts'

function fight(object: KernelObject, by?: Sender): { readonly detail: string; readonly cure: string } {
  const health = new Health(Date.now, () => undefined)
  const report = repairReport(silent, createMetrics(), health)
  const drift = new Drift(() => 0)
  for (let n = 0; n < 5; n++) {
    drift.seen(keyOf(object), { do: 'put', object }, by)
    const repaired = drift.repaired(keyOf(object), { do: 'put', object })
    if (repaired !== undefined) report.drift(repaired)
  }
  return health.active().find(({ code }) => code === 'UNDONE_REPEATEDLY') ?? assert.fail('no condition')
}

test('a fight with a program that the kernel names has its name and process', () => {
  const { detail, cure } = fight(route(2), { self: false, pid: 7, name: 'netd' })
  assert.match(detail, /^netd \(7\) did it 5 times in 10 s, last to route/)
  assert.match(cure, /^configure netd to leave route/)
})

for (const [object, why] of [
  [tunnel, 'the kernel does not say who changes links'],
  [fdb(2), 'the kernel does not say who changes FDB entries'],
  [
    { kind: 'address', device: 'weft.1', prefix: prefix('fd00::/128') },
    'the kernel does not say who changes IPv6 addresses'
  ],
  [
    { kind: 'sysctl', path: 'net/ipv4/conf/weft.1/rp_filter', value: '2' },
    'the kernel does not say who changes settings'
  ],
  [{ kind: 'address', device: 'weft.1', prefix: prefix('10.244.1.0/32') }, 'it had ended before']
] as const satisfies readonly (readonly [KernelObject, string])[])
  test(`a fight over ${keyOf(object)} says why it names nobody, and which device to look at`, () => {
    const { detail, cure } = fight(object)
    assert.ok(detail.includes(`an unknown program (${why}`), detail)
    assert.match(
      cure,
      /^find the program that manages weft\.1 \(networkctl status weft\.1; nmcli device show weft\.1\)/
    )
  })
