// Objects shared by pods: each request includes all earlier ones.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isolatedBridge } from '../../../daemon/firewall/bridge-ports.ts'
import { conditionedPortBase, hostPortBase, hostPortDevice } from '../../../daemon/firewall/host-ports.ts'
import { SharedObjects } from '../../../daemon/pod/shared-objects.ts'
import { type KernelObject, keyOf } from '../../../daemon/state/object.ts'

test('shared objects only grow, and an object of one key is there once, as it was wanted last', () => {
  const shared = new SharedObjects()
  const sysctl = (path: string, value: string): KernelObject => ({ kind: 'sysctl', path, value })
  const [owner, first] = shared.with([sysctl('a', '1')])
  assert.deepEqual(first, [sysctl('a', '1')])
  assert.deepEqual(shared.with([sysctl('b', '2'), sysctl('a', '3')]), [owner, [sysctl('a', '3'), sysctl('b', '2')]])
  assert.deepEqual(shared.with([])[1].length, 2)
})

test('what names a device goes with it, and only that', () => {
  const shared = new SharedObjects()
  const of = (bridge: string) => [...hostPortDevice(bridge), ...isolatedBridge(bridge)]
  const conditions = [{ kind: 'device', name: 'eth*' }] as const
  const [, all] = shared.with([...hostPortBase(), ...conditionedPortBase(4, conditions), ...of('br-1'), ...of('br-2')])
  assert.deepEqual([...shared.devices].sort(), ['br-1', 'br-2'])
  assert.equal(shared.without(['br-3']), undefined)
  const [, left] = shared.without(['br-1']) ?? assert.fail()
  const gone = all.filter((object) => !left.includes(object)).map(keyOf)
  assert.deepEqual(
    gone,
    of('br-1')
      .filter(({ kind }) => kind !== 'nft-set')
      .map(keyOf)
  )
  assert.deepEqual(shared.devices, ['br-2'])
})
