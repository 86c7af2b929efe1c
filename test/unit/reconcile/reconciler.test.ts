// The reconciler against a kernel that is a Map: any order of events ends in sync, a second pass changes nothing, other
// programs' objects are not removed.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type Change, difference } from '../../../daemon/state/difference.ts'
import { type KernelObject, keyOf } from '../../../daemon/state/object.ts'
import { mayRemove, ROUTE_PROTOCOL } from '../../../daemon/state/ownership.ts'
import { textOf } from '../../../daemon/state/text.ts'
import { MapKernel } from '../map-kernel.ts'
import { stateText } from '../state-text.ts'
import { until } from '../until.ts'
import { backends, fdb, ip, prefix, route, started, tunnel, uplink } from './started.ts'

test('leaving removes what is desired and what is owned by Weft, but for what stays, and the tables', async () => {
  const chain: KernelObject = { kind: 'nft-chain', family: 'inet', table: 'weft', chain: 'forward', digests: [] }
  const foreign: KernelObject = { ...route(9, 4), device: 'eth0' } as KernelObject
  const kernel = new MapKernel([uplink, tunnel, route(7), foreign, chain])
  const { reconciler } = await started(kernel)
  await reconciler.want('node', [tunnel, route(2)])
  const outcomes = await reconciler.leave((object) => object.kind === 'link')
  assert.deepEqual(
    outcomes.filter(({ error }) => error !== undefined),
    []
  )
  assert.deepEqual(await reconciler.removeTables(), [])
  assert.deepEqual([...kernel.objects.values()], [uplink, tunnel, foreign])
})

test('the tables are removed although the removal before them failed', async () => {
  const chain: KernelObject = { kind: 'nft-chain', family: 'inet', table: 'weft', chain: 'forward', digests: [] }
  const kernel = new MapKernel([uplink, chain])
  const { reconciler } = await started(kernel)
  await reconciler.want('node', [tunnel])
  kernel.apply = () => Promise.reject(new Error('netlink: no buffer'))
  await assert.rejects(
    reconciler.leave(() => false),
    /no buffer/
  )
  assert.deepEqual(await reconciler.removeTables(), [])
  assert.deepEqual([...kernel.objects.values()], [uplink, tunnel])
})

test('what an owner wants is in the kernel when want() resolves, and a second want changes nothing', async () => {
  const kernel = new MapKernel([uplink])
  const { reconciler } = await started(kernel)
  await reconciler.want('node', [tunnel, route(2), fdb(2)])
  assert.equal(kernel.batches.length, 1)
  assert.deepEqual(
    [...difference(reconciler.desired, kernel.objects)].filter((change) => change.do === 'put'),
    []
  )
  await reconciler.want('node', [tunnel, route(2), fdb(2)])
  assert.equal(kernel.batches.length, 1)
})

test('what several owners want at once is created once', async () => {
  const kernel = new MapKernel([uplink])
  const { reconciler } = await started(kernel)
  await Promise.all(Array.from({ length: 20 }, (_, n) => reconciler.want(`pod ${n}`, [tunnel, fdb(n)])))
  const made = kernel.batches.flat().filter(({ object }) => keyOf(object) === keyOf(tunnel))
  assert.equal(made.length, 1)
})

test('links are created before the objects on them, whatever the order of what is wanted', async () => {
  const kernel = new MapKernel([uplink])
  const { reconciler, refusals } = await started(kernel)
  await reconciler.want('node', [route(2), fdb(2), tunnel])
  assert.deepEqual(refusals.at(-1), [])
})

test('objects of Weft that are not desired stay until the list is trusted, then are removed; other programs’ stay', async () => {
  const foreign = { ...route(9, 3), device: 'eth0' } as KernelObject
  const kernel = new MapKernel([uplink, tunnel, route(7), foreign])
  const { reconciler } = await started(kernel)
  await reconciler.want('node', [tunnel])
  assert.ok(kernel.objects.has(keyOf(route(7))))
  await reconciler.trust()
  assert.equal(kernel.objects.has(keyOf(route(7))), false)
  assert.ok(kernel.objects.has(keyOf(foreign)))
})

test('a route that another program deletes is restored, and the report names the program', async () => {
  const kernel = new MapKernel([uplink])
  const { reconciler, drifts } = await started(kernel)
  await reconciler.want('node', [tunnel, route(2)])
  kernel.change(undefined, keyOf(route(2)), { self: false, pid: 611, name: 'NetworkManager' })
  await until(() => drifts.length === 1, 'one repair')
  assert.ok(kernel.objects.has(keyOf(route(2))))
  assert.equal(drifts[0]?.by?.name, 'NetworkManager')
  assert.equal(drifts[0]?.what, 'removed')
  assert.equal(drifts[0]?.isRepeated, false)
})

test('repeated undoing by another program is reported as a fight', async () => {
  const kernel = new MapKernel([uplink])
  const { reconciler, drifts } = await started(kernel)
  await reconciler.want('node', [tunnel, route(2)])
  for (let round = 1; round <= 5; round++) {
    kernel.change(undefined, keyOf(route(2)), { self: false, pid: 611, name: 'bad' })
    await until(() => drifts.length === round, `repair ${round}`)
  }
  assert.equal(drifts.at(-1)?.isRepeated, true)
  assert.ok(drifts.slice(0, 3).every((report) => !report.isRepeated))
})

test('one refused object does not stop the others and is retried', async () => {
  const kernel = new MapKernel([uplink])
  kernel.refuses.set(keyOf(route(2)), 'no memory')
  const { reconciler, refusals } = await started(kernel)
  const outcomes = await reconciler.want('node', [tunnel, route(2), route(3)])
  assert.equal(outcomes.filter((outcome) => outcome.error !== undefined).length, 1)
  assert.ok(kernel.objects.has(keyOf(route(3))))
  await until(() => refusals.at(-1)?.length === 1, 'the refusal to be told, once it is more than a race')
  assert.match(refusals.at(-1)?.[0] ?? '', /route 10\.244\.2\.0\/24.*no memory/)
  kernel.refuses.clear()
  await until(() => kernel.objects.has(keyOf(route(2))), 'the second try')
  await until(() => refusals.at(-1)?.length === 0, 'no refusal left')
})

test('a refused object that is no longer desired is no refusal, also when its device changed in between', async () => {
  const kernel = new MapKernel([uplink])
  kernel.refuses.set(keyOf(route(2)), 'no memory')
  const { reconciler, refusals } = await started(kernel)
  await reconciler.want('node', [tunnel])
  await reconciler.want('peer', [route(2)])
  await until(() => refusals.at(-1)?.length === 1, 'the refusal')
  // A notification of a device resets the backoff of its objects; before the retry they are no longer desired.
  reconciler.onObserved(() => void reconciler.want('peer', []))
  kernel.recheck('the device changed')
  await until(() => refusals.at(-1)?.length === 0, 'no refusal left')
})

test('a refusal ends without a retry when another program has created the object, by a notification or a dump', async () => {
  for (const how of ['notification', 'dump'] as const) {
    const kernel = new MapKernel([uplink])
    kernel.refuses.set(keyOf(route(2)), 'no memory')
    const { reconciler, refusals } = await started(kernel)
    await reconciler.want('node', [tunnel, route(2)])
    await until(() => refusals.at(-1)?.length === 1, 'the refusal')
    if (how === 'notification') kernel.change(route(2), keyOf(route(2)), { self: false, pid: 2, name: 'ip' })
    else {
      kernel.objects.set(keyOf(route(2)), route(2))
      kernel.recheck('asked')
    }
    await until(() => refusals.at(-1)?.length === 0, `the end of the refusal by a ${how}`)
  }
})

test('dumps do not end a refusal that lasts: the condition does not flap', async () => {
  const kernel = new MapKernel([uplink])
  kernel.refuses.set(keyOf(route(2)), 'no memory')
  const { reconciler, refusals } = await started(kernel)
  await reconciler.want('node', [tunnel, route(2)])
  await until(() => refusals.at(-1)?.length === 1, 'the refusal')
  const before = refusals.length
  for (let round = 1; round <= 3; round++) {
    const tries = kernel.batches.length
    kernel.recheck('asked')
    await until(() => kernel.batches.length > tries, 'another try')
  }
  assert.ok(refusals.slice(before).every((errors) => errors.length === 1))
})

test('a device that was deleted before its notification arrived is a race, and no refusal', async () => {
  const kernel = new MapKernel([uplink])
  const { reconciler, refusals } = await started(kernel)
  await reconciler.want('node', [tunnel, route(2), fdb(2)])
  await new Promise((resolve) => setTimeout(resolve, 80))
  for (const object of [tunnel, route(2), fdb(2)]) kernel.objects.delete(keyOf(object))
  const tries = kernel.batches.length
  kernel.change(undefined, keyOf(route(2)))
  await until(() => kernel.batches.length > tries, 'the try that must fail')
  kernel.change(undefined, keyOf(tunnel))
  await until(
    () => difference(reconciler.desired, kernel.objects).every((change) => change.do === 'remove'),
    'the device and its objects'
  )
  assert.deepEqual(
    refusals.filter((errors) => errors.length > 0),
    []
  )
})

test('what another program adds again while we discard it is observed', async () => {
  const stray: KernelObject = { kind: 'address', device: 'eth0', prefix: prefix('10.244.9.1/24') }
  class Contested extends MapKernel {
    override async apply(changes: readonly Change[]) {
      const outcomes = await super.apply(changes)
      if (changes.some(({ object }) => keyOf(object) === keyOf(stray))) {
        this.change(stray, keyOf(stray), { self: false, pid: 2, name: 'ip' })
        for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve))
      }
      return outcomes
    }
  }
  const kernel = new Contested([uplink, stray])
  const { reconciler } = await started(kernel)
  await reconciler.discard([stray])
  await until(() => reconciler.observed.has(keyOf(stray)), 'the address to be seen')
})

test('a link that is incomplete while we create it is no other program’s change, whatever else waits for a retry', async () => {
  const kernel = new MapKernel([uplink])
  kernel.refuses.set(keyOf(route(2)), 'no memory')
  // However long this machine takes between two steps, to the reconciler it is 5 ms.
  let now = 0
  const { reconciler, drifts } = await started(kernel, () => now)
  await reconciler.want('node', [tunnel, route(2)])
  for (let n = 0, until = performance.now() + 400; performance.now() < until; n++) {
    const link: KernelObject = { kind: 'link', name: `pod${n}`, up: true, form: { type: 'bridge' } }
    await reconciler.want(`pod ${n}`, [link])
    now += 5
    kernel.change({ ...link, up: false }, keyOf(link))
    for (let turn = 0; turn < 4; turn++) await new Promise((resolve) => setTimeout(resolve, 1))
    kernel.change(link, keyOf(link))
  }
  assert.deepEqual(
    drifts.map(({ object, what }) => `${object} ${what}`),
    []
  )
})

test('a device that is deleted is created again with all its objects', async () => {
  const kernel = new MapKernel([uplink])
  const { reconciler } = await started(kernel)
  await reconciler.want('node', [tunnel, route(2), fdb(2), route(3), fdb(3)])
  await new Promise((resolve) => setTimeout(resolve, 80))
  kernel.change(undefined, keyOf(tunnel))
  await until(
    () => difference(reconciler.desired, kernel.objects).every((change) => change.do === 'remove'),
    'the device and its peers'
  )
})

test('a neighbour proxy waits for its bridge without an error, is created once that exists, and is removed when no longer desired', async () => {
  const kernel = new MapKernel([uplink])
  const { reconciler, drifts, refusals } = await started(kernel)
  const proxy: KernelObject = { kind: 'proxy', device: 'cni0', ip: ip('fd00::2'), protocol: ROUTE_PROTOCOL }
  assert.deepEqual(await reconciler.want('routed pod', [proxy]), [])
  const bridge: KernelObject = { kind: 'link', name: 'cni0', form: { type: 'bridge' }, up: true }
  await reconciler.want('pod on the bridge', [bridge])
  await until(() => kernel.objects.has(keyOf(proxy)), 'the proxy')
  kernel.change(undefined, keyOf(bridge))
  await until(() => kernel.objects.has(keyOf(proxy)), 'the proxy on the bridge that came back')
  assert.deepEqual(
    [drifts.filter(({ kind }) => kind === 'proxy'), refusals.flat(), reconciler.differences()],
    [[], [], []]
  )
  await reconciler.want('routed pod', [])
  assert.equal(kernel.objects.has(keyOf(proxy)), false)
})

test('an object that two owners want is removed with the last of them', async () => {
  const kernel = new MapKernel([uplink, tunnel])
  const { reconciler } = await started(kernel)
  await reconciler.want('a', [route(2)])
  await reconciler.want('b', [route(2)])
  await reconciler.want('a', [])
  assert.ok(kernel.objects.has(keyOf(route(2))))
  await reconciler.want('b', [])
  assert.equal(kernel.objects.has(keyOf(route(2))), false)
})

test('any sequence of wants and other programs’ changes ends with the kernel as desired and their objects untouched', async () => {
  const step = fc.oneof(
    fc.record({
      kind: fc.constant('want' as const),
      owner: fc.integer({ min: 0, max: 4 }),
      routes: fc.subarray([1, 2, 3, 4, 5])
    }),
    fc.record({ kind: fc.constant('delete' as const), n: fc.integer({ min: 1, max: 5 }) }),
    fc.record({ kind: fc.constant('foreign' as const), n: fc.integer({ min: 20, max: 22 }) }),
    fc.record({ kind: fc.constant('recheck' as const) })
  )
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 12 }), async (steps) => {
      const kernel = new MapKernel([uplink])
      const { reconciler } = await started(kernel)
      await reconciler.want('node', [tunnel])
      await reconciler.trust()
      const foreign = new Set<string>()
      const wishes: Promise<unknown>[] = []
      for (const move of steps) {
        if (move.kind === 'want')
          wishes.push(
            reconciler.want(
              `owner ${move.owner}`,
              move.routes.map((n) => route(n))
            )
          )
        else if (move.kind === 'delete')
          kernel.change(undefined, keyOf(route(move.n)), { self: false, pid: 2, name: 'ip' })
        else if (move.kind === 'recheck') kernel.recheck('asked')
        else {
          const object = { ...route(move.n, 3), device: 'eth0' } as KernelObject
          foreign.add(keyOf(object))
          kernel.change(object, keyOf(object), { self: false, pid: 2, name: 'ip' })
        }
      }
      await Promise.all(wishes)
      const wrong = () =>
        difference(reconciler.desired, kernel.objects).filter(
          (change) => change.do === 'put' || mayRemove(change.object, backends.recognises)
        )
      const deadline = performance.now() + 3_000
      while (wrong().length > 0 && performance.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 2))
      assert.deepEqual(
        wrong().map((change) => `${change.do} ${textOf(change.object)}`),
        [],
        stateText(kernel.objects)
      )
      for (const key of foreign)
        assert.ok(
          [...kernel.objects.keys()].some((present) => present === key),
          `${key} is gone`
        )
    }),
    { numRuns: 30 }
  )
})
