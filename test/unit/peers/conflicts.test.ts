// Two nodes with one VTEP MAC or one public address: both are named, while it lasts; two leases of one node are no
// conflict.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BACKENDS, registry } from '../../../daemon/backend/registry.ts'
import type { Lease } from '../../../daemon/lease/lease.ts'
import { Conflicts } from '../../../daemon/peers/conflicts.ts'
import { parseIp, parsePrefix } from '../../../ipam/address.ts'

const backends = registry(BACKENDS)
const ip = (text: string) => parseIp(text) ?? assert.fail(text)
const prefix = (text: string) => parsePrefix(text) ?? assert.fail(text)
const macOf = (n: number) => `02:00:00:00:00:${n.toString(16).padStart(2, '0')}`
const lease = (n: number, over: Partial<Lease> = {}, mac = macOf(n)): Lease => ({
  subnet: { 4: prefix(`10.244.${n}.0/24`) },
  publicIp: { 4: ip(`192.0.2.${n}`) },
  backendType: 'vxlan',
  backendData: { 4: { VNI: 1, VtepMAC: mac } },
  ...over
})

function scene() {
  const conflicts = new Conflicts(backends.claims)
  const cures: Record<string, string | undefined> = {}
  return {
    cures,
    replace: (before: Lease | undefined, now: Lease | undefined) => conflicts.replace(before, now),
    reported() {
      const reported: Record<string, string> = {}
      conflicts.report({
        raise: (code, detail, cure) => {
          reported[code] = detail
          cures[code] = cure
        },
        clear: (code) => assert.equal(reported[code], undefined)
      })
      return reported
    }
  }
}

test('two nodes that publish one VTEP MAC are both named with it, until one publishes another', () => {
  const { replace, reported } = scene()
  const [one, two] = [lease(1, { node: 'a' }), lease(2, { node: 'b' }, macOf(1).toUpperCase())]
  replace(undefined, one)
  assert.deepEqual(reported(), {})
  replace(undefined, two)
  assert.deepEqual(reported(), {
    VTEP_MAC_CONFLICT:
      '02:00:00:00:00:01 is published by a (public address 192.0.2.1, subnet 10.244.1.0/24) and by b (public address 192.0.2.2, subnet 10.244.2.0/24)'
  })
  replace(two, lease(2, { node: 'b' }))
  assert.deepEqual(reported(), {})
})

test('it ends when the lease of one of them is removed, and without a node name the lease is named', () => {
  const { replace, reported } = scene()
  const [one, two] = [lease(1), lease(2, {}, macOf(1))]
  for (const each of [one, two]) replace(undefined, each)
  assert.match(reported().VTEP_MAC_CONFLICT ?? '', /by lease 10\.244\.1\.0-24 \(.* and by lease 10\.244\.2\.0-24 \(/)
  replace(one, undefined)
  assert.deepEqual(reported(), {})
})

test('a node whose address has changed, and whose earlier lease is still there, is distinguished from two machines', () => {
  const { replace, reported } = scene()
  for (const each of [lease(1, { node: 'a' }), lease(2, { node: 'a' }, macOf(1))]) replace(undefined, each)
  assert.match(
    reported().VTEP_MAC_CONFLICT ?? '',
    /one name: a node whose address has changed and whose earlier lease is/
  )
})

test('of more than two nodes two are named, and of more than one MAC the first', () => {
  const { replace, reported } = scene()
  for (const n of [1, 2, 3]) replace(undefined, lease(n, { node: `n${n}` }, macOf(9)))
  for (const n of [4, 5]) replace(undefined, lease(n, { node: `n${n}` }, macOf(8)))
  assert.match(
    reported().VTEP_MAC_CONFLICT ?? '',
    /^02:00:00:00:00:09 is published by n1 \(.* and by n2 \(.*, and in 1 more lease \(and 1 more\)$/
  )
  replace(lease(1), undefined)
  assert.match(
    reported().VTEP_MAC_CONFLICT ?? '',
    /09 is published by n1/,
    'a lease that was never put changes nothing'
  )
})

test('a node whose earlier lease has not expired has no conflict with itself', () => {
  const { replace, reported } = scene()
  replace(undefined, lease(1))
  replace(undefined, lease(7, { publicIp: { 4: ip('192.0.2.1') } }, macOf(1)))
  assert.deepEqual(reported(), {})
  replace(undefined, lease(2, {}, macOf(1)))
  assert.match(reported().VTEP_MAC_CONFLICT ?? '', /192\.0\.2\.1, .*192\.0\.2\.2, .* and in 1 more lease/)
})

test('the tunnels of the two families have MACs of their own', () => {
  const { replace, reported } = scene()
  replace(undefined, lease(1))
  const backendData = { 6: { VNI: 1, VtepMAC: macOf(1) } }
  const subnet = { 6: prefix('fd00:0:0:2::/64') }
  replace(undefined, lease(2, { publicIp: { 6: ip('2001:db8::2') }, subnet, backendData }))
  assert.deepEqual(reported(), {})
  replace(undefined, lease(3, { publicIp: { 6: ip('2001:db8::3') }, backendData }))
  assert.match(reported().VTEP_MAC_CONFLICT ?? '', /2001:db8::2.*2001:db8::3/)
})

test('two nodes that publish one public address are both named, in the cure too, whatever their backend', () => {
  const { replace, reported, cures } = scene()
  const of = (n: number) => lease(n, { node: `n${n}`, backendType: 'host-gw', publicIp: { 4: ip('192.0.2.9') } })
  replace(undefined, of(1))
  replace(undefined, of(2))
  assert.deepEqual(reported(), {
    PUBLIC_IP_CONFLICT:
      '192.0.2.9 is published by n1 (public address 192.0.2.9, subnet 10.244.1.0/24) and by n2 (public address 192.0.2.9, subnet 10.244.2.0/24)'
  })
  assert.deepEqual(cures, {
    PUBLIC_IP_CONFLICT: 'delete the Node object n1 or n2, whichever has no machine (kubectl delete node)'
  })
})

test('a node that moves to another subnet has no conflict with its former lease', () => {
  const { replace, reported } = scene()
  const before = lease(1, { node: 'n1' })
  replace(undefined, before)
  const now = { ...before, subnet: { 4: prefix('10.244.8.0/24') } }
  replace(undefined, now)
  replace(before, undefined)
  assert.deepEqual(reported(), {})
  replace(undefined, lease(2, { node: 'n2' }, macOf(1)))
  assert.match(reported().VTEP_MAC_CONFLICT ?? '', /n1 .*10\.244\.8\.0.*n2/)
})
