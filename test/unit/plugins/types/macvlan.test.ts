// The keys of macvlan: what each asks for, and the error that each wrong value gets.
import { deepEqual, equal, throws } from 'node:assert/strict'
import { describe, test } from 'node:test'
import { macvlan } from '../../../../plugins/types/macvlan.ts'
import { addCall, delCall } from '../calls.ts'

const of = (configuration: object, args = '') => macvlan.attachment(addCall('macvlan', configuration, { args }))
const ipam = { type: 'host-local', subnet: '192.168.10.0/24' }
const [a, b] = ['02:00:00:00:00:0a', '02:00:00:00:00:0b']

describe('macvlan', () => {
  test("without keys stands on the default route's device, in mode bridge, and gives no address", () => {
    deepEqual(of({}).interface, { kind: 'macvlan', mode: 'bridge', isMasterInside: false })
    deepEqual([of({}).ipam, of({}).delegate, of({}).ipamResult], [undefined, undefined, undefined])
    deepEqual(of({ master: '', mode: '', mac: '', mtu: 0, bcqueuelen: 0 }).interface, of({}).interface)
  })
  test('each key is read', () => {
    const keys = { master: 'eth1', mode: 'vepa', mtu: 1400, mac: a, linkInContainer: true, bcqueuelen: 2000 }
    deepEqual(of(keys).interface, {
      ...{ kind: 'macvlan', master: 'eth1', mode: 'vepa', mtu: 1400, mac: a, isMasterInside: true },
      broadcastQueue: 2000
    })
  })
  test('addresses come from a pool, from the configuration, or from a third party, and so does DNS', () => {
    equal(of({ ipam }).ipam?.ranges.length, 1)
    equal(of({ ipam: { type: 'static', addresses: [{ address: '10.1.0.5/24' }] } }).ipamResult?.addresses.length, 1)
    equal(of({ ipam: { type: 'dhcp' } }).delegate, 'dhcp')
    deepEqual(of({ dns: { search: ['lab'] } }).dns, { search: ['lab'] })
  })
  test("the runtime's MAC wins over args.cni's, which wins over CNI_ARGS' and the one that is written", () => {
    const macOf = (configuration: object, args = '') =>
      (of(configuration, args).interface as { readonly mac?: string }).mac
    equal(macOf({ mac: a }, `MAC=${b}`), b)
    equal(macOf({ mac: a, args: { cni: { mac: b } } }), b)
    equal(macOf({ mac: a, args: { cni: { mac: a } }, runtimeConfig: { mac: b } }), b)
  })
  for (const [configuration, code, message] of [
    [{ mode: 'source' }, 7, /mode: "source"/],
    [{ master: 'a/b' }, 7, /master: "a\/b"/],
    [{ master: 'eth%d' }, 7, /master: "eth%d"/],
    [{ mtu: 67 }, 7, /mtu: 67/],
    [{ mac: '01:00:00:00:00:01' }, 7, /mac: "01/],
    [{ linkInContainer: true }, 7, /master/],
    [{ bcqueuelen: -1 }, 7, /bcqueuelen: -1/],
    [{ ipam: { type: 'macvlan' } }, 7, /ipam\.type: "macvlan"/]
  ] as const) {
    test(`${JSON.stringify(configuration)} is error ${code}`, () => throws(() => of(configuration), { code, message }))
  }
  test('DEL is served whatever became of the configuration, by the same IPAM', () => {
    const { interface: config, ipam: pool } = macvlan.attachment(
      delCall('macvlan', { mode: 7, ipam: { ...ipam, dataDir: '/d' } })
    )
    deepEqual([config.kind, pool?.dataDir], ['macvlan', '/d'])
    equal(macvlan.attachment(delCall('macvlan', { mode: 7, ipam: { type: 'dhcp' } })).delegate, 'dhcp')
  })
})
