// Settings and objects that go with a link are made again with it, and what we do ourselves is nobody else's change.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type KernelObject, keyOf, linkNamed } from '../../../daemon/state/object.ts'
import { MapKernel } from '../map-kernel.ts'
import { until } from '../until.ts'
import { fdb, prefix, route, started, tunnel, uplink } from './started.ts'

test('settings of a link are made again with it: ADD, DEL and ADD of one container', async () => {
  const kernel = new MapKernel([uplink])
  const { reconciler, drifts } = await started(kernel)
  const pod: readonly KernelObject[] = [
    { kind: 'link', name: 'veth1', form: { type: 'veth' }, up: true },
    { kind: 'sysctl', path: 'net/ipv4/conf/veth1/route_localnet', value: '1' },
    { kind: 'offload', device: 'veth1', transmitChecksum: false }
  ]
  for (let round = 1; round <= 2; round++) {
    await reconciler.want('pod', pod)
    const made = kernel.batches.at(-1)?.map(({ object }) => object.kind)
    assert.deepEqual(made, ['link', 'sysctl', 'offload'])
    await reconciler.want('pod', [])
  }
  assert.deepEqual(drifts, [])
})

test('a notification of a link that we have removed since does not bring it back', async () => {
  const kernel = new MapKernel([uplink])
  // A dump would be newer than the notification.
  kernel.recheck = () => undefined
  const { reconciler, drifts } = await started(kernel)
  const pod: KernelObject = { kind: 'link', name: 'veth1', form: { type: 'veth' }, up: true }
  await reconciler.want('pod', [pod])
  await reconciler.want('pod', [])
  kernel.tell(pod)
  await reconciler.want('other', [{ ...pod, name: 'veth2' }])
  assert.equal(reconciler.observed.has(keyOf(pod)), false)
  await reconciler.want('pod', [pod])
  assert.deepEqual(kernel.batches.at(-1), [{ do: 'put', object: pod }], 'made, not changed')
  kernel.change({ ...pod, up: false }, keyOf(pod))
  await until(() => linkNamed(kernel.objects, 'veth1')?.up === true, 'the repair of the next one')
  assert.equal(drifts.length, 1)
})

test('a bridge that another program makes anew gets its settings at once', async () => {
  const setting: KernelObject = { kind: 'sysctl', path: 'net/ipv4/conf/br-1/route_localnet', value: '1' }
  const bridge = (index: number): KernelObject => ({ kind: 'link', name: 'br-1', form: { type: 'bridge' }, index })
  const kernel = new MapKernel([uplink, bridge(7)])
  const { reconciler } = await started(kernel)
  await reconciler.want('shared', [setting])
  kernel.objects.delete(keyOf(setting))
  const before = kernel.batches.length
  kernel.change(bridge(8), keyOf(bridge(8)))
  await until(() => kernel.batches.length > before, 'the setting of the new bridge')
  assert.deepEqual(
    kernel.batches.at(-1)?.map(({ object }) => object),
    [setting]
  )
})

test('an offload that another program turns on is turned off again and listed; one that nobody wants stays as it is', async () => {
  const offload: KernelObject = { kind: 'offload', device: 'eth0', transmitChecksum: false }
  const kernel = new MapKernel([uplink])
  const { reconciler, drifts } = await started(kernel)
  await reconciler.want('cure', [offload])
  kernel.change({ ...offload, transmitChecksum: true }, keyOf(offload))
  await until(() => drifts.length > 0, 'the repair')
  assert.deepEqual(kernel.objects.get(keyOf(offload)), offload)
  assert.deepEqual(
    drifts.map(({ object, what }) => [object, what]),
    [['transmit checksum offload of eth0 off', 'changed (transmitChecksum)']]
  )
  const { length } = kernel.batches
  await reconciler.want('cure', [])
  assert.equal(kernel.batches.length, length)
})

test('the VLANs of a port that leaves its bridge are set again when it is back on one', async () => {
  const port = { kind: 'link', name: 'veth1', form: { type: 'veth' }, up: true, master: 'br-1' } as const
  const range = [{ first: 100, last: 100 }]
  const vlans: KernelObject = { kind: 'vlans', device: 'veth1', pvid: 100, untagged: range, tagged: [], isExact: true }
  const kernel = new MapKernel([uplink, { kind: 'link', name: 'br-1', form: { type: 'bridge' } }])
  const { reconciler, refusals } = await started(kernel)
  await reconciler.want('pod', [port, vlans])
  assert.deepEqual(
    kernel.batches.at(-1)?.map(({ object }) => object.kind),
    ['link', 'vlans']
  )
  await new Promise((resolve) => setTimeout(resolve, 80))
  // As the kernel: it says that the port left, and not what became of its VLANs. A dump must not be needed.
  kernel.recheck = () => undefined
  kernel.objects.delete(keyOf(vlans))
  kernel.change({ ...port, master: '' }, keyOf(port))
  await until(() => kernel.objects.has(keyOf(vlans)), 'the VLANs')
  assert.deepEqual([kernel.objects.get(keyOf(port)), refusals.flat()], [port, []])
  await reconciler.want('pod', [])
  await until(() => !kernel.objects.has(keyOf(port)), 'the port to be gone')
  assert.deepEqual(reconciler.differences(), [])
})

test('the device of a VLAN gets the MTU of its bridge when that grows with a port, which is nobody else’s change', async () => {
  const bridge = (mtu: number): KernelObject => ({ kind: 'link', name: 'br-1', form: { type: 'bridge' }, mtu })
  const vlan = { kind: 'link', name: 'br-1.100', form: { type: 'vlan', id: 100, parent: 'br-1' }, up: true } as const
  const kernel = new MapKernel([uplink, bridge(1500), { ...vlan, mtu: 1500 }])
  const { reconciler, drifts } = await started(kernel)
  await reconciler.want('pod', [vlan])
  const mtu = () => linkNamed(kernel.objects, 'br-1.100')?.mtu
  for (const now of [9000, 1400]) {
    kernel.change(bridge(now), keyOf(bridge(now)))
    await until(() => mtu() === now, `the MTU ${now}`)
  }
  kernel.change({ ...vlan, mtu: 1300 }, keyOf(vlan))
  await until(() => mtu() === 1400, 'the MTU after another program changed it')
  assert.deepEqual(
    drifts.map(({ what }) => what),
    ['changed (mtu)']
  )
  assert.deepEqual(reconciler.differences(), [])
})

test('a tunnel that we make anew comes with all that is on it in one batch, and is nobody else’s change', async () => {
  const kernel = new MapKernel([uplink])
  const { reconciler, drifts } = await started(kernel)
  const address: KernelObject = { kind: 'address', device: 'weft.1', prefix: prefix('10.244.1.0/32') }
  await reconciler.want('node', [tunnel, address])
  await reconciler.want('lease', [route(2), fdb(2)])
  await new Promise((resolve) => setTimeout(resolve, 80))
  const batches = kernel.batches.length
  const form = tunnel.kind === 'link' && tunnel.form?.type === 'vxlan' ? { ...tunnel.form, port: 4789 } : assert.fail()
  await reconciler.want('node', [{ ...tunnel, form } as KernelObject, address])
  assert.deepEqual(
    kernel.batches.slice(batches).map((changes) => changes.map(({ do: what, object }) => `${what} ${object.kind}`)),
    [['remove link', 'put link', 'put address', 'put fdb', 'put route']]
  )
  await new Promise((resolve) => setTimeout(resolve, 150))
  assert.deepEqual(drifts, [])
  assert.deepEqual(reconciler.differences(), [])
})

test('an owner hears that another one wants an object otherwise, and changes nothing', async () => {
  const kernel = new MapKernel([uplink, tunnel])
  const { reconciler } = await started(kernel)
  await reconciler.want('pod a', [{ ...route(2), because: 'pod a' } as KernelObject])
  const [outcome] = await reconciler.want('pod b', [{ ...route(2), device: 'eth0', because: 'pod b' } as KernelObject])
  assert.match(outcome?.error?.message ?? '', /^pod b wants .* but pod a already has it/)
  assert.deepEqual(kernel.objects.get(keyOf(route(2))), { ...route(2), because: 'pod a' })
})
