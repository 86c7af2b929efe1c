// The node of the unit tests: 192.0.2.1 on eth0, subnet 10.244.1.0/24 and fd00:0:0:1::/64.
import assert from 'node:assert/strict'
import type { Node } from '../../daemon/state/node.ts'
import { parseIp, parsePrefix } from '../../ipam/address.ts'

const ip = (text: string) => parseIp(text) ?? assert.fail(text)
const prefix = (text: string) => parsePrefix(text) ?? assert.fail(text)

export const testNode = (over: Partial<Node> = {}): Node => ({
  name: 'node-1',
  identity: 'machine node-1',
  device: 'eth0',
  deviceMtu: 1500,
  addresses: [prefix('192.0.2.1/24'), prefix('2001:db8::1/64')],
  localIp: { 4: ip('192.0.2.1') },
  publicIp: { 4: ip('192.0.2.1') },
  subnet: { 4: prefix('10.244.1.0/24') },
  ipv6: true,
  links: [],
  remembered: {},
  ...over
})

export const dualStackNode = (over: Partial<Node> = {}): Node =>
  testNode({
    localIp: { 4: ip('192.0.2.1'), 6: ip('2001:db8::1') },
    publicIp: { 4: ip('192.0.2.1'), 6: ip('2001:db8::1') },
    subnet: { 4: prefix('10.244.1.0/24'), 6: prefix('fd00:0:0:1::/64') },
    ...over
  })
