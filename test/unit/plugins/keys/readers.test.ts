// What the plugins share: values out of fields, the pod's name, and the reason that every object will carry.
import { deepEqual, equal, throws } from 'node:assert/strict'
import { describe, test } from 'node:test'
import { formatIp, formatPrefix } from '../../../../ipam/address.ts'
import type { DelCall } from '../../../../plugins/cni/types.ts'
import { configured, identity, ip, mac, podOf, prefix, requestedIp } from '../../../../plugins/keys/readers.ts'

const at = (value: unknown) => ({ path: 'runtimeConfig.x', value })

const call: DelCall = {
  verb: 'DEL',
  plugin: 'weft',
  network: 'cbr0',
  version: '1.1.0',
  configuration: {},
  containerId: '0123456789abcdef',
  ifname: 'eth0',
  args: '',
  path: [],
  mayBeOwnNamespace: false
}

describe('MAC addresses', () => {
  test('are read in any capitalisation, with colons or dashes', () => {
    equal(mac(at('0A-58-0a:F4:01:05')), '0a:58:0a:f4:01:05')
    deepEqual([mac(at('')), mac(at(undefined))], [undefined, undefined])
  })
  for (const wrong of [
    'x',
    '0a:58:0a:f4:01',
    '0a:58:0a:f4:01:05:06',
    '01:00:5e:00:00:01',
    'ff:ff:ff:ff:ff:ff',
    '00:00:00:00:00:00',
    '0a580af40105',
    5
  ]) {
    test(`${JSON.stringify(wrong)} is refused with its path`, () => {
      throws(() => mac(at(wrong)), { name: 'FieldError', path: 'runtimeConfig.x', value: wrong })
    })
  }
})

describe('addresses', () => {
  test('are read as values', () => {
    equal(formatIp(requestedIp(at('10.0.0.5'))), '10.0.0.5')
    equal(formatIp(requestedIp(at('fd00::5/64'))), 'fd00::5')
    equal(formatPrefix(prefix(at('10.0.0.0/24'))), '10.0.0.0/24')
    equal(ip(at('')), undefined)
  })
  test('are refused with their path when they are none', () => {
    for (const read of [
      () => requestedIp(at('10.0.0.256')),
      () => requestedIp(at(null)),
      () => prefix(at('10.0.0.0')),
      () => prefix(at(undefined)),
      () => ip(at('10.0.0.5/24'))
    ]) {
      throws(read, { name: 'FieldError', path: 'runtimeConfig.x' })
    }
  })
})

test('an error of a field becomes code 7 with path, value and rule; others pass', () => {
  throws(() => configured(() => prefix(at('x'))), {
    name: 'CniError',
    code: 7,
    message: /runtimeConfig\.x: "x"/,
    details: /prefix length/
  })
  throws(() => configured(() => JSON.parse('{')), SyntaxError)
})

describe('who it is for', () => {
  test('a pod is known by its name, with or without a namespace', () => {
    deepEqual(
      podOf(
        new Map([
          ['K8S_POD_NAMESPACE', 'default'],
          ['K8S_POD_NAME', 'web-1'],
          ['K8S_POD_UID', 'u']
        ])
      ),
      {
        namespace: 'default',
        name: 'web-1',
        uid: 'u'
      }
    )
    deepEqual(podOf(new Map([['K8S_POD_NAME', 'web']])), { namespace: '', name: 'web' })
    equal(podOf(new Map()), undefined)
    equal(podOf(new Map([['K8S_POD_NAME', 'x'.repeat(100_000)]]))?.name.length, 253, 'no name is longer')
  })
  test('the reason names pod, interface, network and container', () => {
    equal(
      identity(call, { namespace: 'default', name: 'web-1' }).because,
      'pod default/web-1, eth0 in network cbr0 (container 0123456789ab)'
    )
    equal(identity(call, undefined).because, 'container 0123456789ab, eth0 in network cbr0')
  })
  test('a namespace that the call does not know is absent', () => {
    equal('sandbox' in identity(call, undefined), false)
    equal(identity({ ...call, netns: '/run/netns/a' }, undefined).sandbox, '/run/netns/a')
  })
})
