// The keys of ptp: what each asks for, and the error that each wrong value gets.
import { deepEqual, equal, throws } from 'node:assert/strict'
import { describe, test } from 'node:test'
import { ptp } from '../../../../plugins/types/ptp.ts'
import { addCall, delCall } from '../calls.ts'

const ipam = { type: 'host-local', subnet: '10.1.0.0/24' }
const of = (configuration: object) => ptp.attachment(addCall('ptp', configuration))

describe('ptp', () => {
  test('is routed, like the reference', () => {
    const { interface: config, masquerade, isStandalone } = of({ ipam, mtu: 1400, ipMasq: true })
    deepEqual(config, {
      kind: 'veth',
      mode: 'routed',
      bridge: 'cni0',
      isHairpin: false,
      isPromiscuous: false,
      isDefaultGateway: false,
      like: { kind: 'ptp' },
      mtu: 1400
    })
    deepEqual([masquerade, isStandalone], [true, true])
  })
  for (const [configuration, code, message] of [
    [{}, 7, /ipam\.type/],
    [{ ipam, mtu: 1 }, 7, /mtu: 1/],
    [{ ipam, ipMasq: 1 }, 7, /ipMasq: 1/]
  ] as const) {
    test(`${JSON.stringify(configuration)} is error ${code}`, () => throws(() => of(configuration), { code, message }))
  }
  test('DEL is served whatever became of the configuration', () => {
    equal(ptp.attachment(delCall('ptp', { ipam: 7 })).interface.kind, 'veth')
  })
})
