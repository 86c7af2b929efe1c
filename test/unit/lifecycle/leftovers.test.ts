// What stays on a node after Weft was removed from it is listed, each with how to remove it.
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { bridgeMac } from '../../../daemon/attachment/identity.ts'
import { leftovers } from '../../../daemon/lifecycle/leftovers.ts'
import { type KernelObject, stateOf } from '../../../daemon/state/object.ts'
import { parsePrefix } from '../../../ipam/address.ts'

const root = mkdtempSync(join(tmpdir(), 'weft-leftovers-'))
after(() => rmSync(root, { recursive: true }))
const places = { sysctls: join(root, 'sys'), reservations: join(root, 'networks') }
const file = (path: string, text = '') => {
  mkdirSync(join(root, path, '..'), { recursive: true })
  writeFileSync(join(root, path), text)
}
const link = (name: string, type: 'bridge' | 'veth', over: object = {}): KernelObject => ({
  ...{ kind: 'link', name, form: { type } },
  ...over
})
const stays = (links: readonly KernelObject[], bridges: readonly KernelObject[] = [], subnet = {}) =>
  leftovers({ observed: stateOf(links), bridges, identity: 'one', subnet }, places)

test('a node on which nothing stays has nothing listed', () => {
  const own = link('cni0', 'bridge', { mac: bridgeMac('one', 'cni0') })
  assert.deepEqual(stays([own, link('docker0', 'bridge'), link('eth0', 'veth')], [own]), [])
})

test("others' bridge, forwarding, reservations and the lease are listed, and what is theirs alone is not", () => {
  file('sys/net/ipv4/ip_forward', '1\n')
  file('sys/net/ipv6/conf/all/forwarding', '0\n')
  file('networks/cbr0/10.244.1.2')
  file('networks/cbr0/last_reserved_ip.0')
  const subnet = { 4: parsePrefix('10.244.1.0/24') ?? assert.fail() }
  assert.deepEqual(stays([link('cni0', 'bridge'), link('docker0', 'bridge')], [], subnet), [
    'the bridge cni0, which weftd did not make (ip link delete cni0)',
    'net.ipv4.ip_forward = 1, which other programs may need (sysctl net.ipv4.ip_forward=0)',
    `1 reserved pod addresses in ${places.reservations}`,
    'the lease of 10.244.1.0/24 in the store, until it expires'
  ])
  const ours = link('cni1', 'bridge', { mac: bridgeMac('one', 'cni1') })
  const [first] = stays([ours, link('veth1', 'veth', { master: 'cni1' })])
  assert.equal(first, 'the bridge cni1, which 1 interface uses (ip link delete cni1)')
})
