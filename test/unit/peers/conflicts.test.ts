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
    conflicts,
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

test('without names two nodes with one public address are told apart by what their backend publishes, else by the lease', () => {
  for (const over of [{}, { backendType: 'host-gw', backendData: {} }]) {
    const { replace, reported, cures } = scene()
    const of = (n: number) => lease(n, { publicIp: { 4: ip('192.0.2.9') }, ...over })
    for (const n of [1, 2]) replace(undefined, of(n))
    assert.match(
      reported().PUBLIC_IP_CONFLICT ?? '',
      /192\.0\.2\.9 is published by lease 10\.244\.1\.0-24 .* lease 10\.244\.2\.0-24/
    )
    assert.match(cures.PUBLIC_IP_CONFLICT ?? '', /--public-ip.*delete its lease, 10\.244\.1\.0-24 or 10\.244\.2\.0-24$/)
  }
})

test('of subnets that share addresses the older lease is used, whichever comes last, and both are named', () => {
  const { conflicts, replace, reported, cures } = scene()
  const older = lease(1, { created: 10 })
  const inside = lease(2, { created: 20, subnet: { 4: prefix('10.244.1.128/25') } })
  const one = lease(3, { created: 30, subnet: { 4: prefix('10.244.1.7/32') } })
  const wide = lease(4, { created: 40, subnet: { 4: prefix('10.244.0.0/20') } })
  const beside = lease(5, { created: 50, subnet: { 4: prefix('10.244.32.0/24') } })
  for (const each of [one, wide, beside, inside]) replace(undefined, each)
  assert.deepEqual([...replace(undefined, older)].map(({ created }) => created).sort(), [20, 30, 40])
  const keeps = (of: Lease) => conflicts.older(of)?.lease.created
  assert.deepEqual([older, inside, one, wide, beside].map(keeps), [undefined, 10, 10, 30, undefined])
  assert.match(
    reported().SUBNET_CONFLICT ?? '',
    /^lease 10\.244\.1\.0-24 .* and lease 10\.244\.0\.0-20 .* the older one, lease 10\.244\.1\.0-24, is used \(and 2 more leases/
  )
  assert.match(cures.SUBNET_CONFLICT ?? '', /delete its lease 10\.244\.0\.0-20/)
  for (const each of [inside, one, wide]) replace(each, undefined)
  assert.equal(keeps(older), undefined)
  assert.equal(reported().SUBNET_CONFLICT, undefined)
})

test('of two nodes with one podCIDR both are named, with the node to delete', () => {
  const { replace, reported, cures } = scene()
  const rival = lease(1, { node: 'b', publicIp: { 4: ip('192.0.2.2') } }, macOf(2))
  replace(undefined, lease(1, { node: 'a', rivals: [rival] }))
  assert.match(reported().SUBNET_CONFLICT ?? '', /^a \(.*and b \(.*the older one, a, is used$/)
  assert.match(cures.SUBNET_CONFLICT ?? '', /kubectl delete node b/)
})

test('the older holder of a VTEP MAC keeps it; two leases of one node, and one that can’t be used, take nothing', () => {
  const { conflicts, replace } = scene()
  const [older, younger] = [lease(1, { created: 1 }), lease(2, { created: 2 }, macOf(1))]
  for (const each of [younger, older]) replace(undefined, each)
  assert.deepEqual(conflicts.older(younger), { lease: older, keeps: macOf(1) })
  assert.equal(conflicts.older(older), undefined)
  const again = lease(7, { created: 0, publicIp: younger.publicIp }, macOf(1))
  replace(undefined, again)
  assert.equal(conflicts.older(younger)?.lease, older, 'its own former lease is no reason')
  const strict = new Conflicts(backends.claims, { mayKeep: () => false })
  for (const each of [older, younger]) strict.replace(undefined, each)
  assert.equal(strict.older(younger), undefined)
})

test('a younger lease whose subnet contains an older node’s address is not used, nor one whose address is in an older subnet', () => {
  const conflicts = new Conflicts(backends.claims, { isPodAddress: (each) => each.value >> 16n === 0x0af4n })
  const inside = { 4: ip('10.244.7.9') }
  const [older, covering] = [lease(1, { created: 1, publicIp: inside }), lease(7, { created: 2 })]
  const late = lease(8, { created: 3, publicIp: { 4: ip('10.244.1.9') } })
  for (const each of [covering, late, older]) conflicts.replace(undefined, each)
  assert.deepEqual(
    [older, covering, late].map((each) => conflicts.older(each)?.lease),
    [undefined, older, older]
  )
  conflicts.replace(older, undefined)
  assert.deepEqual(
    [covering, late].map((each) => conflicts.older(each)),
    [undefined, undefined]
  )
})

test('of two leases with one public address both are used, the older one’s machine being gone or not, and both are named', () => {
  const conflicts = new Conflicts(backends.claims, { isPodAddress: (each) => each.value >> 16n === 0x0af4n })
  const address = { 4: ip('10.244.200.9') }
  const [gone, alive] = [lease(1, { created: 1, publicIp: address }), lease(2, { created: 2, publicIp: address })]
  const touched = [gone, alive].flatMap((each) => [...conflicts.replace(undefined, each)])
  assert.deepEqual(touched, [], 'of thousands with one address none is looked at again for another')
  assert.deepEqual(
    [gone, alive].map((each) => conflicts.older(each)),
    [undefined, undefined]
  )
  const raised: string[] = []
  conflicts.report({ raise: (code, detail) => raised.push(`${code} ${detail}`), clear() {} })
  assert.match(raised.join(), /^PUBLIC_IP_CONFLICT .*lease 10\.244\.1\.0-24 .* lease 10\.244\.2\.0-24 [^,]*, [^,]*$/)
})

test('where hosts have no addresses in the pod network, a public address in another node’s subnet takes nothing from it', () => {
  const conflicts = new Conflicts(backends.claims, { isPodAddress: () => true, areHostsInside: () => false })
  const holder = lease(7, { created: 2 })
  const older = lease(1, { created: 1, publicIp: { 4: ip('10.244.7.9') } })
  for (const each of [older, holder]) conflicts.replace(undefined, each)
  assert.deepEqual(
    [holder, older].map((each) => conflicts.older(each)?.lease),
    [undefined, holder]
  )
  const raised: string[] = []
  conflicts.report({ raise: (...texts) => raised.push(texts.join(' ')), clear() {} })
  assert.match(
    raised.join(),
    /^SUBNET_CONFLICT .*; the one with the subnet, lease 10\.244\.7\.0-24, is used .*lease 10\.244\.1\.0-24 publish/
  )
})
