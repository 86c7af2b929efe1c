// Conditional host ports: rules in nft syntax, names that contain the conditions, and the maps of the elements.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { conditionedPortBase, hostPorts } from '../../../daemon/firewall/host-ports.ts'
import { conditionsOf, endingOf, matchOf } from '../../../daemon/firewall/port-conditions.ts'
import { parseIp } from '../../../ipam/address.ts'
import { portConditions } from '../../../plugins/keys/port-conditions.ts'

const read = (family: 4 | 6, ...words: readonly string[]) => portConditions({ path: '', value: words }, family)
const lists = [
  [4, ['!', '-d', '192.0.2.0/24'], '__not_to_c0000200_24', 'ip daddr != 192.0.2.0/24 '],
  [4, ['-s', '10.1.0.9/8,10.0.0.1,192.0.2.1'], undefined, 'ip saddr { 10.0.0.0/8, 192.0.2.1/32 } '],
  [4, ['-s', '10.0.0.1,10.0.0.1'], '__from_a000001_32_or_a000001_32', 'ip saddr 10.0.0.1/32 '],
  [6, ['-d', 'fc00::/7', '!', '-i', 'eth+'], undefined, 'ip6 daddr fc00::/7 iifname != "eth*" ']
] as const

for (const [family, words, ending, match] of lists)
  test(`${words.join(' ')} is ${match}`, () => {
    const conditions = read(family, ...words)
    assert.equal(matchOf(conditions), match)
    if (ending !== undefined) assert.equal(endingOf(conditions), ending)
  })

test('the name of a map tells its conditions again', () => {
  for (const [family, words] of lists) {
    const conditions = read(family, ...words)
    for (const at of ['', 'at_']) {
      const found = conditionsOf(`host_ports_${at}${family}${endingOf(conditions)}`)
      assert.equal(found?.family, family)
      assert.equal(matchOf(found?.conditions ?? []), matchOf(conditions))
      assert.equal(endingOf(found?.conditions ?? []), endingOf(conditions))
    }
  }
})

test('what is no such map tells nothing', () => {
  for (const name of ['host_ports_4', 'host_ports_at_6', 'host_port_all_4', 'host_ports_4__to_fffffffff_32'])
    assert.equal(conditionsOf(name), undefined)
})

test('the longest list fits the name of a chain (NFT_NAME_MAXLEN is 256 with the final zero)', () => {
  const most = Array.from({ length: 4 }, () => ['!', '-s', 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff']).flat()
  const names = conditionedPortBase(6, read(6, ...most)).flatMap((object) =>
    object.kind === 'nft-chain' ? [object.chain] : object.kind === 'nft-set' ? [object.set] : []
  )
  assert.equal(names.length, 4)
  for (const name of names) assert.ok(name.length < 256, name)
})

test('each condition is in front of both look-ups, and elements are in the maps that these ask', () => {
  const conditions = read(4, '!', '-d', '192.0.2.0/24')
  const shared = conditionedPortBase(4, conditions)
  const chains = shared.flatMap((object) => (object.kind === 'nft-chain' ? [object] : []))
  assert.deepEqual(
    chains.map(({ chain }) => chain),
    ['host_port_in_4__not_to_c0000200_24', 'host_port_out_4__not_to_c0000200_24']
  )
  for (const { rules = [] } of chains)
    assert.deepEqual(
      rules.filter((rule) => rule.includes('dnat')),
      [
        'ip daddr != 192.0.2.0/24 dnat ip to ip daddr . meta l4proto . th dport map @host_ports_at_4__not_to_c0000200_24',
        'ip daddr != 192.0.2.0/24 dnat ip to meta l4proto . th dport map @host_ports_4__not_to_c0000200_24'
      ]
    )
  const elements = hostPorts(
    [{ protocol: 'tcp', hostPort: 8080, containerPort: 80 }],
    ['10.0.0.2', 'fd00::2'].map((text) => parseIp(text) ?? assert.fail()),
    'ports-x',
    'pod',
    { 4: conditions }
  )
  assert.deepEqual(
    elements.map((each) => each.kind === 'nft-element' && each.set),
    ['host_ports_4__not_to_c0000200_24', 'host_ports_6']
  )
})
