// The keys of static: whose addresses count, and the error that each wrong value gets.
import { deepEqual, throws } from 'node:assert/strict'
import { describe, test } from 'node:test'
import { formatIp, formatPrefix } from '../../../../ipam/address.ts'
import { staticAddresses } from '../../../../plugins/types/static.ts'
import { addCall, delCall } from '../calls.ts'

const ipamResultOf = (configuration: object, args = '') =>
  staticAddresses.attachment(addCall('static', configuration, { args })).ipamResult
const addressesOf = (configuration: object, args = '') =>
  ipamResultOf(configuration, args)?.addresses.map(
    ({ prefix, gateway }) => `${formatPrefix(prefix)}${gateway === undefined ? '' : ` via ${formatIp(gateway)}`}`
  )
const ipam = { addresses: [{ address: '10.1.0.5/24', gateway: '10.1.0.1' }, { address: 'fd00::5/64' }] }

describe('static', () => {
  test('gives what is written', () => {
    deepEqual(addressesOf({ ipam }), ['10.1.0.5/24 via 10.1.0.1', 'fd00::5/64'])
    deepEqual(
      ipamResultOf({ ipam: { ...ipam, routes: [{ dst: '0.0.0.0/0' }], dns: { nameservers: ['10.0.0.1'] } } })?.dns,
      {
        nameservers: ['10.0.0.1']
      }
    )
  })
  test('CNI_ARGS add addresses, and set the gateway of those whose subnet holds it', () => {
    deepEqual(addressesOf({ ipam }, 'IP=10.2.0.9/24,10.3.0.9/24;GATEWAY=10.2.0.1,10.1.0.254'), [
      '10.1.0.5/24 via 10.1.0.254',
      'fd00::5/64',
      '10.2.0.9/24 via 10.2.0.1',
      '10.3.0.9/24'
    ])
  })
  test('the runtime replaces what args.cni replaces, which replaces what is written', () => {
    const args = { cni: { ips: ['10.4.0.1/24'] } }
    deepEqual(addressesOf({ ipam, args }, 'IP=10.2.0.9/24'), ['10.4.0.1/24'])
    deepEqual(addressesOf({ ipam, args, runtimeConfig: { ips: ['10.5.0.1/24'] } }), ['10.5.0.1/24'])
  })
  for (const [configuration, args, code, message] of [
    [{}, '', 7, /ipam/],
    [{ ipam: { addresses: [{ address: '10.1.0.5' }] } }, '', 7, /ipam\.addresses\[0\]\.address: "10\.1\.0\.5"/],
    [{ ipam: { addresses: [{ address: '10.1.0.5/24', gateway: 'x' }] } }, '', 7, /gateway: "x"/],
    [{ ipam }, 'IP=10.1.0.9', 4, /IP=10\.1\.0\.9/],
    [{ ipam, runtimeConfig: { ips: ['10.1.0.9'] } }, '', 7, /runtimeConfig\.ips\[0\]/]
  ] as const) {
    test(`${JSON.stringify(configuration)} with "${args}" is error ${code}`, () => {
      throws(() => ipamResultOf(configuration, args), { code, message })
    })
  }
  test('two addresses of a family need version 0.3.0', () => {
    const two = { ipam: { addresses: [{ address: '10.1.0.5/24' }, { address: '10.1.0.6/24' }] } }
    throws(() => staticAddresses.attachment(addCall('static', two, { version: '0.2.0' })), {
      code: 1,
      message: /0\.2\.0/
    })
  })
  test('DEL is served whatever became of the configuration', () => {
    deepEqual(staticAddresses.attachment(delCall('static', { ipam: 7 })).ipamResult?.addresses, [])
  })
})
