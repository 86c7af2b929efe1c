// The rule for translated probes: theirs alone, and the tunnel's packets around them.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { TRANSLATED_MARK, translatedProbe } from '../../../daemon/firewall/translated-probe.ts'
import { parseIp, parsePrefix } from '../../../ipam/address.ts'

const ip = (text: string) => parseIp(text) ?? assert.fail(text)
const prefix = (text: string) => parsePrefix(text) ?? assert.fail(text)

test('it names mark, addresses, protocol and port, of the probe and of the packet in a tunnel’s', () => {
  const { rules, hook } = translatedProbe({
    source: { 4: ip('10.244.1.0'), 6: ip('fd00:0:0:1::') },
    cluster: { 4: prefix('10.244.0.0/16'), 6: prefix('fd00::/48') },
    outer: { port: 8472, innerAt: 30 }
  })
  const translate = 'masquerade to :32768-60999 fully-random'
  assert.equal(hook, 'type nat hook postrouting priority srcnat')
  assert.deepEqual(rules, [
    `meta mark 4263 ip saddr 10.244.1.0/32 ip daddr 10.244.0.0/16 udp dport 9 ${translate}`,
    `meta mark 4263 udp dport 8472 @th,312,8 0x11 @th,336,32 0xaf40100 @th,416,16 0x9 ${translate}`,
    `meta mark 4263 ip6 saddr fd00:0:0:1::/128 ip6 daddr fd00::/48 udp dport 9 ${translate}`,
    `meta mark 4263 udp dport 8472 @th,288,8 0x11 @th,304,128 0xfd000000000000010000000000000000 @th,576,16 0x9 ${translate}`
  ])
})

test('the mark has no bit of kube-proxy’s, and a family without a network has no rule', () => {
  assert.equal(TRANSLATED_MARK & 0xc000, 0)
  const outer = { port: 8472, innerAt: 30 }
  assert.deepEqual(translatedProbe({ source: { 4: ip('10.244.1.0') }, cluster: {}, outer }).rules, [])
})
