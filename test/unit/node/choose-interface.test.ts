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
      'no interface leads to the other nodes: down0 (next hop of the default route): is down; lo (next hop of the default route): the loopback interface reaches no other node'
  })
})
