// The keys of bandwidth beside the limits themselves (keys/bandwidth.test.ts): what it is for, and the error that each
// wrong value gets.
import { deepEqual, equal, throws } from 'node:assert/strict'
import { describe, test } from 'node:test'
import { bandwidth } from '../../../../plugins/types/bandwidth.ts'
import { addCall, delCall } from '../calls.ts'

const of = (configuration: object) => bandwidth.attachment(addCall('bandwidth', configuration))

describe('bandwidth', () => {
  test('limits as the runtime says, in whatever letter case, and nothing when nobody says anything', () => {
    deepEqual(of({ runtimeConfig: { Bandwidth: { IngressRate: 8000, IngressBurst: 80 } } }).bandwidth, {
      ingress: { rateBitsPerSecond: 8000, burstBits: 80 }
    })
    equal(of({}).bandwidth, undefined)
    deepEqual(of({}).interface, { kind: 'existing', limits: true })
  })
  for (const [configuration, code, message] of [
    [{ ingressRate: 8000 }, 7, /ingressRate: 8000/],
    [{ shapedSubnets: ['10.0.0.0/8', 'x'] }, 7, /shapedSubnets\[1\]: "x"/],
    [{ shapedSubnets: ['10.0.0.0/8'], unshapedSubnets: ['::/0'] }, 7, /unshapedSubnets: \["::\/0"\]/],
    [{ unshapedSubnets: '10.0.0.0/8' }, 7, /unshapedSubnets/]
  ] as const) {
    test(`${JSON.stringify(configuration)} is error ${code}`, () => throws(() => of(configuration), { code, message }))
  }
  test('DEL is served whatever became of the configuration', () => {
    const { interface: config } = bandwidth.attachment(delCall('bandwidth', { ingressRate: 'x' }))
    deepEqual(config, { kind: 'existing', limits: true })
  })
})
