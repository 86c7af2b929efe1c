// Pods whose network's ipMasq differs from the node's: their sets and rules, and how a restarted weftd recognises them.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { masqueradeBaseFor, podMasquerade } from '../../../daemon/firewall/pod-masquerade.ts'
import { type NftElement, stateOf } from '../../../daemon/state/object.ts'
import { textOf } from '../../../daemon/state/text.ts'
import { parseIp, parsePrefix } from '../../../ipam/address.ts'

const ips = ['10.244.1.5', 'fd00:10:0:1::5'].map((text) => parseIp(text) ?? assert.fail(text))
const networks = ['10.244.0.0/16', 'fd00:10::/48'].map((text) => parsePrefix(text) ?? assert.fail(text))
const of = (isWanted: boolean, all = ips) => podMasquerade(isWanted, all, networks, 'veth01234567', 'pod a/b')
const rules = (objects: ReturnType<typeof of>['shared']) =>
  objects.flatMap((object) => (object.kind === 'nft-chain' ? [[object.chain, ...(object.rules ?? [])]] : []))
const elements = (objects: readonly NftElement[]) => objects.map(({ set, key, comment }) => [set, key, comment])

test('a pod that is not to be masqueraded is in the sets that the node’s rules ask', () => {
  const { shared, own } = of(false)
  assert.deepEqual(elements(own), [
    ['unmasqueraded_4', '10.244.1.5', 'veth01234567 pod a/b'],
    ['unmasqueraded_6', 'fd00:10:0:1::5', 'veth01234567 pod a/b']
  ])
  assert.deepEqual(rules(shared), [])
  assert.equal(shared.length, 2)
})

test('a pod that is to be masqueraded is in sets of rules of their own, for each family that it has', () => {
  const marked = 'meta mark & 0x4000 == 0x4000 return'
  assert.deepEqual(rules(of(true).shared), [
    [
      'masqueraded_pods_4_af40000_16',
      marked,
      'ip saddr @masqueraded_4 ip daddr != 10.244.0.0/16 ip daddr != 224.0.0.0/4 masquerade'
    ],
    [
      'masqueraded_pods_6_fd000010000000000000000000000000_48',
      marked,
      'ip6 saddr @masqueraded_6 ip6 daddr != fd00:10::/48 ip6 daddr != ff00::/8 masquerade'
    ]
  ])
  assert.deepEqual(elements(of(true).own)[0]?.slice(0, 2), ['masqueraded_4', '10.244.1.5'])
  const [four] = [of(true, ips.slice(0, 1))]
  assert.deepEqual([four.own.length, rules(four.shared).length], [1, 1])
})

for (const isWanted of [true, false])
  test(`what such pods stand on is known by their elements${isWanted ? ' and the name of the chain' : ''}`, () => {
    const { shared, own } = of(isWanted)
    const found = masqueradeBaseFor(own, stateOf([...shared, ...own]))
    assert.deepEqual(found.map(textOf), shared.map(textOf))
    assert.deepEqual(masqueradeBaseFor([], stateOf(shared)), [])
  })
