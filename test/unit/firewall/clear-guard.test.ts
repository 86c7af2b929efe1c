// The rules that keep packets between pods of different nodes from going in clear.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { clearGuard } from '../../../daemon/firewall/clear-guard.ts'
import { encryptedSubnet } from '../../../daemon/state/encrypted-subnets.ts'
import { keyOf, type NftChain } from '../../../daemon/state/object.ts'
import { textOf } from '../../../daemon/state/text.ts'
import { parsePrefix } from '../../../ipam/address.ts'

const prefix = (text: string) => parsePrefix(text) ?? assert.fail(text)

function rulesOf(addresses: readonly string[]) {
  const objects = clearGuard({
    ...{ devices: ['weft-wg'], bridge: 'cni0', addresses: addresses.map(prefix) },
    networks: { 4: prefix('10.244.0.0/16'), 6: prefix('fd00::/48') },
    subnet: { 4: prefix('10.244.1.0/24'), 6: prefix('fd00:0:0:1::/64') }
  })
  const chains = objects.filter((object): object is NftChain => object.kind === 'nft-chain')
  return Object.fromEntries(chains.map(({ chain, rules }) => [chain, rules ?? []]))
}

const known = {
  leaving: [
    'ip daddr & 255.255.255.0 @encrypted_4 oifname != { "weft-wg" } drop',
    'ip6 daddr & ffff:ffff:ffff:ffff:: @encrypted_6 oifname != { "weft-wg" } drop'
  ],
  arriving: [
    'ip saddr & 255.255.255.0 @encrypted_4 iifname != { "weft-wg" } drop',
    'ip6 saddr & ffff:ffff:ffff:ffff:: @encrypted_6 iifname != { "weft-wg" } drop'
  ]
}

test('what goes to another node’s subnet leaves by the tunnel, and what is from there comes by it', () => {
  const whole = [
    'ip daddr 10.244.0.0/16 ip daddr != 10.244.1.0/24 oifname != { "weft-wg", "cni0", "veth*", "lo" } drop',
    'ip6 daddr fd00::/48 ip6 daddr != fd00:0:0:1::/64 oifname != { "weft-wg", "cni0", "veth*", "lo" } drop'
  ]
  assert.deepEqual(rulesOf(['192.0.2.1/24']), {
    clear_forward: [...known.leaving, ...whole, ...known.arriving],
    clear_output: [...known.leaving, ...whole],
    clear_input: known.arriving
  })
})

test('where hosts have addresses in the pod network, only the subnets of leases count', () => {
  assert.deepEqual(rulesOf(['10.244.200.1/24', 'fd00::1/64']), {
    clear_forward: [...known.leaving, ...known.arriving],
    clear_output: known.leaving,
    clear_input: known.arriving
  })
})

test('a subnet is an element by its first address', () => {
  const element = encryptedSubnet(prefix('10.244.2.9/24'), 'lease 10.244.2.0-24')
  assert.equal(keyOf(element), 'nft element inet weft encrypted_4 10.244.2.0')
  assert.match(textOf(element), /encrypted_4 { 10\.244\.2\.0 }/)
})
