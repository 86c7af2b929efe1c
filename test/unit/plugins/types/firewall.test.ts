// The keys of firewall: whose packets pass, and from whom a container is kept apart.
import { deepEqual, throws } from 'node:assert/strict'
import { describe, test } from 'node:test'
import { formatPrefix } from '../../../../ipam/address.ts'
import type { Existing } from '../../../../plugins/attachment.ts'
import { firewall } from '../../../../plugins/types/firewall.ts'
import { addCall, delCall } from '../calls.ts'

const of = (configuration: object) =>
  (firewall.attachment(addCall('firewall', configuration)).interface as Existing).forwards?.map(formatPrefix)
const prevResult = { ips: [{ address: '10.1.0.5/24' }, { address: 'fd00::5/64' }] }

describe('firewall', () => {
  test('lets through the addresses of prevResult, by whatever backend is asked for', () => {
    const keys = { backend: 'iptables', iptablesAdminChainName: 'X', firewalldZone: 'trusted', ingressPolicy: 'open' }
    deepEqual(of({ ...keys, prevResult }), ['10.1.0.5/24', 'fd00::5/64'])
    deepEqual(of({}), [])
  })
  test('keeps apart as the policy says', () => {
    const apart = (ingressPolicy: string) =>
      (firewall.attachment(addCall('firewall', { ingressPolicy })).interface as Existing).isolatedFrom
    deepEqual(['open', '', 'same-bridge', 'isolated'].map(apart), [undefined, undefined, 'other bridges', 'all'])
  })
  test("names the administrator's chain, the reference's where the configuration names none", () => {
    const chain = (iptablesAdminChainName?: string) =>
      (firewall.attachment(addCall('firewall', { iptablesAdminChainName })).interface as Existing).adminChain
    deepEqual([chain('NOMAD-ADMIN'), chain(''), chain()], ['NOMAD-ADMIN', 'CNI-ADMIN', 'CNI-ADMIN'])
  })
  for (const [configuration, code, message] of [
    [{ ingressPolicy: 'x' }, 7, /ingressPolicy: "x"/],
    [{ iptablesAdminChainName: 'a; drop' }, 7, /iptablesAdminChainName: "a; drop"/],
    [{ iptablesAdminChainName: 'A'.repeat(29) }, 7, /iptablesAdminChainName/],
    [{ prevResult: { cniVersion: '0.4.0' } }, 1, /0\.4\.0/]
  ] as const) {
    test(`${JSON.stringify(configuration)} is error ${code}`, () => throws(() => of(configuration), { code, message }))
  }
  test('DEL needs no prevResult, and no configuration that is understood', () => {
    const { interface: config } = firewall.attachment(delCall('firewall', { ingressPolicy: 7 }))
    deepEqual(config, { kind: 'existing', forwards: [] })
  })
})
