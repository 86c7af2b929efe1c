// Results in seven versions (cni.md 1.7): shapes, conversions both ways, and what a conversion may lose.
import { deepEqual, equal, throws } from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { formatIp, type Ip } from '../../../../ipam/address.ts'
import {
  inVersionOf,
  parseDelegateResult,
  previousResult,
  printResult,
  resultIn
} from '../../../../plugins/cni/result.ts'
import type { AddCall, Result } from '../../../../plugins/cni/types.ts'
import { supportedVersions, type Version } from '../../../../plugins/cni/version.ts'

const full: Result = {
  interfaces: [
    { name: 'cni0', mac: '0a:00:00:00:00:01', mtu: 1450 },
    {
      name: 'eth0',
      mac: '0a:00:00:00:00:02',
      sandbox: '/run/netns/c1',
      mtu: 1450,
      socketPath: '/s',
      pciID: '0000:00:01.0'
    }
  ],
  ips: [
    { interface: 1, address: '10.1.0.5/16', gateway: '10.1.0.1' },
    { interface: 1, address: '10.1.0.6/16' },
    { interface: 1, address: 'fd00::5/64', gateway: 'fd00::1' }
  ],
  routes: [
    { dst: '0.0.0.0/0', gw: '10.1.0.1', mtu: 1400, advmss: 1360, priority: 5, table: 100, scope: 0 },
    { dst: '::/0' }
  ],
  dns: { nameservers: ['10.96.0.10'], search: [] }
}

const callWith = (version: Version, prevResult: unknown): AddCall => ({
  verb: 'ADD',
  plugin: 'weft',
  network: 'net1',
  version,
  configuration: { name: 'net1', cniVersion: version, prevResult },
  containerId: 'c1',
  ifname: 'eth0',
  netns: '/run/netns/c1',
  args: '',
  path: [],
  mayBeOwnNamespace: false
})

const parseIn = (version: Version, value: unknown) => parseDelegateResult(JSON.stringify(value), 'host-local', version)

describe('printing', () => {
  const late = [
    { name: 'cni0', mac: '0a:00:00:00:00:01' },
    { name: 'eth0', mac: '0a:00:00:00:00:02', sandbox: '/run/netns/c1' }
  ]
  for (const version of ['0.1.0', '0.2.0'] as const) {
    test(`${version} has the first address of each family, with the routes of its family`, () => {
      deepEqual(resultIn(version, full), {
        cniVersion: version,
        ip4: { ip: '10.1.0.5/16', gateway: '10.1.0.1', routes: [{ dst: '0.0.0.0/0', gw: '10.1.0.1' }] },
        ip6: { ip: 'fd00::5/64', gateway: 'fd00::1', routes: [{ dst: '::/0' }] },
        dns: { nameservers: ['10.96.0.10'] }
      })
    })
    test(`${version} cannot tell a result without an address`, () => {
      throws(() => resultIn(version, { ...full, ips: [] }), { code: 1, message: new RegExp(version) })
    })
    test(`${version} drops routes of a family that has no address`, () => {
      const written = resultIn(version, { ...full, ips: [{ address: 'fd00::5/64' }] })
      deepEqual(written, {
        cniVersion: version,
        ip6: { ip: 'fd00::5/64', routes: [{ dst: '::/0' }] },
        dns: { nameservers: ['10.96.0.10'] }
      })
    })
  }
  for (const version of ['0.3.0', '0.3.1', '0.4.0'] as const) {
    test(`${version} says the family of each address as text and has nothing newer`, () => {
      deepEqual(resultIn(version, full), {
        cniVersion: version,
        interfaces: late,
        ips: full.ips.map((each) => ({ version: each.address.startsWith('fd') ? '6' : '4', ...each })),
        routes: [{ dst: '0.0.0.0/0', gw: '10.1.0.1' }, { dst: '::/0' }],
        dns: { nameservers: ['10.96.0.10'] }
      })
    })
  }
  for (const version of ['1.0.0', '1.1.0'] as const) {
    test(`${version} has everything, and no family beside an address`, () => {
      const { interfaces, ips, routes } = full
      deepEqual(resultIn(version, full), {
        cniVersion: version,
        interfaces,
        ips,
        routes,
        dns: { nameservers: ['10.96.0.10'] }
      })
    })
  }
  test('empty lists and an empty dns are left out, and the line ends once', () => {
    const empty = {
      interfaces: [],
      ips: [{ address: '10.1.0.5/16' }],
      routes: [],
      dns: { nameservers: [], domain: '' }
    }
    equal(printResult('1.1.0', empty), '{"cniVersion":"1.1.0","ips":[{"address":"10.1.0.5/16"}]}\n')
  })
})

describe('reading', () => {
  test('0.2.0 gives addresses in the order 4, 6, all routes, and no interfaces', () => {
    const written = {
      ip6: { ip: 'fd00::5/64', routes: [{ dst: '::/0' }] },
      ip4: { ip: '10.1.0.5/16', gateway: '10.1.0.1', routes: [{ dst: '0.0.0.0/0', gw: '10.1.0.1' }] },
      dns: {}
    }
    for (const version of ['0.1.0', '0.2.0'] as const) {
      deepEqual(parseIn(version, written), {
        interfaces: [],
        ips: [{ address: '10.1.0.5/16', gateway: '10.1.0.1' }, { address: 'fd00::5/64' }],
        routes: [{ dst: '0.0.0.0/0', gw: '10.1.0.1' }, { dst: '::/0' }],
        dns: {}
      })
    }
  })
  test('from 0.3.0 on lists are read, the family beside an address is not needed', () => {
    const read = parseIn('0.4.0', {
      ips: [{ version: '4', address: '10.1.0.5/16', interface: 0 }],
      interfaces: [{ name: 'eth0', sandbox: '' }]
    })
    deepEqual(read, {
      interfaces: [{ name: 'eth0' }],
      ips: [{ interface: 0, address: '10.1.0.5/16' }],
      routes: [],
      dns: {}
    })
  })
  test('null is an empty result', () => {
    deepEqual(parseIn('1.0.0', null), { interfaces: [], ips: [], routes: [], dns: {} })
  })
  for (const [value, place] of [
    [{ ips: [{ address: '10.1.0.5' }] }, /ips\[0\]\.address: "10\.1\.0\.5"/],
    [{ ips: [{}] }, /ips\[0\]\.address/],
    [{ ips: {} }, /ips: \{\} is wrong: must be a list/],
    [{ ips: [{ address: '10.1.0.5/16', gateway: 'x' }] }, /ips\[0\]\.gateway: "x"/],
    [{ ips: [{ address: '10.1.0.5/16', interface: -1 }] }, /ips\[0\]\.interface: -1/],
    [{ routes: [{ dst: 'default' }] }, /routes\[0\]\.dst: "default"/],
    [{ interfaces: [{ mac: 'x' }] }, /interfaces\[0\]\.name/],
    [{ dns: { nameservers: 'x' } }, /dns\.nameservers: "x"/],
    [[], /must be an object/]
  ] as const) {
    test(`${JSON.stringify(value)} is a decoding error with path and value`, () => {
      throws(() => parseIn('1.1.0', value), { code: 6, details: place })
    })
  }
  test('a delegate that prints another known version is converted, an unknown one is an error', () => {
    for (const version of ['0.2.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'] as const) {
      const { interfaces: _, ...full0 } = full
      const older = printResult('0.2.0', { ...full0, interfaces: [] })
      deepEqual(
        parseDelegateResult(older, 'ipam', version).ips.map((each) => each.address),
        ['10.1.0.5/16', 'fd00::5/64']
      )
      const newer = printResult('0.3.1', full)
      deepEqual(
        parseDelegateResult(newer, 'ipam', version).routes,
        full.routes.map(({ dst, gw }) => (gw === undefined ? { dst } : { dst, gw }))
      )
    }
    throws(() => parseIn('1.0.0', { cniVersion: '9.9.9' }), { code: 1, details: /not known/ })
  })
  test('a result that is passed on is converted only from another known version', () => {
    const own = '{"cniVersion":"1.0.0","ips":[],"x":1}'
    equal(inVersionOf(own, 'ipvlan', '1.0.0'), own)
    equal(inVersionOf('no JSON', 'ipvlan', '1.0.0'), 'no JSON')
    equal(inVersionOf('{"cniVersion":"9.9.9"}', 'ipvlan', '1.0.0'), '{"cniVersion":"9.9.9"}')
    equal(
      inVersionOf('{"cniVersion":"0.2.0","ip4":{"ip":"10.1.0.5/16"}}', 'ipvlan', '1.0.0'),
      '{"cniVersion":"1.0.0","ips":[{"address":"10.1.0.5/16"}]}\n'
    )
  })
  test('what is no JSON is named with the plugin that printed it', () => {
    throws(() => parseDelegateResult('oops', 'dhcp', '1.0.0'), { code: 6, message: /"dhcp"/, details: /oops/ })
  })
})

describe('prevResult', () => {
  test('absent or null there is none', () => {
    equal(previousResult(callWith('1.1.0', undefined)), undefined)
    equal(previousResult(callWith('1.1.0', null)), undefined)
  })
  test('in the version of the call, or without one, it is read', () => {
    for (const cniVersion of ['1.0.0', '', undefined]) {
      const read = previousResult(callWith('1.0.0', { cniVersion, ips: [{ address: '10.1.0.5/16' }] }))
      deepEqual(read?.ips, [{ address: '10.1.0.5/16' }])
    }
  })
  test('in another version it is an error', () => {
    throws(() => previousResult(callWith('1.1.0', { cniVersion: '1.0.0' })), {
      code: 1,
      message: /could not parse prevResult: its cniVersion is "1\.0\.0"/
    })
    throws(() => previousResult(callWith('1.1.0', { cniVersion: '9.9.9' })), { code: 1, details: /not known/ })
  })
  test('with members of 1.1.0 it comes out as it went in', () => {
    const written = resultIn('1.1.0', full)
    const read = previousResult(callWith('1.1.0', written))
    deepEqual(read && resultIn('1.1.0', read), written)
  })
})

describe('for any result', () => {
  const ip = fc.oneof(
    fc.bigInt({ min: 0n, max: 2n ** 32n - 1n }).map((value): Ip => ({ family: 4, value })),
    fc.bigInt({ min: 0n, max: 2n ** 128n - 1n }).map((value): Ip => ({ family: 6, value }))
  )
  const cidr = ip.chain((each) =>
    fc.integer({ min: 0, max: each.family === 4 ? 32 : 128 }).map((length) => `${formatIp(each)}/${length}`)
  )
  const addresses = fc.array(
    cidr.map((address) => ({ address })),
    { minLength: 1, maxLength: 5 }
  )
  const routes = fc.array(
    cidr.map((dst) => ({ dst })),
    { maxLength: 3 }
  )
  const result = fc.record(
    { interfaces: fc.constant([]), ips: addresses, routes, dns: fc.constant({}) },
    { noNullPrototype: true }
  )

  for (const version of supportedVersions) {
    test(`${version} printed and read again keeps the addresses it can say`, () => {
      fc.assert(
        fc.property(result, (any) => {
          const again = parseDelegateResult(printResult(version, any), 'any', version)
          const texts = any.ips.map((each) => each.address)
          const firsts = [texts.find((each) => !each.includes(':')), texts.find((each) => each.includes(':'))].filter(
            (each) => each !== undefined
          )
          deepEqual(
            again.ips.map((each) => each.address),
            version < '0.3.0' ? firsts : texts
          )
          if (version >= '0.3.0') deepEqual(again, any)
        }),
        { numRuns: 60 }
      )
    })
  }
})
