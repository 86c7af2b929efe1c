// What weftd removes when flanneld takes its node over again, and what stays.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { clearGuard } from '../../../daemon/firewall/clear-guard.ts'
import { handBack, staysForFlanneld } from '../../../daemon/lifecycle/hand-back.ts'
import { encryptedSubnet } from '../../../daemon/state/encrypted-subnets.ts'
import type { KernelObject } from '../../../daemon/state/object.ts'
import { parseIp, parsePrefix } from '../../../ipam/address.ts'

const inWeft = { family: 'inet', table: 'weft' } as const
const because = 'x'
const prefix = parsePrefix('10.244.1.0/24') ?? assert.fail()

const ip = parseIp('192.0.2.1') ?? assert.fail()

const chain = (name: string): KernelObject => ({ kind: 'nft-chain', ...inWeft, chain: name, digests: [], because })
/** As a node whose backend encrypts has it. */
const clearGuardOf = (device: string) =>
  clearGuard({
    ...{ devices: [device], networks: { 4: parsePrefix('10.244.0.0/16') ?? assert.fail() }, subnet: { 4: prefix } },
    ...{ addresses: [], bridge: 'cni0' }
  })
const goes: readonly KernelObject[] = [
  chain('tunnel_input'),
  { kind: 'nft-set', ...inWeft, set: 'tunnel_senders', form: 'set', declaration: 'type ifname', because },
  { kind: 'nft-element', ...inWeft, set: 'tunnel_nodes_4', key: '192.0.2.1', because },
  ...clearGuardOf('weft-wg'),
  encryptedSubnet(prefix, because),
  { kind: 'link', name: 'weft-gw', form: { type: 'bridge' }, because },
  { kind: 'address', device: 'weft-gw', prefix, because },
  // Those of the wireguard backend name Weft's devices: flanneld's would be cut off.
  chain('clear_forward'),
  chain('clear_output'),
  { kind: 'nft-set', ...inWeft, set: 'encrypted_4', form: 'set', declaration: 'type ipv4_addr', because },
  { kind: 'nft-element', ...inWeft, set: 'encrypted_4', key: '10.244.2.0', because },
  { kind: 'link', name: 'weft-wg', form: { type: 'wireguard' }, because },
  // Those of the udp backend hold the port that flanneld binds.
  { kind: 'fou', port: 8285, local: ip, protocol: 4, because },
  { kind: 'tunnel-socket', device: 'flannel0', local: ip, port: 8285, because },
  { kind: 'tunnel-peer', device: 'flannel0', subnet: prefix, to: ip, because },
  { kind: 'link', name: 'flannel0', form: { type: 'tun' }, because }
]
const stays: readonly KernelObject[] = [
  chain('postrouting'),
  { kind: 'nft-element', ...inWeft, set: 'ports', key: '80', because },
  { kind: 'link', name: 'flannel.1', because },
  { kind: 'link', name: 'cni0', form: { type: 'bridge' }, because },
  { kind: 'address', device: 'cni0', prefix, because }
]

test('the guards of tunnels and devices of Weft alone go; tunnel, bridge, masquerade and host ports stay', () => {
  assert.deepEqual(
    goes.map(staysForFlanneld),
    goes.map(() => false)
  )
  assert.deepEqual(
    stays.map(staysForFlanneld),
    stays.map(() => true)
  )
})

test('a failure is logged and does not keep weftd from ending', async () => {
  const lines: string[] = []
  const log = { info: () => undefined, error: (_: object, text: string) => void lines.push(text) }
  await handBack(
    { leave: () => Promise.reject(new Error('busy')) },
    '/nonexistent/mark',
    log as unknown as Parameters<typeof handBack>[2]
  )
  assert.deepEqual(lines, ['handing back failed: busy'])
})
