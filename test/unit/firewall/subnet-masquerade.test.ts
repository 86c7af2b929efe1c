// Masquerading for one subnet: the rule, and that the chain's name tells the subnet.
import { deepEqual, equal, match } from 'node:assert/strict'
import { test } from 'node:test'
import { subnetMasquerade, subnetOfChain } from '../../../daemon/firewall/subnet-masquerade.ts'
import { formatPrefix, parsePrefix } from '../../../ipam/address.ts'

for (const [address, subnet] of [
  ['10.10.0.7/24', '10.10.0.0/24'],
  ['fd00:10::9/64', 'fd00:10::/64']
] as const) {
  test(`containers of ${subnet} share a chain, whose name says for which subnet it is`, () => {
    const chain = subnetMasquerade(parsePrefix(address) as never)
    deepEqual(chain, subnetMasquerade(parsePrefix(subnet) as never))
    const read = subnetOfChain(chain.chain)
    equal(read && formatPrefix(read), subnet)
    match(chain.chain, /^[a-z0-9_]+$/)
  })
}

test('packets to the subnet itself and to multicast keep their source', () => {
  deepEqual(subnetMasquerade(parsePrefix('10.10.0.7/24') as never).rules, [
    'ip saddr 10.10.0.0/24 ip daddr != 10.10.0.0/24 ip daddr != 224.0.0.0/4 masquerade'
  ])
})

test('other chains are of no subnet', () => {
  for (const name of ['postrouting', 'masquerade_4_fffffffff_24', 'masquerade_4_a0a0000_40'])
    equal(subnetOfChain(name), undefined)
})
