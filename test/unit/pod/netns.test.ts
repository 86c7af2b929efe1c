// Routes inside a container whose places other interfaces' routes have: where they go, and where CHECK looks for them.
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { applyInside, withActualMetric, withAnyMetric } from '../../../daemon/pod/netns.ts'
import type { Change } from '../../../daemon/state/difference.ts'
import type { Outcome, Sandbox } from '../../../daemon/state/kernel.ts'
import { type KernelObject, keyOf, type Route, stateOf } from '../../../daemon/state/object.ts'
import { textOf } from '../../../daemon/state/text.ts'
import { parsePrefix } from '../../../ipam/address.ts'

const route = (destination: string, device: string, more: Partial<Route> = {}): Route => ({
  ...{ kind: 'route', table: 254, metric: 0, type: 'unicast', protocol: 3, device },
  destination: parsePrefix(destination) ?? assert.fail(destination),
  ...more
})
const ours = (destination: string) => route(destination, 'eth1', { yields: true })

/** A namespace that has these objects and makes routes as the kernel does. */
class Namespace implements Sandbox {
  readonly objects: Map<string, KernelObject>
  reads = 0

  constructor(...objects: readonly KernelObject[]) {
    this.objects = stateOf(objects)
  }
  async read() {
    this.reads++
    return stateOf(this.objects.values())
  }
  async bring() {
    return undefined
  }
  async apply(changes: readonly Change[]): Promise<readonly Outcome[]> {
    return changes.map((change) => {
      if (this.objects.has(keyOf(change.object)))
        return { change, error: Object.assign(new Error('File exists'), { errnoName: 'EEXIST' }) }
      this.objects.set(keyOf(change.object), change.object)
      return { change }
    })
  }
  [Symbol.dispose]() {}
}

describe('a route whose place is taken', () => {
  it('goes behind those that are there, and they stay', async () => {
    const there = new Namespace(route('0.0.0.0/0', 'eth0'), route('0.0.0.0/0', 'net1', { metric: 1 }))
    const outcomes = await applyInside(there, [ours('10.9.0.0/16'), ours('0.0.0.0/0')])
    assert.deepEqual(
      outcomes.map(({ change, error }) => [textOf(change.object), error]),
      [
        ['route 10.9.0.0/16 dev eth1 proto 3', undefined],
        ['route default dev eth1 proto 3 metric 2', undefined]
      ]
    )
    assert.equal((there.objects.get('route 254 0.0.0.0/0 metric 0') as Route).device, 'eth0')
  })

  it('twice among one interface’s own stands twice', async () => {
    const there = new Namespace()
    await applyInside(there, [ours('10.9.0.0/16'), ours('10.9.0.0/16'), ours('10.9.0.0/16')])
    assert.equal(there.objects.size, 3)
  })

  it('costs nothing when none is taken, and any other error stays an error', async () => {
    const there = new Namespace(route('10.8.0.0/16', 'eth0'))
    await applyInside(there, [ours('10.9.0.0/16')])
    assert.equal(there.reads, 0)
    const [outcome] = await applyInside(there, [route('10.8.0.0/16', 'eth1')])
    assert.equal(outcome?.error?.message, 'File exists')
  })

  it('is looked for where it stands', () => {
    const observed = stateOf([route('10.9.0.0/16', 'eth0'), route('10.9.0.0/16', 'eth1', { metric: 1 })])
    assert.equal(withActualMetric(ours('10.9.0.0/16'), observed).metric, 1)
    assert.equal(withActualMetric(ours('10.8.0.0/16'), observed).metric, 0)
    assert.equal(withActualMetric(ours('10.9.0.0/16'), stateOf([route('10.9.0.0/16', 'eth0')])).metric, 0)
  })

  it('stays where it is when the first is gone, and where any will do another one is found', () => {
    const alone = stateOf([route('10.9.0.0/16', 'eth1', { metric: 1 }), route('0.0.0.0/0', 'eth2', { metric: 7 })])
    assert.equal(withActualMetric(ours('10.9.0.0/16'), alone).metric, 1)
    assert.equal(withActualMetric(ours('0.0.0.0/0'), alone).metric, 0)
    assert.equal(withAnyMetric(ours('0.0.0.0/0'), alone).metric, 7)
    assert.equal(withAnyMetric(ours('::/0'), alone).metric, 0)
  })
})
