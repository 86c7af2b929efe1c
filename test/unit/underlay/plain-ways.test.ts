// When a plain route is tried, taken and left: by what probes say of it.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BACKENDS, registry } from '../../../daemon/backend/registry.ts'
import { RouteLookups } from '../../../daemon/peers/route-lookups.ts'
import { put } from '../../../daemon/state/difference.ts'
import { type KernelObject, type Route, stateOf } from '../../../daemon/state/object.ts'
import { textOf } from '../../../daemon/state/text.ts'
import type { Verdict } from '../../../daemon/underlay/judge.ts'
import { PlainWays } from '../../../daemon/underlay/plain-ways.ts'
import type { Way } from '../../../daemon/underlay/probe-packet.ts'
import { ProbeViews } from '../../../daemon/underlay/probe-views.ts'
import { parseIp } from '../../../ipam/address.ts'
import { silent } from '../logs.ts'
import { testNode } from '../test-node.ts'
import { keyOf, leaseOf } from './probe-network.ts'

/** This node and node 2, which is on its link. */
async function scene(keys = {}, filters: Readonly<Record<string, string>> = {}) {
  const key = keyOf(2)
  const leases = new Map([[key, leaseOf(2)]])
  const backend = registry(BACKENDS).configure('vxlan', keys)
  const routes = new RouteLookups({
    kernel: { routesTo: async (ips) => ips.map(() => ({ device: 'eth0' })) },
    observed: () => stateOf([]),
    log: silent
  })
  await routes.ask(Object.values(leaseOf(2).publicIp))
  const wanted = new Map<string, readonly KernelObject[]>()
  const verdicts: Record<Way, Verdict> = { pods: 'whole', nodes: 'whole', plain: 'not-asked' }
  const at = {
    now: 0,
    isHeardWhole: false,
    isTried: false,
    refusesHere: false,
    refusesThere: false,
    refusesRoutes: false
  }
  const peerRoute = () =>
    backend
      .peer(leaseOf(2), testNode(), routes.of(leaseOf(2).publicIp))
      .find((each): each is Route => each.kind === 'route')
  const plain = new PlainWays({
    ...{ place: () => ({ node: testNode(), backend }), log: silent, now: () => at.now },
    plainDrop: () => (at.refusesHere ? 'a rule' : undefined),
    sysctl: (path) => filters[/^net\/ipv4\/conf\/(\w+)\/rp_filter$/.exec(path)?.[1] ?? ''],
    reconciler: {
      wantAll: async (entries) => {
        const all = [...entries]
        for (const [owner, objects] of all) wanted.set(owner, objects)
        if (!at.refusesRoutes) return []
        return all.flatMap(([, objects]) =>
          objects.map((object) => ({ change: put(object), error: new Error('EINVAL') }))
        )
      }
    },
    peers: { leases, routes, reroute: async () => undefined },
    prober: {
      look: (_key, _family, way) => ({
        judgement: { verdict: verdicts[way], out: undefined, back: undefined },
        ...{ sinceMsAgo: 0, isNew: false, isHeard: true, isHeardWhole: at.isHeardWhole, dropsHere: false }
      }),
      routeTo: peerRoute,
      refused: () => (at.refusesThere ? [key] : []),
      forEach: (callback) => callback(key, 4, 'pods', verdicts.pods),
      tryPlain: (_key, isTried) => {
        at.isTried = isTried
      }
    }
  })
  const trial = () => (wanted.get(`trial ${key}`) ?? []).map(textOf)
  return { plain, at, verdicts, trial, device: () => peerRoute()?.device, key, leases }
}

test('a plain route is taken when probes pass on it and the peer’s are heard, and left when it carries nothing', async () => {
  const { plain, at, verdicts, trial, device, key } = await scene()
  await plain.step()
  assert.deepEqual(trial(), ['route 10.64.2.0/32 via 192.0.0.2 dev eth0 tos 0xc proto 87'])
  assert.deepEqual([at.isTried, device()], [true, 'weft.1'])
  verdicts.plain = 'whole'
  await plain.step()
  assert.equal(device(), 'weft.1', 'the other direction is not proven')
  at.isHeardWhole = true
  await plain.step()
  assert.deepEqual([trial(), at.isTried, device()], [[], false, 'eth0'])

  Object.assign(verdicts, { pods: 'lost', nodes: 'lost', plain: 'not-asked' })
  await plain.step()
  assert.equal(device(), 'eth0', 'the node is away, whatever the route')
  verdicts.nodes = 'whole'
  at.now = 5_000
  await plain.step()
  assert.deepEqual([device(), plain.unused(key), trial()], ['weft.1', { why: 'left', msAgo: 0 }, []])
  verdicts.pods = 'whole'
  at.now += 31_000
  await plain.step()
  assert.equal(trial().length, 1)
  verdicts.plain = 'whole'
  await plain.step()
  assert.deepEqual([device(), plain.unused(key)], ['eth0', undefined])
})

test('a trial that fails is repeated after a while, sooner when the peer tries, but not at once', async () => {
  const { plain, at, verdicts, trial, key } = await scene()
  await plain.step()
  verdicts.plain = 'lost'
  await plain.step()
  assert.deepEqual([trial(), at.isTried], [[], false])
  at.now = 20_000
  assert.deepEqual(plain.unused(key), { why: 'lost', msAgo: 20_000 })
  plain.nominate(key)
  await plain.step()
  assert.deepEqual(trial(), [])
  at.now = 40_000
  plain.nominate(key)
  await plain.step()
  assert.equal(trial().length, 1)
})

test('a trial whose route the kernel refuses is none: its probes would take the tunnel', async () => {
  const { plain, at, verdicts, device } = await scene()
  Object.assign(at, { refusesRoutes: true, isHeardWhole: true })
  verdicts.plain = 'whole'
  for (let step = 0; step < 3; step++) await plain.step()
  assert.deepEqual([at.isTried, device()], [false, 'weft.1'])
})

for (const side of ['refusesHere', 'refusesThere'] as const)
  test(`no plain route is tried, kept or taken while a firewall drops forwarded packets of pods: ${side}`, async () => {
    const { plain, at, verdicts, trial, device, key } = await scene()
    at[side] = true
    await plain.step()
    plain.nominate(key)
    await plain.step()
    assert.deepEqual(trial(), [])
    assert.equal(plain.unused(key)?.why, side === 'refusesHere' ? 'refused-here' : 'refused-there')
    at[side] = false
    await plain.step()
    assert.equal(trial().length, 1)
    Object.assign(at, { isHeardWhole: true, [side]: true })
    verdicts.plain = 'whole'
    await plain.step()
    assert.deepEqual([device(), trial()], ['weft.1', []], 'the firewall drops since the trial began')
    at[side] = false
    at.now += 31_000
    await plain.step()
    await plain.step()
    assert.equal(device(), 'eth0')
    at[side] = true
    await plain.step()
    assert.equal(device(), 'weft.1')
    at[side] = false
    await plain.step()
    await plain.step()
    assert.equal(device(), 'eth0')
  })

test('a plain route that an administrator asks for stays whatever the firewall drops', async () => {
  const { plain, at, device } = await scene({ DirectRouting: true })
  at.refusesHere = true
  await plain.step()
  assert.equal(device(), 'eth0')
})

test('a plain route that passes trials and fails in use again and again is taken less and less often', async () => {
  const { plain, at, verdicts, device, trial } = await scene({ DirectRouting: true })
  at.isHeardWhole = true
  const rests: number[] = []
  for (let times = 0; times < 7; times++) {
    Object.assign(verdicts, { pods: 'lost', plain: 'not-asked' })
    await plain.step()
    assert.equal(device(), 'weft.1')
    verdicts.pods = 'whole'
    const left = at.now
    while (trial().length === 0) {
      at.now += 10_000
      await plain.step()
    }
    rests.push((at.now - left) / 1_000)
    verdicts.plain = 'whole'
    await plain.step()
    assert.equal(device(), 'eth0')
  }
  assert.deepEqual(rests, [30, 60, 120, 240, 480, 600, 600])
  // Half an hour without a failure.
  at.now += 1_800_000
  Object.assign(verdicts, { pods: 'lost', plain: 'not-asked' })
  await plain.step()
  at.now += 31_000
  await plain.step()
  assert.equal(trial().length, 1)
})

test('the route of a trial goes with the lease', async () => {
  const { plain, trial, leases, at } = await scene()
  await plain.step()
  leases.clear()
  await plain.step()
  assert.deepEqual([trial(), at.isTried], [[], false])
})

test('nothing is tried with DirectRouting false, with true while all is well, and behind a strict filter', async () => {
  for (const keys of [{ DirectRouting: false }, { DirectRouting: true }]) {
    const { plain, trial } = await scene(keys)
    await plain.step()
    assert.deepEqual(trial(), [])
  }
  const strict = await scene({}, { all: '0', eth0: '1' })
  await strict.plain.step()
  assert.deepEqual(strict.trial(), [])
  const loose = await scene({}, { all: '2', eth0: '1' })
  await loose.plain.step()
  assert.equal(loose.trial().length, 1)
})

test('behind a strict filter no peer begins a trial here, and a plain route is left only if its node answers', async () => {
  const strict = { all: '0', eth0: '1' }
  const unset = await scene({}, strict)
  await unset.plain.step()
  unset.plain.nominate(unset.key)
  await unset.plain.step()
  assert.deepEqual(unset.trial(), [])

  const filters: Record<string, string> = { all: '0', eth0: '0' }
  const later = await scene({}, filters)
  await later.plain.step()
  assert.equal(later.trial().length, 1)
  later.verdicts.plain = 'whole'
  later.at.isHeardWhole = true
  filters.all = '1'
  await later.plain.step()
  assert.deepEqual([later.trial(), later.at.isTried, later.device()], [[], false, 'weft.1'])

  const { plain, verdicts, device } = await scene({ DirectRouting: true }, strict)
  // A node that restarts where ICMP between node addresses is dropped.
  Object.assign(verdicts, { pods: 'lost', nodes: 'not-asked' })
  await plain.step()
  assert.equal(device(), 'eth0')
  verdicts.nodes = 'whole'
  await plain.step()
  assert.equal(device(), 'weft.1')
  assert.deepEqual(plain.unused(keyOf(2)), { why: 'left-strict', msAgo: 0 })
})

test('of a plain route by IPv6, which no probe can try, the reason and an action are said', async () => {
  const v6 = (text: string) => parseIp(text) ?? assert.fail(text)
  const lease = {
    ...leaseOf(2),
    subnet: { 6: { ip: v6('fd00:2::'), length: 64 } },
    publicIp: { 6: v6('2001:db8::2') },
    backendData: { 6: { VNI: 1, VtepMAC: '0e:00:00:00:00:01' } }
  }
  const own = { ip: v6('fd00:1::'), length: 64 }
  const node = testNode({ subnet: { 6: own }, localIp: { 6: v6('2001:db8::1') }, publicIp: { 6: v6('2001:db8::1') } })
  for (const [keys, onLink, isSaid] of [
    [{}, true, true],
    [{}, false, false],
    [{ DirectRouting: true }, true, false],
    [{ DirectRouting: false }, true, false]
  ] as const) {
    const backend = registry(BACKENDS).configure('vxlan', keys)
    const gateway = v6('2001:db8::ff')
    const routes = new RouteLookups({
      kernel: { routesTo: async (ips) => ips.map(() => ({ device: 'eth0', ...(!onLink && { gateway }) })) },
      observed: () => stateOf([]),
      log: silent
    })
    await routes.ask([lease.publicIp[6]])
    const leases = new Map([['peer', lease]])
    const routeTo = () =>
      backend.peer(lease, node, routes.of(lease.publicIp)).find((each): each is Route => each.kind === 'route')
    const place = () => ({ node, backend, mtu: 1430 })
    const prober = { look: () => undefined, routeTo, refused: () => [], forEach() {}, tryPlain() {} }
    const plain = new PlainWays({
      ...{ place, prober, log: silent, now: () => 0, plainDrop: () => undefined, sysctl: () => '0' },
      reconciler: { wantAll: async () => [] },
      peers: { leases, routes, reroute: async () => undefined }
    })
    await plain.step()
    const views = new ProbeViews({
      prober: { ...prober, lookAt: () => assert.fail('no slot'), slotsOf: () => new Map() },
      peers: { leases, isOwn: () => false, skipped: new Map(), since: () => 0 },
      place,
      plainUnused: (key, family) => plain.unused(key, family),
      now: () => 0
    })
    const said = views.of('peer', lease).find(({ way }) => way === 'plain')
    assert.equal(said !== undefined, isSaid, JSON.stringify([keys, onLink]))
    if (said === undefined) continue
    assert.deepEqual([said.family, said.verdict], [6, 'not-asked'])
    assert.match(said.text, /^the plain route by eth0 to node-2 \(2001:db8::2\) is not tried: IPv6 has no routes /)
    assert.match(said.cure ?? '', /^set DirectRouting to true /)
  }
})
