// Path MTUs below what pods send: which node is named, how long a finding is kept, and how many nodes are checked at a
// time.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BACKENDS, registry } from '../../../daemon/backend/registry.ts'
import { Health } from '../../../daemon/health/health.ts'
import { type Lease, leaseKey } from '../../../daemon/lease/lease.ts'
import { PathMtu } from '../../../daemon/underlay/path-mtu.ts'
import { formatIp, type Ip, parseIp, parsePrefix } from '../../../ipam/address.ts'
import { silent } from '../logs.ts'
import { testNode } from '../test-node.ts'

const backends = registry(BACKENDS)
const ip = (text: string) => parseIp(text) ?? assert.fail(text)
const lease = (n: number): Lease => ({
  subnet: { 4: parsePrefix(`10.${n >> 8}.${n & 255}.0/24`) ?? assert.fail() },
  publicIp: { 4: ip(`192.0.${n >> 8}.${n & 255}`) },
  backendType: 'vxlan',
  backendData: {},
  node: `n${n}`
})

function scene(leases: readonly Lease[], mtu = 0) {
  const health = new Health(
    () => 0,
    () => undefined
  )
  const known = new Map(leases.map((each) => [leaseKey(each), each]))
  const ways = new Map<string, number>()
  const asked: string[] = []
  const clock = { now: 0 }
  const routeTo = async (to: Ip) => {
    const address = formatIp(to)
    asked.push(address)
    if (address === '192.0.2.66') throw new Error('the socket is closed')
    const carries = ways.get(address)
    return { device: 'eth0', ...(carries !== undefined && { mtu: carries }) }
  }
  const backend = backends.configure('vxlan', { MTU: mtu })
  const path = new PathMtu({
    ...{ kernel: { routeTo }, health, log: silent, now: () => clock.now },
    place: () => ({ node: testNode(), backend }),
    peers: { leases: known, isOwn: (key) => known.get(key)?.node === 'n513' }
  })
  const detail = () => health.active().find(({ code }) => code === 'UNDERLAY_MTU')?.detail
  return { path, known, ways, asked, clock, detail }
}
/** 192.0.2.n */
const far = (n: number) => lease(512 + n)

test('the node with the smallest path MTU is named with it, and with what pods send', async () => {
  const { path, ways, asked, detail } = scene([far(1), far(2), far(3), far(66)])
  await path.check()
  assert.equal(detail(), undefined)
  assert.deepEqual(asked, ['192.0.2.2', '192.0.2.3', '192.0.2.66'], 'all but ourselves, and a failure stops nothing')
  ways.set('192.0.2.2', 1480).set('192.0.2.3', 1400)
  await path.check()
  assert.equal(
    detail(),
    'the path to n515 at 192.0.2.3 carries 1400 bytes, packets of pods have up to 1500 between nodes (and 1 more node)'
  )
})

test('a path MTU that the configured packets fit is not reported', async () => {
  const { path, ways, detail } = scene([far(2)], 1400)
  ways.set('192.0.2.2', 1400)
  await path.check()
  assert.equal(detail(), undefined)
})

test('what the kernel has dropped is kept for a while, but not for a node that no longer exists', async () => {
  const { path, known, ways, clock, detail } = scene([far(2), far(3)])
  ways.set('192.0.2.2', 1400).set('192.0.2.3', 1450)
  await path.check()
  ways.clear()
  clock.now = 600_000
  await path.check()
  assert.match(detail() ?? '', /n514 .* 1400/)
  known.delete(leaseKey(far(2)))
  await path.check()
  assert.match(detail() ?? '', /n515 .* 1450/)
  clock.now = 900_001
  await path.check()
  assert.equal(detail(), undefined)
})

test('of many nodes a tenth is checked at a time, and all after ten rounds', async () => {
  const { path, asked } = scene(Array.from({ length: 2_000 }, (_, n) => lease(n)))
  await path.check()
  assert.equal(asked.length, 200)
  for (let round = 1; round < 10; round++) await path.check()
  assert.equal(new Set(asked).size, 1_999)
})
