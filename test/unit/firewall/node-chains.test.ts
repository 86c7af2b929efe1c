// Our own table: its rules and their order, for one family and for both.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type FirewallOptions, ownFirewall } from '../../../daemon/firewall/node-chains.ts'
import { tunnelGuard, tunnelSenders } from '../../../daemon/firewall/tunnel-guard.ts'
import { digest } from '../../../daemon/state/digest.ts'
import type { KernelObject, NftChain } from '../../../daemon/state/object.ts'
import { tunnelNode, tunnelSubnet } from '../../../daemon/state/tunnel-nodes.ts'
import { type PerFamily, type Prefix, parseIp, parsePrefix } from '../../../ipam/address.ts'

const prefix = (text: string): Prefix => parsePrefix(text) ?? assert.fail(text)
const cluster: PerFamily<Prefix> = { 4: prefix('10.244.0.0/16'), 6: prefix('fd00:10::/48') }
const own: PerFamily<Prefix> = { 4: prefix('10.244.1.1/24'), 6: prefix('fd00:10:0:1::/64') }
const all: FirewallOptions = { ipMasq: true, randomFully: true, forwardRules: true }

const chains = (
  subnets: PerFamily<Prefix>,
  networks: PerFamily<Prefix>,
  options: FirewallOptions
): readonly NftChain[] =>
  ownFirewall(subnets, networks, options).flatMap((object) => (object.kind === 'nft-chain' ? [object] : []))

test('the masquerading rules are those of flannel in their order, first IPv4, then IPv6', () => {
  const [postrouting] = chains(own, cluster, all)
  assert.equal(postrouting?.hook, 'type nat hook postrouting priority srcnat')
  assert.deepEqual(postrouting?.rules, [
    'meta mark & 0x4000 == 0x4000 return',
    'ip saddr @unmasqueraded_4 return',
    'ip saddr 10.244.1.0/24 ip daddr 10.244.0.0/16 return',
    'ip saddr 10.244.0.0/16 ip daddr 10.244.1.0/24 return',
    'ip saddr != 10.244.0.0/16 ip daddr 10.244.1.0/24 return',
    'ip saddr 10.244.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random',
    'ip saddr != 10.244.0.0/16 ip daddr 10.244.0.0/16 masquerade fully-random',
    'ip6 saddr @unmasqueraded_6 return',
    'ip6 saddr fd00:10:0:1::/64 ip6 daddr fd00:10::/48 return',
    'ip6 saddr fd00:10::/48 ip6 daddr fd00:10:0:1::/64 return',
    'ip6 saddr != fd00:10::/48 ip6 daddr fd00:10:0:1::/64 return',
    'ip6 saddr fd00:10::/48 ip6 daddr != ff00::/8 masquerade fully-random',
    'ip6 saddr != fd00:10::/48 ip6 daddr fd00:10::/48 masquerade fully-random'
  ])
})

test('the forward chain accepts from and to each network', () => {
  assert.deepEqual(chains(own, cluster, { ...all, ipMasq: false })[0]?.rules, [
    'ip saddr 10.244.0.0/16 accept',
    'ip daddr 10.244.0.0/16 accept',
    'ip6 saddr fd00:10::/48 accept',
    'ip6 daddr fd00:10::/48 accept'
  ])
})

test('a node with one family has no rule for the other, and source ports stay when they may', () => {
  const [postrouting] = chains({ 6: prefix('fd00:10:0:1::/64') }, cluster, { ...all, randomFully: false })
  assert.equal(postrouting?.rules?.length, 7)
  assert.ok(postrouting?.rules?.slice(1).every((rule) => rule.startsWith('ip6 ')))
  assert.ok(postrouting?.rules?.[5]?.endsWith(' masquerade'))
})

test('switched off, a chain is not there', () => {
  assert.deepEqual(
    chains(own, cluster, { ...all, ipMasq: false }).map(({ chain }) => chain),
    ['forward']
  )
  assert.deepEqual(ownFirewall(own, cluster, { ipMasq: false, randomFully: true, forwardRules: false }), [])
})

test('what pods send to a tunnel port is dropped, by their addresses and by their devices, and never what comes by the underlay', () => {
  const guard = (device: string) =>
    tunnelGuard({ ports: [{ protocol: 'udp', port: 8472 }] }, cluster, { device, bridge: 'cni0' }).flatMap((object) =>
      object.kind === 'nft-chain' ? [object.rules ?? []] : []
    )
  const [input = [], forward = []] = guard('eth0')
  assert.ok(input.includes('udp dport 8472 iifname != "eth0" iifname @tunnel_senders drop'))
  assert.ok(input.includes('udp dport 8472 iifname "veth*" drop'))
  assert.ok(
    input.some((rule) =>
      /^udp dport 8472 iifname != "eth0" ip saddr [\d./]+ ip saddr != @tunnel_nodes_4 drop$/.test(rule)
    )
  )
  assert.ok(forward.every((rule) => /^udp dport 8472 .* ip6? daddr @tunnel_nodes_[46] drop$/.test(rule)))
  assert.ok(forward.every((rule) => !/ip6? saddr/.test(rule) || /(ip6?) saddr.* \1 daddr/.test(rule)))
  const { set, key } = tunnelNode(parseIp('192.0.2.7') ?? assert.fail(), 'a node')
  assert.deepEqual([key, forward.some((rule) => rule.includes(`@${set} `))], ['192.0.2.7', true])
  // What comes by the bridge that is the link to the other nodes is never dropped by its name.
  for (const rule of guard('cni0').flat())
    assert.ok(!rule.includes('@tunnel_senders') || rule.includes('iifname != "cni0"'), rule)
  assert.doesNotMatch(guard('veth1').flat().join(), /iifname "veth\*"/)
  assert.deepEqual(tunnelGuard({ ports: [] }, cluster, { device: 'eth0', bridge: 'cni0' }), [])
})

test('pods on any bridge that weftd set up are kept from the tunnel, too, but not where there is no guard', () => {
  const guard = tunnelGuard({ ports: [{ protocol: 'udp', port: 8472 }] }, cluster, { device: 'eth0', bridge: 'cni0' })
  const [input = [], forward = []] = guard.flatMap((object) =>
    object.kind === 'nft-chain' ? [object.rules ?? []] : []
  )
  assert.ok(input.includes('udp dport 8472 iifname != "eth0" iifname @tunnel_senders drop'))
  assert.ok(forward.includes('udp dport 8472 iifname != "eth0" iifname @tunnel_senders ip6 daddr @tunnel_nodes_6 drop'))
  const named = (objects: readonly KernelObject[]) =>
    objects.flatMap((object) => (object.kind === 'nft-element' ? [object.key] : []))
  assert.deepEqual(named(guard), ['"cni0"'], 'the bridge of the pods before it exists')
  const bridge: KernelObject = { kind: 'link', name: 'br-other', form: { type: 'bridge' } }
  const tunnel: KernelObject = { kind: 'link', name: 'weft.1' }
  const senders = tunnelSenders([...guard, bridge, tunnel], ['cni0', 'docker0', 'veth*', 'weft.1'])
  assert.deepEqual(named(senders), ['"br-other"', '"cni0"', '"docker0"'])
  assert.equal(senders[0]?.kind, 'nft-set')
  assert.deepEqual(tunnelSenders([bridge], ['cni0']), [])
})

test('where anyone can send by a tunnel only nodes may, and of pods only those of other nodes are inside', () => {
  const outer = 'udp dport 8285'
  const guard = (isShared?: true) =>
    tunnelGuard(
      { ports: [], entry: { outer, device: 'weft.udp', ...(isShared && { isShared }) } },
      { 4: prefix('10.244.0.0/16') },
      { device: 'eth0', bridge: 'cni0' }
    )
  const rulesOf = (chain: string, objects = guard()) =>
    objects.flatMap((object) => (object.kind === 'nft-chain' && object.chain === chain ? (object.rules ?? []) : []))
  assert.deepEqual(rulesOf('tunnel_entry'), ['udp dport 8285 ip saddr != @tunnel_nodes_4 drop'])
  assert.deepEqual(rulesOf('tunnel_inner'), [
    `iifname "weft.udp" ip saddr 10.244.0.0/16 ip saddr != @tunnel_subnets_4 drop`
  ])
  assert.ok(rulesOf('tunnel_forward').every((rule) => rule.startsWith(outer)))
  assert.ok(rulesOf('tunnel_input').includes('udp dport 8285 iifname "veth*" drop'))
  assert.deepEqual(rulesOf('tunnel_entry', guard(true)), [])
  assert.equal(rulesOf('tunnel_inner', guard(true)).length, 1)
  const inner = tunnelSubnet(prefix('10.244.2.0/24'), 'pods')
  const set = guard().find((object) => object.kind === 'nft-set' && object.set === inner.set)
  assert.equal(set?.kind === 'nft-set' && set.declaration, 'type ipv4_addr; flags interval')
  assert.equal(inner.key, '10.244.2.0/24')
})

test('every rule has the digest of its text', () => {
  for (const chain of chains(own, cluster, all)) assert.deepEqual(chain.digests, chain.rules?.map(digest))
})

test('every set that a rule asks is made', () => {
  const made = ownFirewall(own, cluster, all).flatMap((object) => (object.kind === 'nft-set' ? [object.set] : []))
  const asked = chains(own, cluster, all).flatMap(({ rules = [] }) =>
    [...rules.join(' ').matchAll(/@(\w+)/g)].map(([, name]) => name)
  )
  assert.deepEqual(made, asked)
})
