// Which public addresses in leases can't be another node's, as this host sees them.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { addressFault, concernedBy, hostAddresses } from '../../../daemon/peers/host-addresses.ts'
import { type KernelObject, stateOf } from '../../../daemon/state/object.ts'
import { parseIp, parsePrefix } from '../../../ipam/address.ts'
import { dualStackNode } from '../test-node.ts'

const ip = (text: string) => parseIp(text) ?? assert.fail(text)
const address = (device: string, text: string): KernelObject => ({
  ...({ kind: 'address', device } as const),
  prefix: parsePrefix(text) ?? assert.fail(text)
})
const link = (name: string, up: boolean): KernelObject => ({
  ...({ kind: 'link', name, up, mtu: 1500 } as const),
  form: { type: 'other', of: '' }
})
const HOST: readonly KernelObject[] = [
  ...[link('eth0', true), link('docker0', true), link('off0', false)],
  ...[address('lo', '127.0.0.1/8'), address('eth0', '192.0.2.1/24'), address('eth0', '2001:db8::1/64')],
  ...[address('eth0', 'fe80::1/64'), address('docker0', '172.17.0.1/16'), address('ppp0', '198.51.100.1/31')],
  ...[address('off0', '203.0.113.1/24'), address('kube-ipvs0', '192.0.2.77/32')]
]
const viewOf = (objects: readonly KernelObject[], over: object = {}) => ({
  node: dualStackNode(over),
  host: hostAddresses(stateOf(objects))
})

const cases: readonly (readonly [what: string, address: string, fault: RegExp | undefined, more?: KernelObject])[] = [
  ['another host on the link', '192.0.2.9', undefined],
  ['behind a router', '203.0.114.9', undefined],
  ['the first address of a network, which Linux gives to hosts', '192.0.2.0', undefined],
  ['a router that may be a node, too', '192.0.2.254', undefined],
  ['one of this host', '172.17.0.1', /^publishes 172\.17\.0\.1, an address of docker0 on this host; .*--iface/],
  ['one that is bound here for a Service', '192.0.2.77', /kube-ipvs0/],
  ['a broadcast address', '192.0.2.255', /the broadcast address of the network of eth0/],
  ['the other end of a /31', '198.51.100.0', undefined],
  ['the last address of a network whose link is down', '203.0.113.255', undefined],
  ['the routers’ anycast address', '2001:db8::', /the anycast address of the network of eth0/],
  ['another IPv6 host', '2001:db8::2', undefined],
  ['a link-local IPv6 address', 'fe80::2', undefined],
  ['a pod of ours', '10.244.1.9', /an address of this node's pods/],
  ['a link-local address of no link', '169.254.7.7', /a link-local address, and no link/],
  ['a link-local address of a link', '169.254.7.7', undefined, address('eth0', '169.254.3.4/16')],
  ['the cloud’s metadata', '169.254.169.254', /link-local/, address('eth1', '169.254.3.4/24')]
]
for (const [what, text, fault, more] of cases)
  test(`a lease that publishes ${what}, ${text}, ${fault === undefined ? 'is used' : 'is refused'}`, () => {
    const found = addressFault({ [ip(text).family]: ip(text) }, viewOf(more === undefined ? HOST : [...HOST, more]))
    if (fault === undefined) assert.equal(found, undefined)
    else assert.match(found ?? '', fault)
  })

test('nodes that are themselves reached by link-local addresses use those of others', () => {
  const publicIp = { 4: ip('169.254.1.1') }
  assert.equal(addressFault({ 4: ip('169.254.7.7') }, viewOf(HOST, { publicIp })), undefined)
})

test('a change of the host’s addresses concerns the leases that publish these, and no others', () => {
  const leases = new Map(
    ['192.0.2.9', '192.0.2.77', '169.254.7.7'].map((text) => [text, { publicIp: { 4: ip(text) } }])
  )
  const [before, same] = [viewOf(HOST), viewOf([...HOST].reverse())]
  assert.deepEqual(concernedBy(leases, before, same), [])
  assert.deepEqual(concernedBy(leases, before, viewOf(HOST.slice(0, -1))), ['192.0.2.77'])
  const now = viewOf([...HOST, address('eth1', '169.254.3.4/16')])
  assert.deepEqual(concernedBy(leases, before, now), ['169.254.7.7'])
})
