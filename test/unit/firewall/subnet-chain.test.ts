// Chains of one subnet: their rules, and their purpose from the name.
import { deepEqual, equal, fail, match } from 'node:assert/strict'
import { test } from 'node:test'
import {
  forwardAcceptObjects,
  forwardAcceptReadBack,
  purposeOf,
  subnetChain
} from '../../../daemon/firewall/subnet-chain.ts'
import { stateOf } from '../../../daemon/state/object.ts'
import { textOf } from '../../../daemon/state/text.ts'
import { formatPrefix, parsePrefix } from '../../../ipam/address.ts'

for (const purpose of ['masquerade', 'forward'] as const) {
  for (const [address, subnet] of [
    ['10.10.0.7/24', '10.10.0.0/24'],
    ['fd00:10::9/64', 'fd00:10::/64']
  ] as const) {
    test(`containers of ${subnet} share a chain to ${purpose}, whose name says so`, () => {
      const chain = subnetChain(purpose, parsePrefix(address) as never)
      deepEqual(chain, subnetChain(purpose, parsePrefix(subnet) as never))
      const read = purposeOf(chain.chain)
      deepEqual([read?.purpose, read && formatPrefix(read.subnet)], [purpose, subnet])
      match(chain.chain, /^[a-z0-9_]+$/)
    })
  }
}

test('packets to the subnet itself and to multicast keep their source; packets from and to it pass', () => {
  const rulesOf = (purpose: 'masquerade' | 'forward') =>
    subnetChain(purpose, parsePrefix('10.10.0.7/24') as never).rules
  deepEqual(rulesOf('masquerade'), [
    'ip saddr 10.10.0.0/24 ip daddr != 10.10.0.0/24 ip daddr != 224.0.0.0/4 masquerade'
  ])
  deepEqual(rulesOf('forward'), ['ip saddr 10.10.0.0/24 accept', 'ip daddr 10.10.0.0/24 accept'])
})

test('other chains are of no subnet', () => {
  for (const name of ['postrouting', 'forward', 'masquerade_4_fffffffff_24', 'forward_4_a0a0000_40'])
    equal(purposeOf(name), undefined)
})

test('what lets addresses through is recognised by its element, with the chain that stands for it', () => {
  const addresses = ['10.60.0.5/24', 'fd00::5/64'].map((text) => parsePrefix(text) ?? fail())
  const made = forwardAcceptObjects(addresses, 'ports-a-b-through', 'container c, eth0 in network n', 'CNI-ADMIN')
  const beside = subnetChain('forward', parsePrefix('10.61.0.0/24') ?? fail())
  const observed = stateOf([...made, beside])
  const found = made.flatMap((object) =>
    object.kind === 'nft-element' ? (forwardAcceptReadBack(object, observed) ?? fail()) : []
  )
  deepEqual(new Set(found.map(textOf)), new Set(made.map(textOf)))
  const other = { kind: 'nft-element', family: 'inet', table: 'weft', set: 'host_ports_4', key: '10.0.0.1' } as const
  equal(forwardAcceptReadBack(other, observed), undefined)
})
