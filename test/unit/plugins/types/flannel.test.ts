// The configuration that flannel makes of its own and of subnet.env, compared with what flannel's plugin keeps on disk.
import { deepEqual, throws } from 'node:assert/strict'
import { describe, test } from 'node:test'
import { parsePrefix } from '../../../../ipam/address.ts'
import { flannel } from '../../../../plugins/types/flannel.ts'
import { addCall } from '../calls.ts'

const prefix = (text: string) => parsePrefix(text) as NonNullable<ReturnType<typeof parsePrefix>>
const facts = {
  network: { 4: prefix('10.244.0.0/16') },
  subnet: { 4: prefix('10.244.1.0/24') },
  mtu: 1450,
  ipMasq: true
}
const made = (configuration: object, of: Parameters<typeof flannel.forward>[1] = facts) =>
  flannel.forward(addCall('flannel', configuration, { version: '0.3.1' }), of)
const ipam = { type: 'host-local', ranges: [[{ subnet: '10.244.1.0/24' }]], routes: [{ dst: '10.244.0.0/16' }] }

describe('flannel', () => {
  test('makes a bridge with gateway, of the MTU and the masquerading that subnet.env says', () => {
    const rest = { type: 'bridge', name: 'net1', cniVersion: '0.3.1', isGateway: true, mtu: 1450, ipMasq: false, ipam }
    deepEqual(made({ delegate: { hairpinMode: true } }), { hairpinMode: true, ...rest })
  })
  test('lets the delegate say more, and something else', () => {
    const delegate = { type: 'ipvlan', mtu: 1300, IPMasq: true }
    deepEqual(made({ delegate }), { ...delegate, name: 'net1', cniVersion: '0.3.1', ipam })
  })
  test('adds its ranges and routes to an ipam of its own', () => {
    deepEqual(made({ ipam: { dataDir: '/d', routes: [{ dst: '0.0.0.0/0' }] } }).ipam, {
      ...ipam,
      dataDir: '/d',
      routes: [{ dst: '0.0.0.0/0' }, { dst: '10.244.0.0/16' }]
    })
  })
  test('has one range set and one route for each family', () => {
    const both = {
      network: { ...facts.network, 6: prefix('fd00::/48') },
      subnet: { ...facts.subnet, 6: prefix('fd00:0:0:1::/64') }
    }
    deepEqual(made({}, both).ipam, {
      type: 'host-local',
      ranges: [[{ subnet: '10.244.1.0/24' }], [{ subnet: 'fd00:0:0:1::/64' }]],
      routes: [{ dst: '10.244.0.0/16' }, { dst: 'fd00::/48' }]
    })
  })
  test("hands on what the runtime says, and reads flannel's own places", () => {
    deepEqual(made({ runtimeConfig: { mac: 'x' } }).runtimeConfig, { mac: 'x' })
    deepEqual(flannel.files(addCall('flannel')), {
      subnetFile: '/run/flannel/subnet.env',
      stateDirectory: '/var/lib/cni/flannel'
    })
  })
  for (const [configuration, message] of [
    [{ delegate: { name: 'x' } }, /delegate\.name: "x"/],
    [{ delegate: { ipam: {} } }, /delegate\.ipam/],
    [{ delegate: 7 }, /delegate: 7/]
  ] as const) {
    test(`${JSON.stringify(configuration)} is error 7`, () => throws(() => made(configuration), { code: 7, message }))
  }
  test('paths must be absolute', () => {
    throws(() => flannel.files(addCall('flannel', { dataDir: 'x' })), { code: 7, message: /dataDir/ })
  })
})
