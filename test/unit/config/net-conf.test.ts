// flannel's configuration: its defaults, its rules for both families, and errors that name path, value, rule and
// source.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import fc from 'fast-check'
import { BACKENDS, registry } from '../../../daemon/backend/registry.ts'
import { WeftError } from '../../../daemon/base/error.ts'
import { type NetConf, type NetworkRange, parseNetConf } from '../../../daemon/config/net-conf.ts'
import { configured } from '../../../daemon/node/configured.ts'
import { contains, FAMILIES, formatIp, formatPrefix, network, perFamily } from '../../../ipam/address.ts'
import { compiledSchemas, GENERATED } from '../../../scripts/schemas.ts'

const backends = registry(BACKENDS)
const SOURCE = 'etcd key /coreos.com/network/config'
const parse = (value: unknown): NetConf => parseNetConf(JSON.stringify(value), SOURCE)
const shown = (range: NetworkRange | undefined): string =>
  range === undefined
    ? 'off'
    : `${formatPrefix(range.network)} in /${range.subnetLength} ${formatIp(range.subnetMin)}…${formatIp(range.subnetMax)}`

for (const [value, v4, v6 = 'off'] of [
  [{ Network: '10.244.0.0/16' }, '10.244.0.0/16 in /24 10.244.1.0…10.244.255.0'],
  [{ network: '10.244.9.9/16' }, '10.244.0.0/16 in /24 10.244.1.0…10.244.255.0'],
  [{ Network: '10.0.0.0/22' }, '10.0.0.0/22 in /24 10.0.1.0…10.0.3.0'],
  [{ Network: '10.0.0.0/23' }, '10.0.0.0/23 in /25 10.0.0.128…10.0.1.128'],
  [{ Network: '10.0.0.0/28' }, '10.0.0.0/28 in /30 10.0.0.4…10.0.0.12'],
  [
    { Network: '10.0.0.0/8', SUBNETLEN: 20, subnetMin: '10.10.0.0', SubnetMax: '10.99.0.0' },
    '10.0.0.0/8 in /20 10.10.0.0…10.99.0.0'
  ],
  [{ Network: '10.244.0.0/16', SubnetLen: 0, SubnetMin: null }, '10.244.0.0/16 in /24 10.244.1.0…10.244.255.0'],
  [{ Network: '10.244.0.0/16', IPv6Network: 'nonsense' }, '10.244.0.0/16 in /24 10.244.1.0…10.244.255.0'],
  [
    { Network: '10.244.0.0/16', EnableIPv6: true, IPv6Network: 'fd00:10::/48' },
    '10.244.0.0/16 in /24 10.244.1.0…10.244.255.0',
    'fd00:10::/48 in /64 fd00:10:0:1::…fd00:10:0:ffff::'
  ],
  [
    { EnableIPv4: false, enableipv6: true, ipv6network: 'fd00::/62' },
    'off',
    'fd00::/62 in /64 fd00:0:0:1::…fd00:0:0:3::'
  ],
  [{ EnableIPv4: false, EnableIPv6: true, IPv6Network: 'fd00::/124' }, 'off', 'fd00::/124 in /126 fd00::4…fd00::c'],
  [
    {
      EnableIPv4: false,
      EnableIPv6: true,
      IPv6Network: 'fd00::/56',
      IPv6SubnetLen: 80,
      IPv6SubnetMin: 'fd00::',
      IPv6SubnetMax: 'fd00:0:0:1::'
    },
    'off',
    'fd00::/56 in /80 fd00::…fd00:0:0:1::'
  ]
] as const)
  test(`${JSON.stringify(value)} means ${v4} and ${v6}`, () => {
    const { families } = parse(value)
    assert.deepEqual([shown(families[4]), shown(families[6])], [v4, v6])
  })

test('without a Backend it is udp; a Backend keeps its keys as they were written', () => {
  assert.deepEqual(parse({ Network: '10.0.0.0/16' }).backend, { Type: 'udp' })
  const conf = parse({
    Network: '10.0.0.0/16',
    backend: { type: 'VXLAN', vni: 7, Directrouting: true },
    ENABLEnftables: true
  })
  assert.deepEqual([conf.backendType, conf.backend], ['vxlan', { type: 'VXLAN', vni: 7, Directrouting: true }])
})

test('unknown keys are ignored', () => {
  assert.equal(
    shown(parse({ Network: '10.0.0.0/16', SubnetLength: 'x', Extra: [1] }).families[4]).startsWith('10.0.0.0/16'),
    true
  )
})

for (const [value, message] of [
  ['', `${SOURCE} is empty`],
  ['{"Network":', /^etcd key \/coreos.com\/network\/config is not JSON, which has no comments.* \(/],
  [
    '[]',
    `the whole value is [] in ${SOURCE}; it must be a JSON object as in {"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}`
  ],
  [{}, `Network is missing in ${SOURCE}; it must be an IPv4 network with prefix length, since EnableIPv4 is true`],
  [{ network: 10 }, `network is 10 in ${SOURCE}; it must be an IPv4 network as in "10.244.0.0/16"`],
  [{ Network: '10.244.0.0' }, /^Network is "10.244.0.0" .* IPv4 network with prefix length/],
  [{ Network: 'fd00::/48' }, /^Network is "fd00::\/48" .* IPv4 network/],
  [{ Network: '10.244.0.0/29' }, /^Network is "10.244.0.0\/29" .* at most \/28/],
  [
    { Network: '10.244.0.0/16', subnetlen: 17 },
    /^subnetlen is 17 .* from 18 to 30, so that four subnets fit into 10.244.0.0\/16/
  ],
  [{ Network: '10.244.0.0/16', SubnetLen: 31 }, /^SubnetLen is 31 .* at most 30/],
  [{ Network: '10.244.0.0/16', SubnetLen: '24' }, /^SubnetLen is "24" .* at most 30, without quotes$/],
  [{ Network: '10.244.0.0/16', SubnetLen: 31 }, /at most 30$/],
  [
    { Network: '10.244.0.0/16', SubnetMin: '10.245.0.0' },
    /^SubnetMin is "10.245.0.0" .* inside Network 10.244.0.0\/16/
  ],
  [
    { Network: '10.244.0.0/16', SubnetMax: '10.244.7.1' },
    /^SubnetMax is "10.244.7.1" .* first address of a \/24 as 10.244.7.0 is/
  ],
  [
    { Network: '10.244.0.0/16', SubnetMin: '10.244.9.0', SubnetMax: '10.244.8.0' },
    /^SubnetMax is "10.244.8.0" .* at least SubnetMin/
  ],
  [{ Network: '10.244.0.0/16', SubnetMin: '' }, /^SubnetMin is "" .* IPv4 address/],
  [{ Network: '10.244.0.0/16', Backend: 'vxlan' }, /^Backend is "vxlan" .* object with the key Type/],
  [{ Network: '10.244.0.0/16', backend: { VNI: 1 } }, /^backend.Type is missing .* name of a backend/],
  [{ Network: '10.244.0.0/16', backend: { TYPE: 1 } }, /^backend.TYPE is 1 .* name of a backend/],
  [{ Network: '10.244.0.0/16', EnableIPv6: 'yes' }, /^EnableIPv6 is "yes" .* true or false/],
  [{ Network: '10.244.0.0/16', EnableIPv6: true }, /^IPv6Network is missing .* since EnableIPv6 is true/],
  [
    { Network: '10.244.0.0/16', EnableIPv6: true, IPv6Network: 'fd00::/125' },
    /^IPv6Network is "fd00::\/125" .* at most \/124/
  ],
  [{ EnableIPv4: false }, /^EnableIPv4 is false .* needs one of the two/]
] as const)
  test(`${JSON.stringify(value)} is refused by name, value and rule`, () => {
    const run = () => (typeof value === 'string' ? parseNetConf(value, SOURCE) : parse(value))
    assert.throws(run, { name: 'WeftError', code: 'CONFIG_INVALID', message })
  })

for (const text of [
  ...['127.0.0.0/8', '127.5.0.0/16', '126.0.0.0/7', '224.0.0.0/16', '239.0.0.0/8', '128.0.0.0/1', '0.0.0.0/0'],
  ...['169.254.0.0/16', '169.254.4.0/22', '0.0.0.0/8', '0.1.0.0/16'],
  ...['::/0', '::/48', 'ff00::/8', 'ff02::/64', 'fe80::/10', 'fe80:1::/48']
])
  test(`${text} is no network for pods`, () => {
    const [value, path] = text.includes(':')
      ? [{ EnableIPv4: false, EnableIPv6: true, IPv6Network: text }, 'IPv6Network']
      : [{ Network: text }, 'Network']
    const started = `${path} is "${text}" in ${SOURCE}; it must be a network whose addresses pods can have`
    assert.throws(
      () => parse(value),
      (error) => error instanceof WeftError && error.code === 'CONFIG_INVALID' && error.message.startsWith(started)
    )
  })

for (const text of [
  ...[
    '10.0.0.0/8',
    '172.16.0.0/12',
    '192.168.0.0/16',
    '100.64.0.0/10',
    '192.0.2.0/24',
    '198.18.0.0/15',
    '240.0.0.0/4',
    '240.10.0.0/16',
    '203.0.113.0/24'
  ],
  ...['8.0.0.0/8', '126.0.0.0/8', '128.0.0.0/8', '223.0.0.0/8', '168.0.0.0/7', '1.0.0.0/8'],
  ...['fd00::/48', 'fc00::/7', '2001:db8::/32', '2600::/32', '64:ff9b:1::/48', 'fec0::/10']
])
  test(`${text} is a network for pods`, () => {
    const family = text.includes(':') ? 6 : 4
    const value = family === 6 ? { EnableIPv4: false, EnableIPv6: true, IPv6Network: text } : { Network: text }
    assert.equal(formatPrefix(parse(value).families[family]?.network ?? assert.fail()), text)
  })

for (const text of ['', 'Network: 10.244.0.0/16'])
  test(`what the cure of ${JSON.stringify(text)} writes is a whole configuration`, () => {
    const error = assertThrown(() => parseNetConf(text, SOURCE))
    const written = /{.*}/.exec(error.cure)?.[0] ?? assert.fail(error.cure)
    assert.equal(configured(written, SOURCE, backends).conf.backendType, 'vxlan')
  })

function assertThrown(run: () => unknown): WeftError {
  try {
    run()
  } catch (error) {
    if (error instanceof WeftError) return error
    throw error
  }
  assert.fail('nothing was refused')
}

test('whatever the JSON is, the answer is a configuration that keeps its rules, or CONFIG_INVALID', () => {
  const key = fc.constantFrom(
    'Network',
    'subnetLen',
    'SUBNETMIN',
    'SubnetMax',
    'EnableIPv4',
    'EnableIPv6',
    'IPv6Network',
    'IPv6SubnetLen',
    'IPv6SubnetMax',
    'Backend'
  )
  const octet = fc.integer({ min: 0, max: 255 })
  const cidr = fc
    .tuple(octet, octet, octet, fc.integer({ min: 0, max: 33 }))
    .map(([a, b, c, length]) => `${a}.${b}.${c}.0/${length}`)
  const cidr6 = fc
    .tuple(fc.integer({ min: 0, max: 0xffff }), fc.integer({ min: 0, max: 129 }))
    .map(([a, length]) => `${a.toString(16)}::/${length}`)
  const value = fc.oneof(
    cidr,
    cidr6,
    fc.ipV4(),
    fc.ipV6(),
    fc.boolean(),
    fc.integer({ min: -1, max: 130 }),
    fc.constant(null),
    fc.constant({ type: 'vxlan' }),
    fc.jsonValue()
  )
  fc.assert(
    fc.property(fc.dictionary(key, value), (written) => {
      let conf: NetConf
      try {
        conf = parse(written)
      } catch (error) {
        assert.equal((error as { code?: string }).code, 'CONFIG_INVALID', String(error))
        return
      }
      assert.ok(FAMILIES.some((family) => conf.families[family] !== undefined))
      for (const [, range] of perFamily(conf.families))
        for (const end of [range.subnetMin, range.subnetMax]) {
          assert.ok(contains(range.network, { ip: end, length: range.subnetLength }))
          assert.equal(network({ ip: end, length: range.subnetLength }).ip.value, end.value)
          assert.ok(range.subnetLength >= range.network.length + 2)
        }
    }),
    { numRuns: 3_000 }
  )
})

test('the schemas compiled ahead are what the schemas give (node scripts/schemas.ts writes them)', () => {
  assert.equal(readFileSync(GENERATED, 'utf8'), compiledSchemas())
})

test('a configuration nested a thousandfold is refused as such, not by an overflow of the stack', () => {
  for (const text of ['['.repeat(9_999), `{"Network":${'{"0":'.repeat(9_999)}1${'}'.repeat(9_999)}}`])
    assert.throws(() => parseNetConf(text, SOURCE), {
      ...{
        code: 'CONFIG_INVALID',
        message: `${SOURCE} is not JSON with at most 64 arrays and objects inside each other`
      }
    })
  assert.throws(() => parse({ Network: '['.repeat(99) }), /Network is "\[/)
})

test('what is no JSON is not quoted where it may have a secret', () => {
  assert.throws(() => parseNetConf('{"PSK":hidden}', SOURCE), {
    code: 'CONFIG_INVALID',
    message: /^etcd key .* is not JSON, .* \(Unexpected token 'h'\)$/
  })
  assert.throws(() => parseNetConf('{"Network":shown}', SOURCE), /shown/)
})
