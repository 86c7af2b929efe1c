// When leases are compared with this host again.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { onHostChanged } from '../../../daemon/peers/host-changes.ts'
import type { KernelObject } from '../../../daemon/state/object.ts'
import { parsePrefix } from '../../../ipam/address.ts'
import { silent } from '../logs.ts'

const prefix = (text: string) => parsePrefix(text) ?? assert.fail(text)
const addressOf = (n: number): KernelObject => ({
  ...({ kind: 'address', device: 'kube-ipvs0' } as const),
  prefix: prefix(`10.96.0.${n}/32`)
})

test('a burst of addresses is looked at once, other changes are not', async () => {
  let [calls, isPlaced] = [0, false]
  const listeners: ((changed: readonly KernelObject[] | 'everything') => void)[] = []
  const host = { networks: { 4: prefix('10.244.0.0/16') }, device: 'eth0', subnet: {}, recognises: () => undefined }
  onHostChanged(
    { reconciler: { onObserved: (listener) => void listeners.push(listener) }, log: silent },
    () => (isPlaced ? host : undefined),
    async () => void calls++
  )
  const observed = async (...changes: readonly (readonly KernelObject[] | 'everything')[]) => {
    for (const change of changes) for (const listener of listeners) listener(change)
    await turn()
    return calls
  }
  assert.equal(await observed([addressOf(1)]), 0, 'before anything is known of this node')
  isPlaced = true
  assert.equal(await observed([{ kind: 'sysctl', path: 'net/ipv4/ip_forward', value: '1' }]), 0)
  assert.equal(await observed(...Array.from({ length: 200 }, (_, n) => [addressOf(n)])), 1)
  assert.equal(await observed('everything'), 2)
})
