// The keys of bridge: what each asks for, and the error that each wrong or unsupported value gets.
import { deepEqual, equal, throws } from 'node:assert/strict'
import { describe, test } from 'node:test'
import { bridge } from '../../../../plugins/types/bridge.ts'
import { addCall, delCall } from '../calls.ts'

const of = (configuration: object, args = '') => bridge.attachment(addCall('bridge', configuration, { args }))
const range = (first: number, last = first) => ({ first, last })
const ipam = { type: 'host-local', subnet: '10.1.0.0/24' }

describe('bridge', () => {
  test('without keys is a port of cni0 without addresses, gateway, masquerade', () => {
    const { interface: config, isStandalone, ipam: pool, ipamResult, delegate, masquerade } = of({})
    deepEqual([isStandalone, pool, ipamResult, delegate, masquerade], [true, undefined, undefined, undefined, false])
    deepEqual(config, {
      kind: 'veth',
      mode: 'bridge',
      bridge: 'cni0',
      isHairpin: false,
      isPromiscuous: false,
      isDefaultGateway: false,
      like: { kind: 'bridge', isGateway: false, forcesAddress: false }
    })
  })
  test('keys count in any capitalisation; a default gateway is a gateway', () => {
    const keys = {
      Bridge: 'br1',
      ISDEFAULTGATEWAY: true,
      ForceAddress: true,
      hairpinmode: true,
      Mtu: 1400,
      ipMasq: true
    }
    const { interface: config, masquerade } = of(keys)
    equal(masquerade, true)
    deepEqual(config, {
      kind: 'veth',
      mode: 'bridge',
      bridge: 'br1',
      isHairpin: true,
      isPromiscuous: false,
      isDefaultGateway: true,
      like: { kind: 'bridge', isGateway: true, forcesAddress: true },
      mtu: 1400
    })
  })
  test('addresses come from a pool, from the configuration, or from a third party', () => {
    equal(of({ ipam }).ipam?.ranges.length, 1)
    equal(of({ ipam: { type: 'static', addresses: [{ address: '10.1.0.5/24' }] } }).ipamResult?.addresses.length, 1)
    equal(of({ ipam: { type: 'dhcp' } }).delegate, 'dhcp')
    deepEqual(of({ ipam: {} }).ipam, undefined)
  })
  test("the runtime's MAC wins over args.cni's, which wins over CNI_ARGS'", () => {
    const [a, b, c] = ['02:00:00:00:00:0a', '02:00:00:00:00:0b', '02:00:00:00:00:0c']
    const macOf = (configuration: object) => (of(configuration, `MAC=${a}`).interface as { readonly mac?: string }).mac
    deepEqual([macOf({}), macOf({ args: { cni: { mac: b } } })], [a, b])
    equal(macOf({ args: { cni: { mac: b } }, runtimeConfig: { mac: c } }), c)
  })
  test('keys that keep a container apart from others on its bridge are read', () => {
    const config = of({ macspoofchk: true, portIsolation: true, disableContainerInterface: true }).interface
    deepEqual(
      [config].map((each) => each.kind === 'veth' && [each.checksSource, each.isIsolated, each.staysDown]),
      [[true, true, true]]
    )
    const none = of({ macspoofchk: false, portIsolation: null, vlan: 0, vlanTrunk: [] }).interface
    deepEqual(
      Object.keys(none).filter((key) => ['checksSource', 'isIsolated', 'staysDown'].includes(key)),
      []
    )
  })
  test('a port has one VLAN, or a trunk of several, and stays in the default VLAN unless told otherwise', () => {
    const vlansOf = (configuration: object) => (of(configuration).interface as { readonly vlans?: object }).vlans
    deepEqual(vlansOf({ vlan: 0, preserveDefaultVlan: false }), undefined)
    deepEqual(vlansOf({ vlan: 5 }), { access: 5, trunk: [], keepsDefault: true })
    deepEqual(vlansOf({ vlan: 5, vlanTrunk: [], preserveDefaultVlan: false }), {
      ...{ access: 5, trunk: [], keepsDefault: false }
    })
    deepEqual([vlansOf({ vlanTrunk: [] }), vlansOf({ vlanTrunk: [{}] })], [undefined, undefined])
    const list = [{ id: 30 }, { minID: 12, maxID: 14, id: 7 }, { minID: 10, maxID: 12 }, { id: 15 }]
    deepEqual(vlansOf({ vlanTrunk: list }), {
      ...{ trunk: [range(7), range(10, 15), range(30)], keepsDefault: true }
    })
  })
  test('an empty dns object leaves the word to IPAM', () => {
    deepEqual([of({ dns: {} }).dns, of({ dns: { search: [] } }).dns], [undefined, { search: [] }])
  })
  for (const [configuration, args, code, message] of [
    [{ bridge: 'a/b' }, '', 7, /bridge: "a\/b"/],
    [{ mtu: 67 }, '', 7, /mtu: 67/],
    [{ hairpinMode: true, promiscMode: true }, '', 7, /promiscMode/],
    [{ isGateway: 'yes' }, '', 7, /isGateway: "yes"/],
    [{ vlan: 5000 }, '', 7, /vlan: 5000/],
    [{ vlan: 5, vlanTrunk: [{ id: 5 }] }, '', 7, /vlanTrunk/],
    [{ vlanTrunk: [{ id: 4095 }] }, '', 7, /vlanTrunk\[0\]\.id: 4095/],
    [{ vlanTrunk: [{ minID: 5 }] }, '', 7, /vlanTrunk\[0\]/],
    [{ vlanTrunk: [{ id: 1 }, { minID: 5, maxID: 4 }] }, '', 7, /vlanTrunk\[1\]/],
    [{ vlanTrunk: 5 }, '', 7, /vlanTrunk: 5/],
    [{ vlan: 5, preserveDefaultVlan: 'no' }, '', 7, /preserveDefaultVlan: "no"/],
    [{ vlan: 1000, bridge: 'br-of-pods-1', isGateway: true }, '', 7, /vlan: 1000/],
    [{ macspoofchk: 'yes' }, '', 7, /macspoofchk: "yes"/],
    [{ disableContainerInterface: true, ipam }, '', 7, /disableContainerInterface: true/],
    [{ ipam: { type: '../x' } }, '', 7, /ipam\.type/],
    [{ ipam: { type: 'weft' } }, '', 7, /ipam\.type: "weft"/],
    [{ ipam: { type: 'host-local' } }, '', 7, /ipam\.ranges/],
    [{}, 'MAC=1', 4, /MAC=1/]
  ] as const) {
    test(`${JSON.stringify(configuration)} with "${args}" is error ${code}`, () => {
      throws(() => of(configuration, args), { code, message })
    })
  }
  test('DEL is served whatever became of the configuration, by the same IPAM', () => {
    equal(bridge.attachment(delCall('bridge', { mtu: 'x', ipam: { ...ipam, dataDir: '/d' } })).ipam?.dataDir, '/d')
    equal(bridge.attachment(delCall('bridge', { mtu: 'x', ipam: { type: 'dhcp' } })).delegate, 'dhcp')
    equal(bridge.attachment(delCall('bridge', { ipam: 7 })).ipam?.dataDir, '/var/lib/cni/networks')
  })
})
