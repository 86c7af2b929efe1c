// The host's routing as the kernel answers: which nodes are asked about after which change, and what is said of routes
// that the kernel does not use.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BACKENDS, registry } from '../../../daemon/backend/registry.ts'
import { Health } from '../../../daemon/health/health.ts'
import { type Lease, leaseKey } from '../../../daemon/lease/lease.ts'
import type { PolicyRule, RoutingChange } from '../../../daemon/state/kernel.ts'
import { type KernelObject, type Link, type Route, stateOf } from '../../../daemon/state/object.ts'
import { RouteWatch } from '../../../daemon/underlay/route-watch.ts'
import { ShadowedRoutes } from '../../../daemon/underlay/shadowed-routes.ts'
import { formatIp, type Ip, parseIp, parsePrefix } from '../../../ipam/address.ts'
import { silent } from '../logs.ts'
import { testNode } from '../test-node.ts'

const backends = registry(BACKENDS)
const ip = (text: string) => parseIp(text) ?? assert.fail(text)
const prefix = (text: string) => parsePrefix(text) ?? assert.fail(text)
const lease = (n: number): Lease => ({
  subnet: { 4: prefix(`10.244.${n}.0/24`) },
  publicIp: { 4: ip(`192.0.2.${n}`) },
  ...{ backendType: 'vxlan', backendData: {}, node: `n${n}` }
})
const route = (n: number, over: Partial<Route> = {}): Route => ({
  ...({ kind: 'route', table: 254, metric: 0, type: 'unicast', device: 'weft.1', protocol: 87, onlink: true } as const),
  ...{ destination: prefix(`10.244.${n}.0/24`), gateway: ip(`10.244.${n}.0`) },
  ...over
})
const eth0: Link = { kind: 'link', name: 'eth0', up: true }
const family = {
  network: prefix('10.244.0.0/16'),
  subnetLength: 24,
  subnetMin: ip('10.244.0.0'),
  subnetMax: ip('10.244.255.0')
}
const conf = { families: { 4: family as never }, backendType: 'vxlan', backend: {} }

function scene(numbers: readonly number[], directRouting = false) {
  const leases = new Map(numbers.map(lease).map((each) => [leaseKey(each), each]))
  const place = () => ({ node: testNode(), backend: backends.configure('vxlan', { directRouting }), conf })
  const observed = stateOf([eth0, ...numbers.map((n) => route(n))])
  const health = new Health(
    () => 0,
    () => undefined
  )
  const rerouted: string[][] = []
  const used = new Map<string, Route | undefined>()
  const asked: string[] = []
  const rules: PolicyRule[] = []
  const says = { routing: (_: RoutingChange) => {}, observed: (_: readonly KernelObject[] | 'everything') => {} }
  const usedRoutes = async (ips: readonly Ip[], from?: { readonly device: string; readonly source: Ip }) =>
    ips.map((each) => {
      const text = formatIp(each)
      asked.push(`${text}${from ? ` from ${formatIp(from.source)} iif ${from.device}` : ''}`)
      return used.has(text) ? used.get(text) : route(Number(text.split('.')[2]))
    })
  const shadowed = new ShadowedRoutes({
    ...{ kernel: { usedRoutes, rules: async () => rules }, bridge: 'cni0', health, log: silent, place },
    peers: { leases },
    reconciler: { observed, wantedBy: (owner) => [route(Number(owner.split('.')[2]))] }
  })
  const watch = new RouteWatch({
    ...{ place, now: () => 0, shadowed },
    kernel: {
      onRouting: (listener) => {
        says.routing = listener
      }
    },
    reconciler: {
      onObserved: (listener) => {
        says.observed = listener
      }
    },
    peers: {
      leases,
      isOwn: (key) => key === '10.244.1.0-24',
      reroute: async (keys) => void rerouted.push(keys.map((key) => key.split('.')[2] ?? ''))
    }
  })
  const condition = () => health.active().find(({ code }) => code === 'ROUTE_SHADOWED')
  const changed = async (change: RoutingChange) => {
    says.routing(change)
    await watch.look()
    return rerouted.splice(0).flat()
  }
  return { watch, says, rerouted, used, asked, rules, observed, shadowed, condition, changed, leases }
}

test('at first all nodes are asked about, then those that a change concerns, and otherwise a share', async () => {
  const { watch, changed, rerouted, says } = scene([1, 2, 3], true)
  await watch.look()
  assert.deepEqual(rerouted.splice(0), [['2', '3']])
  assert.deepEqual(await changed({ destination: prefix('192.0.2.3/32') }), ['3'])
  assert.deepEqual(await changed({ destination: prefix('10.244.2.128/25') }), ['2'])
  assert.deepEqual(await changed({ destination: prefix('0.0.0.0/0') }), ['2', '3'])
  assert.deepEqual(await changed({ destination: prefix('203.0.113.0/24') }), [])
  assert.deepEqual(await changed({}), ['2', '3'], 'a policy rule')
  says.observed([eth0])
  await watch.look()
  says.observed([{ ...eth0, name: 'veth0' }, route(1), route(3)])
  await watch.look()
  assert.deepEqual(rerouted.splice(0), [['2', '3'], ['3']], 'our link, and routes to others that have just been made')
  says.routing({ destination: prefix('fe80::/64') })
  await watch.look()
  assert.deepEqual(rerouted.splice(0), [['2', '3']], 'without a change that matters the next share')
})

test('where the tunnel is used for all, routes to the nodes themselves are of no interest', async () => {
  const { watch, says, changed, rerouted } = scene([1, 2, 3])
  await watch.look()
  rerouted.splice(0)
  says.routing({ destination: prefix('192.0.2.2/32') })
  assert.deepEqual(await changed({ destination: prefix('10.244.3.0/24') }), ['3'])
})

test('a host whose routes change by the thousand is asked about all nodes once', async () => {
  const { watch, says, rerouted } = scene([1, 2, 3], true)
  await watch.look()
  rerouted.splice(0)
  for (let n = 0; n < 5_000; n++) says.routing({ destination: prefix(`100.64.${n & 255}.${n >> 8}/32`) })
  await watch.look()
  assert.deepEqual(rerouted, [['2', '3']])
})

test('a rule and table before main are named with the route, and a way out is given', async () => {
  const { watch, used, rules, shadowed, condition, changed, asked } = scene([1, 2, 3])
  await watch.look()
  assert.deepEqual(asked.splice(0), ['10.244.2.2', '10.244.3.2'])
  assert.equal(condition(), undefined)
  rules.push({ priority: 5270, table: 52, text: '5270: from all lookup 52' })
  used.set('10.244.2.2', {
    ...route(2),
    device: 'eth0',
    gateway: ip('192.0.2.254'),
    table: 52,
    protocol: 3,
    onlink: false
  })
  await changed({})
  assert.equal(
    condition()?.detail,
    'n2: packets to 10.244.2.0/24 take "route 10.244.2.0/24 via 192.0.2.254 dev eth0 table 52 proto 3" (rule 5270: from all lookup 52) instead of weftd\'s route'
  )
  assert.equal(
    condition()?.cure,
    'run: ip rule add to 10.244.0.0/16 lookup main pref 5269; or remove that route: ip route del 10.244.2.0/24 table 52 proto 3 via 192.0.2.254 dev eth0'
  )
  assert.match(shadowed.of('10.244.2.0-24') ?? '', /table 52/)
  assert.equal(shadowed.of('10.244.3.0-24'), undefined)
  used.set('10.244.3.2', undefined)
  await changed({})
  assert.match(condition()?.detail ?? '', /and to 1 more node\)$/)
  assert.match(shadowed.of('10.244.3.0-24') ?? '', /does not send packets to 10\.244\.3\.0\/24/)
  used.clear()
  await changed({})
  assert.equal(condition(), undefined)
})

test('the kernel is asked as for a pod’s packet once there is a bridge; a missing route is not asked about', async () => {
  const { watch, observed, asked } = scene([1, 2, 3])
  const bridge: Link = { kind: 'link', name: 'cni0', up: true }
  for (const [key, object] of stateOf([bridge])) observed.set(key, object)
  for (const key of stateOf([route(3)]).keys()) observed.delete(key)
  await watch.look()
  assert.deepEqual(asked, ['10.244.2.2 from 10.244.1.2 iif cni0'])
})

test('a more specific route of another program within a subnet is found', async () => {
  const { observed, used, condition, changed } = scene([1, 2, 3])
  const specific = route(3, { destination: prefix('10.244.3.128/25'), protocol: 4, device: 'eth1' })
  for (const [key, object] of stateOf([specific])) observed.set(key, object)
  used.set('10.244.3.128', specific)
  await changed({ destination: specific.destination })
  assert.match(
    condition()?.detail ?? '',
    /^n3: packets to 10\.244\.3\.0\/24 take "route 10\.244\.3\.128\/25 .* proto 4 onlink"/
  )
  // `ip route show 10.244.3.0/24` would have shown weftd's own route only.
  const cure = 'run: ip route del 10.244.3.128/25 proto 4 via 10.244.3.0 dev eth1; if it comes back, end what adds it'
  assert.equal(condition()?.cure, cure)
})

test('the cure names the route as the kernel has it, and never removes one that other packets need', async () => {
  const { used, rules, condition, changed } = scene([1, 2])
  const { gateway: _, device: __, ...without } = route(2, { protocol: 3, onlink: false })
  const cureFor = async (over: Partial<Route>) => {
    used.set('10.244.2.2', { ...without, ...over })
    await changed({})
    return condition()?.cure
  }
  assert.match(
    (await cureFor({ metric: 5, device: 'eth0' })) ?? '',
    /^run: ip route del 10\.244\.2\.0\/24 proto 3 metric 5 dev eth0;/
  )
  const several = { nextHops: [{ gateway: ip('192.0.2.8') }, { device: 'eth1' }] }
  assert.match((await cureFor(several)) ?? '', / proto 3 nexthop via 192\.0\.2\.8 nexthop dev eth1;/)
  assert.match((await cureFor({ ...several, nextHopId: 7 })) ?? '', / proto 3 nhid 7;/)
  const local = { type: 'local', table: 255, device: 'eth0', destination: prefix('10.244.2.2/32') } as const
  rules.push({ priority: 0, table: 255, text: '0: from all lookup local' })
  assert.match((await cureFor(local)) ?? '', /^remove the address 10\.244\.2\.2 from eth0;/)
  rules.push({ priority: 5270, table: 52, text: '5270: from all lookup 52' })
  const vpn = await cureFor({ table: 52, device: 'tun0', destination: prefix('0.0.0.0/0') })
  assert.equal(vpn, 'run: ip rule add to 10.244.0.0/16 lookup main pref 5269')
})

test('so are rules that take packets to the pods of this node', async () => {
  const { observed, used, condition, watch } = scene([1, 2])
  const own = route(1, { device: 'cni0', protocol: 2 })
  for (const [key, object] of stateOf([own])) observed.set(key, object)
  used.set('10.244.1.2', own)
  await watch.look()
  assert.equal(condition(), undefined)
  used.set('10.244.1.2', { ...own, table: 52 })
  await watch.look()
  assert.match(condition()?.detail ?? '', /^this node: packets to 10\.244\.1\.0\/24 take .* table 52/)
})

test('a node that is gone is no longer reported', async () => {
  const { watch, used, leases, condition, changed } = scene([1, 2, 3])
  used.set('10.244.2.2', undefined)
  await watch.look()
  assert.match(condition()?.detail ?? '', /^n2:/)
  leases.delete('10.244.2.0-24')
  await changed({})
  assert.equal(condition(), undefined)
})
