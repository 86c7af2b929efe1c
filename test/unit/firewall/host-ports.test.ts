// Host ports: the shared rules, and the elements of a pod for one family and for both.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { hostPortBase, hostPortDevice, hostPorts } from '../../../daemon/firewall/host-ports.ts'
import { textOf } from '../../../daemon/state/text.ts'
import { parseIp } from '../../../ipam/address.ts'

const ip = (text: string) => parseIp(text) ?? assert.fail(text)
const [v4, v6] = [ip('10.244.1.2'), ip('fd00::2')]
const web = { protocol: 'tcp', hostPort: 8080, containerPort: 80 } as const
const texts = (mappings: Parameters<typeof hostPorts>[0], ...ips: readonly (typeof v4)[]) =>
  hostPorts(mappings, ips, 'veth01234567', 'pod a/b').map((object) =>
    textOf(object).replace(' comment "veth01234567 pod a/b"', '').replace('element inet weft ', '')
  )

test('the rules are these, whatever pods there are', () => {
  const rules = Object.fromEntries(
    hostPortBase().flatMap((object) =>
      object.kind === 'nft-chain' ? [[`${object.chain}: ${object.hook}`, object.rules]] : []
    )
  )
  const lookUps = [
    'dnat ip to ip daddr . meta l4proto . th dport map @host_ports_at_4',
    'dnat ip to meta l4proto . th dport map @host_ports_4',
    'dnat ip6 to ip6 daddr . meta l4proto . th dport map @host_ports_at_6',
    'dnat ip6 to meta l4proto . th dport map @host_ports_6'
  ]
  assert.deepEqual(rules, {
    'host_port_in: type nat hook prerouting priority dstnat': [
      'fib daddr type != local return',
      'iifname @host_port_devices meta mark set meta mark | 0x2000',
      ...lookUps,
      'iifname @host_port_devices meta mark set meta mark & 0xffffdfff'
    ],
    'host_port_out: type nat hook output priority -100': [
      'fib daddr type != local return',
      'ip6 daddr ::1 return',
      'ip saddr 127.0.0.0/8 meta mark set meta mark | 0x2000',
      ...lookUps,
      'ip saddr 127.0.0.0/8 meta mark set meta mark & 0xffffdfff'
    ],
    'host_port_back: type nat hook postrouting priority srcnat - 5': ['meta mark & 0x2000 != 0 masquerade'],
    'host_port_guard: type filter hook prerouting priority raw': [
      'ip daddr 127.0.0.0/8 iifname @host_port_devices drop',
      'ip saddr 127.0.0.0/8 iifname @host_port_devices drop'
    ]
  })
})

test('every map that a rule asks is made', () => {
  const shared = hostPortBase()
  const made = shared.flatMap((object) => (object.kind === 'nft-set' ? [object.set] : []))
  const asked = shared.flatMap((object) =>
    object.kind === 'nft-chain' ? [...(object.rules ?? []).join(' ').matchAll(/@(\w+)/g)].map(([, name]) => name) : []
  )
  assert.deepEqual([...new Set(asked)].sort(), [...made].sort())
  assert.deepEqual(made.toSorted(), [
    'host_port_devices',
    'host_ports_4',
    'host_ports_6',
    'host_ports_at_4',
    'host_ports_at_6'
  ])
})

test('a port without an address leads to the first address of each family', () => {
  assert.deepEqual(texts([web], v4), ['host_ports_4 { tcp . 8080 : 10.244.1.2 . 80 }'])
  assert.deepEqual(texts([web], v6, v4, ip('10.244.9.9')), [
    'host_ports_4 { tcp . 8080 : 10.244.1.2 . 80 }',
    'host_ports_6 { tcp . 8080 : fd00::2 . 80 }'
  ])
})

test('a port of an address is of that address, and nothing where the pod has none of its family', () => {
  const at = (hostIp: string) => ({ ...web, hostIp: ip(hostIp) })
  assert.deepEqual(texts([at('192.0.2.1'), at('fd00::1')], v4), [
    'host_ports_at_4 { 192.0.2.1 . tcp . 8080 : 10.244.1.2 . 80 }'
  ])
  assert.deepEqual(texts([at('0.0.0.0')], v4, v6), ['host_ports_4 { tcp . 8080 : 10.244.1.2 . 80 }'])
  assert.deepEqual(texts([at('::')], v4, v6), ['host_ports_6 { tcp . 8080 : fd00::2 . 80 }'])
})

test('a device of pods with host ports may get packets from 127.0.0.1, and is guarded for it', () => {
  assert.deepEqual(hostPortDevice('cni0').map(textOf), [
    'element inet weft host_port_devices { "cni0" }',
    'sysctl net/ipv4/conf/cni0/route_localnet=1'
  ])
})
