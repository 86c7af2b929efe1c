// The choice of the interface: flannel's order, and the reasons in log and errors.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BACKENDS, registry } from '../../../daemon/backend/registry.ts'
import { chooseInterface, type InterfaceOptions } from '../../../daemon/node/choose-interface.ts'
import { type KernelObject, stateOf } from '../../../daemon/state/object.ts'
import { formatIp, parseIp, parsePrefix } from '../../../ipam/address.ts'

const backends = registry(BACKENDS)
const ip = (text: string) => parseIp(text) ?? assert.fail(text)
const prefix = (text: string) => parsePrefix(text) ?? assert.fail(text)
const link = (name: string, over: object = {}): KernelObject => ({
  kind: 'link',
  name,
  up: true,
  mtu: 1500,
  form: { type: 'other', of: '' },
  ...over
})
const address = (device: string, text: string): KernelObject => ({ kind: 'address', device, prefix: prefix(text) })
const defaultRoute = (device: string, metric: number, destination = '0.0.0.0/0'): KernelObject => ({
  kind: 'route',
  table: 254,
  destination: prefix(destination),
  metric,
  type: 'unicast',
  device,
  protocol: 3
})

const host = stateOf([
  link('lo'),
  address('lo', '127.0.0.1/8'),
  link('eth0'),
  address('eth0', '192.0.2.10/24'),
  address('eth0', 'fe80::1/64'),
  address('eth0', '2001:db8::10/64'),
  link('eth1', { mtu: 9000 }),
  address('eth1', '198.51.100.10/24'),
  link('down0', { up: false }),
  address('down0', '203.0.113.1/24'),
  link('cni0', { form: { type: 'bridge' } }),
  address('cni0', '10.244.1.1/24'),
  defaultRoute('eth1', 100),
  defaultRoute('eth0', 50)
])
const options = (over: Partial<InterfaceOptions> = {}): InterfaceOptions => ({
  ifaces: [],
  ifaceRegexes: [],
  publicIp: {},
  families: [4],
  recognises: backends.recognises,
  ...over
})

const choices: readonly (readonly [string, Partial<InterfaceOptions>, string, string])[] = [
  ['without options, the default route with the smallest metric wins', {}, 'eth0', '192.0.2.10'],
  ['a name wins over the default route', { ifaces: ['eth1'] }, 'eth1', '198.51.100.10'],
  ['an address names its interface', { ifaces: ['198.51.100.10'] }, 'eth1', '198.51.100.10'],
  ['a listed interface that is missing is skipped', { ifaces: ['nope', 'eth1'] }, 'eth1', '198.51.100.10'],
  ['a listed interface that is down is skipped', { ifaces: ['down0', 'eth1'] }, 'eth1', '198.51.100.10'],
  ['a regular expression is tried on names', { ifaceRegexes: ['^eth1$'] }, 'eth1', '198.51.100.10'],
  ['a regular expression is tried on addresses', { ifaceRegexes: ['^198\\.51\\.'] }, 'eth1', '198.51.100.10'],
  ['names come before regular expressions', { ifaces: ['eth0'], ifaceRegexes: ['eth1'] }, 'eth0', '192.0.2.10'],
  [
    'what reaches an address comes last',
    { reaching: { target: ip('198.51.100.1'), device: 'eth1' } },
    'eth1',
    '198.51.100.10'
  ],
  ['an interface needs an address of each family', { ifaces: ['eth1', 'eth0'], families: [4, 6] }, 'eth0', '192.0.2.10']
]
for (const [what, over, device, local] of choices) {
  test(what, () => {
    const choice = chooseInterface(host, options(over))
    assert.equal(choice.device, device)
    assert.equal(choice.localIp[4] && formatIp(choice.localIp[4]), local)
    assert.match(choice.reasons.at(-1) ?? '', new RegExp(`^${device} .*chosen$`))
  })
}

test('IPv6 takes the global address, not the link-local one', () => {
  const choice = chooseInterface(host, options({ families: [6], ifaces: ['eth0'] }))
  assert.equal(choice.localIp[6] && formatIp(choice.localIp[6]), '2001:db8::10')
})

test('a configured public address wins over the interface’s, which stays the local one', () => {
  const choice = chooseInterface(host, options({ publicIp: { 4: ip('203.0.113.99') } }))
  assert.equal(choice.publicIp[4] && formatIp(choice.publicIp[4]), '203.0.113.99')
  assert.equal(choice.localIp[4] && formatIp(choice.localIp[4]), '192.0.2.10')
})

test('without a default route the only interface with a global address is taken', () => {
  const lonely = stateOf([
    link('lo'),
    link('eth0'),
    address('eth0', '192.0.2.10/24'),
    link('cni0', { form: { type: 'bridge' } }),
    address('cni0', '10.244.1.1/24')
  ])
  assert.equal(chooseInterface(lonely, options()).device, 'eth0')
})

test('an option set by a variable is named by that variable', () => {
  const given = new Map([
    ['iface', 'FLANNELD_IFACE'],
    ['iface-regex', 'WEFTD_IFACE_REGEX']
  ])
  assert.throws(
    () =>
      chooseInterface(
        host,
        options({ ifaces: ['eth7'], ifaceRegexes: ['^wlan'], flagName: (flag) => given.get(flag) ?? flag })
      ),
    /eth7 \(FLANNELD_IFACE eth7\): no such interface; \/\^wlan\/ \(WEFTD_IFACE_REGEX\): matches no name/
  )
})

test('when nothing fits, the error lists every candidate with its reason', () => {
  assert.throws(
    () => chooseInterface(host, options({ ifaces: ['nope', 'down0', 'lo', '203.0.113.77'], ifaceRegexes: ['^wlan'] })),
    /nope .*no such interface; down0 .*is down; lo .*loopback.*; 203\.0\.113\.77 .*no interface has this address; \/\^wlan\/ .*matches no name/
  )
  assert.throws(
    () => chooseInterface(host, options({ ifaceRegexes: ['('] })),
    /--iface-regex \( is not a regular expression/
  )
  assert.throws(() => chooseInterface(stateOf([link('lo')]), options()), /no default route/)
})

test('a default route with several next hops leads to the first of their links that is suitable, and an error names all', () => {
  const multipath = (...devices: readonly string[]): KernelObject => ({
    ...defaultRoute('', 0),
    ...{ device: undefined as never, nextHops: devices.map((device) => ({ device, gateway: ip('192.0.2.254') })) }
  })
  const links = [...host.values()].filter(({ kind }) => kind !== 'route')
  const chosen = (...devices: readonly string[]) =>
    chooseInterface(stateOf([...links, multipath(...devices)]), options())
  assert.equal(chosen('eth1', 'eth0').device, 'eth1')
  assert.deepEqual(chosen('down0', 'eth0').reasons, [
    'down0 (next hop of the default route): is down',
    'eth0 (next hop of the default route): chosen'
  ])
  assert.throws(() => chosen('down0', 'lo'), {
    code: 'NO_INTERFACE',
    message:
      'no interface leads to the other nodes: down0 (next hop of the default route): is down; lo (next hop of the default route): the loopback interface reaches no other node; this host has eth0 (192.0.2.10, 2001:db8::10), eth1 (198.51.100.10), down0 (203.0.113.1), cni0 (10.244.1.1)'
  })
})

const flagged = (device: string, text: string, over: object = {}): KernelObject =>
  ({ ...address(device, text), ...over }) as KernelObject
const published = (...texts: readonly string[]) => ({ published: { 4: texts.map(ip) } })
const VIRTUAL = '192.0.2.100/32'
/** Addresses of eth0 in the kernel's order → the one that is published. */
const several: readonly (readonly [string, readonly KernelObject[], Partial<InterfaceOptions>, string])[] = [
  [
    'a regular expression that matches one of several addresses names that one',
    [address('eth0', '203.0.113.5/24'), address('eth0', '10.64.7.5/24')],
    { ifaceRegexes: ['^10\\.64\\.'] },
    '10.64.7.5'
  ],
  [
    'the source with which the kernel reaches --iface-can-reach',
    [address('eth0', '203.0.113.5/24'), address('eth0', '10.64.7.5/24')],
    { reaching: { target: ip('10.64.7.9'), device: 'eth0', source: ip('10.64.7.5') } },
    '10.64.7.5'
  ],
  [
    'the source of the default route',
    [
      address('eth0', '203.0.113.5/24'),
      address('eth0', '10.64.7.5/24'),
      { ...defaultRoute('eth0', 0), source: ip('10.64.7.5') } as KernelObject
    ],
    published('203.0.113.5'),
    '10.64.7.5'
  ],
  ['a virtual address comes last', [address('eth0', VIRTUAL), address('eth0', '192.0.2.10/24')], {}, '192.0.2.10'],
  ['a virtual address alone is taken', [address('eth0', VIRTUAL)], {}, '192.0.2.100'],
  [
    'what the lease has stays, whatever the kernel lists first',
    [address('eth0', '192.0.2.20/24'), address('eth0', '192.0.2.10/24')],
    published('192.0.2.10'),
    '192.0.2.10'
  ],
  [
    'so does a /32, as in clouds that route',
    [address('eth0', '192.0.2.20/24'), address('eth0', '10.128.0.2/32')],
    published('10.128.0.2'),
    '10.128.0.2'
  ],
  [
    'an address that was gone for a moment is returned to',
    [address('eth0', '192.0.2.100/24'), address('eth0', '192.0.2.10/24')],
    published('192.0.2.10', '192.0.2.100'),
    '192.0.2.10'
  ],
  [
    'a deprecated address does not stay',
    [flagged('eth0', '192.0.2.10/24', { deprecated: true }), address('eth0', '192.0.2.20/24')],
    published('192.0.2.10'),
    '192.0.2.20'
  ],
  [
    'permanent comes before dynamic',
    [flagged('eth0', '192.0.2.20/24', { dynamic: true }), address('eth0', '192.0.2.10/24')],
    {},
    '192.0.2.10'
  ],
  [
    'dynamic comes before virtual',
    [address('eth0', VIRTUAL), flagged('eth0', '192.0.2.10/24', { dynamic: true })],
    {},
    '192.0.2.10'
  ],
  [
    'the first address of a prefix comes before a secondary one',
    [flagged('eth0', '192.0.2.20/24', { secondary: true }), address('eth0', '192.0.2.10/24')],
    {},
    '192.0.2.10'
  ]
]
for (const [what, objects, over, local] of several)
  test(`of several addresses: ${what}`, () => {
    const choice = chooseInterface(
      stateOf([link('lo'), link('eth0'), defaultRoute('eth0', 50), ...objects]),
      options(over)
    )
    assert.equal(choice.localIp[4] && formatIp(choice.localIp[4]), local)
  })

test('of IPv6 addresses a temporary one comes last', () => {
  const objects = [
    flagged('eth0', '2001:db8::7/64', { secondary: true, dynamic: true }),
    address('eth0', '2001:db8::1/64')
  ]
  const choice = chooseInterface(stateOf([link('eth0'), ...objects]), options({ families: [6] }))
  assert.equal(choice.localIp[6] && formatIp(choice.localIp[6]), '2001:db8::1')
})

test('an interface that has lost its address is waited for instead of publishing a virtual one', () => {
  const at =
    (...objects: readonly KernelObject[]) =>
    () =>
      chooseInterface(stateOf([link('eth0'), ...objects]), options({ ...published('192.0.2.10'), isServing: true }))
  assert.throws(
    at(address('eth0', VIRTUAL)),
    /eth0 .*has lost its address 192\.0\.2\.10, and 192\.0\.2\.100 may not stay/
  )
  assert.equal(
    at(address('eth0', VIRTUAL), address('eth0', '192.0.2.11/24'))().localIp[4]?.value,
    ip('192.0.2.11').value
  )
})

test('an address of lo is taken where it was asked for: no neighbours, and the MTU of the uplinks', () => {
  const objects = [
    ...[link('lo', { mtu: 65_536 }), address('lo', '127.0.0.1/8'), address('lo', '10.9.9.1/24')],
    ...[link('eth0', { mtu: 9000 }), address('eth0', '10.0.1.1/24'), link('eth1'), address('eth1', '10.0.2.1/24')]
  ]
  const over: readonly Partial<InterfaceOptions>[] = [
    { ifaces: ['10.9.9.1'] },
    { ifaces: ['lo'] },
    { ifaceRegexes: ['^10\\.9\\.'] },
    { reaching: { target: ip('10.9.9.2'), device: 'eth0', source: ip('10.9.9.1') } }
  ]
  for (const one of over) {
    const { device, mtu, addresses, localIp } = chooseInterface(stateOf(objects), options(one))
    assert.deepEqual([device, mtu, addresses, localIp[4]], ['lo', 1500, [], ip('10.9.9.1')])
  }
  const route = { ...defaultRoute('eth0', 0), source: ip('10.9.9.1') } as KernelObject
  assert.deepEqual(
    chooseInterface(stateOf([...objects, route]), options()).mtu,
    9000,
    'the source of the default route'
  )
  assert.equal(chooseInterface(stateOf(objects), options({ ifaceRegexes: ['.'] })).device, 'eth0', 'lo matches last')
})
