// Which of the host's objects are observed: what the choice of the interface and the pod network depend on, and no
// more.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isOfInterest } from '../../../daemon/node/interest.ts'
import type { KernelObject } from '../../../daemon/state/object.ts'
import { parsePrefix } from '../../../ipam/address.ts'

const prefix = (text: string) => parsePrefix(text) ?? assert.fail(text)
const route = (destination: string, table = 254): KernelObject => ({
  ...({ kind: 'route', destination: prefix(destination), metric: 0, type: 'unicast', protocol: 3 } as const),
  table
})
const networks = { 4: prefix('10.244.0.0/16') }

for (const [what, object, expected] of [
  ['a link', { kind: 'link', name: 'eth0' }, true],
  ['an address', { kind: 'address', device: 'eth0', prefix: prefix('192.0.2.1/24') }, true],
  ['a default route', route('0.0.0.0/0'), true],
  ['a route into the pod network', route('10.244.7.0/24'), true],
  ['a default route of another table', route('0.0.0.0/0', 100), false],
  ['a route elsewhere', route('198.51.100.0/24'), false],
  ['a route of a family without a pod network', route('fd00::/64'), false],
  ['a kernel setting', { kind: 'sysctl', path: 'net/ipv4/ip_forward', value: '1' }, false]
] as const)
  test(`${what} is ${expected ? '' : 'not '}observed`, () =>
    assert.equal(isOfInterest(object as KernelObject, networks), expected))
