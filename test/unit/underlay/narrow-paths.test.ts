// A path that carries less than pods send: the size is found, the routes' MTU lowered, kept over a restart, and raised
// once packets of full size have passed for a while.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { withMtus } from '../../../daemon/peers/peer-objects.ts'
import { leaseOwnerOf } from '../../../daemon/peers/peers.ts'
import { type KernelObject, keyOf as keyOfObject, type Route, stateOf } from '../../../daemon/state/object.ts'
import type { Verdict } from '../../../daemon/underlay/judge.ts'
import { NarrowPaths } from '../../../daemon/underlay/narrow-paths.ts'
import { PathSizes, sizesBelow } from '../../../daemon/underlay/path-sizes.ts'
import type { PerFamily } from '../../../ipam/address.ts'
import { silent } from '../logs.ts'
import { keyOf, leaseOf, type Packet, ProbeNetwork } from './probe-network.ts'

const isNarrow = ({ from, size }: Packet) => from.startsWith('10.') && size > 1_355

test('the largest size that passes is found by probes that change no verdict, and again when the path changes', () => {
  const network = new ProbeNetwork(3)
  network.step(10_000)
  network.carries = (packet) => !(packet.nodes.includes(2) && isNarrow(packet))
  network.step(25_000)
  const one = network.node(1)
  assert.deepEqual([one.verdict(2), one.verdict(3), network.node(3).verdict(2)], ['large-lost', 'whole', 'large-lost'])
  assert.deepEqual([one.prober?.carried(keyOf(2), 4), one.prober?.carried(keyOf(3), 4)], [1_350, undefined])
  const { sent } = network
  network.step(30_000)
  assert.ok(network.sent - sent < 400, `${network.sent - sent} packets in 30 s`)
  network.carries = (packet) => !(packet.nodes.includes(2) && packet.from.startsWith('10.') && packet.size > 1_300)
  network.step(70_000)
  assert.equal(one.prober?.carried(keyOf(2), 4), 1_300)
  network.carries = () => true
  network.step(10_000)
  assert.equal(one.verdict(2), 'whole')
})

test('sizes: below the MTU, never below what a link must carry; a window has three tries', () => {
  assert.deepEqual(
    sizesBelow(1_300, 6).filter((size) => size < 1_280 || size >= 1_300),
    []
  )
  assert.ok(sizesBelow(8_950, 4).includes(1_450))
  const sizes = new PathSizes()
  assert.deepEqual([sizes.answered(1, 1_400), sizes.of(1)], [false, undefined])
  assert.deepEqual(
    [10, 20, 30, 40].map((now) => sizes.isDue(1, now)),
    [true, true, true, false]
  )
  assert.deepEqual([sizes.answered(1, 1_350), sizes.answered(1, 1_300), sizes.of(1)], [true, false, 1_350])
  assert.equal(sizes.isDue(1, 700), true)
  assert.equal(sizes.of(1), 1_350)
  sizes.answered(1, 1_300)
  assert.equal(sizes.of(1), 1_300)
  assert.deepEqual(
    [10, 20, 30, 100, 160].map((now) => sizes.isDue(2, now)),
    [true, true, true, false, true],
    'sooner where no size is known'
  )
})

function scene(before: PerFamily<number> = {}) {
  const state = { verdict: 'whole' as Verdict, ms: 1_000, carried: undefined as number | undefined }
  const leases = new Map([2, 3].map((n) => [keyOf(n), leaseOf(n)] as const))
  const routes = (key: string, mtus: PerFamily<number> = {}): readonly KernelObject[] => {
    const destination = leases.get(key)?.subnet[4]
    const route = { kind: 'route', table: 254, metric: 0, type: 'unicast', device: 'weft.1', protocol: 87 } as const
    return destination === undefined ? [] : withMtus([{ ...route, destination }], mtus)
  }
  const observed = stateOf([...routes(keyOf(2), before), ...routes(keyOf(3))])
  const peers = {
    leases,
    isListed: true,
    mtusOf: (_key: string): PerFamily<number> => ({}),
    // As the reconciler: what a route does not ask for stays.
    async wantAgain(keys: readonly string[]) {
      for (const object of keys.flatMap((key) => routes(key, peers.mtusOf(key))))
        observed.set(keyOfObject(object), { ...observed.get(keyOfObject(object)), ...object } as KernelObject)
    }
  }
  const paths = new NarrowPaths({
    prober: {
      forEach: (callback) => callback(keyOf(2), 4, 'pods', state.verdict),
      look: () => ({
        judgement: { verdict: state.verdict, out: undefined, back: undefined },
        ...{ sinceMsAgo: state.ms, isNew: false, isHeard: true, isHeardWhole: false, dropsHere: false }
      }),
      carried: () => state.carried
    },
    reconciler: {
      observed,
      wantedBy: (owner) => routes([...leases.keys()].find((k) => leaseOwnerOf(k) === owner) ?? '')
    },
    ...{ peers, place: () => ({ mtu: 1_450 }), log: silent }
  })
  const mtus = () => [...observed.values()].map((object) => (object as Route).mtu)
  const step = async (next: Partial<typeof state>) => {
    Object.assign(state, next)
    paths.touch()
    return [await paths.step(), ...mtus()]
  }
  return { step, paths, leases }
}

test('the route is lowered to what passes and told, and raised after a minute of full-size packets', async () => {
  const { step, paths, leases } = scene()
  assert.deepEqual(await step({}), [false, undefined, undefined])
  assert.deepEqual(await step({ verdict: 'large-lost' }), [false, undefined, undefined])
  assert.deepEqual(await step({ carried: 1_350 }), [true, 1_350, undefined])
  assert.match(paths.action ?? '', /^weftd has lowered the MTU of the route to the pods of node-2 to 1350$/)
  assert.deepEqual(await step({ carried: 1_300 }), [true, 1_300, undefined])
  assert.deepEqual(await step({ verdict: 'lost' }), [false, 1_300, undefined])
  assert.deepEqual(await step({ verdict: 'whole', ms: 59_000 }), [false, 1_300, undefined])
  assert.deepEqual(await step({ ms: 60_000 }), [true, 1_450, undefined])
  assert.deepEqual([await paths.step(), paths.action], [false, undefined])
  await step({ verdict: 'large-lost', carried: 1_350 })
  leases.delete(keyOf(2))
  assert.deepEqual([(await step({}))[0], paths.action], [false, undefined])
})

test('after a restart a route that weftd had lowered stays so until full-size packets pass', async () => {
  const { step, paths } = scene({ 4: 1_350 })
  assert.deepEqual(await step({ ms: 1_000 }), [false, 1_350, undefined])
  assert.match(paths.action ?? '', /node-2 to 1350/)
  assert.deepEqual(await step({ ms: 60_000 }), [true, 1_450, undefined])
  assert.equal(paths.action, undefined)
})
