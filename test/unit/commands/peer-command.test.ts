// What commands are given of a lease and of this node, in both families; and when a lease asks for something else.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { aboutOf, ownEnvironment, peerCommand, sameCommand } from '../../../daemon/commands/peer-command.ts'
import { parseLease } from '../../../daemon/lease/lease.ts'
import { parsePrefix } from '../../../ipam/address.ts'
import { dualStackNode } from '../test-node.ts'

const prefix = (text: string) => parsePrefix(text) ?? assert.fail(text)
const added = { key: 'Backend.SubnetAddCommand', text: 'add' }
const lease = (key: string, value: object) => parseLease(key, JSON.stringify({ BackendType: 'extension', ...value }))
const BOTH = lease('10.1.2.0-24&fd00:1:2::-64', { PublicIP: '192.0.2.2', PublicIPv6: '2001:db8::2' })

test('both families of a lease have their variables, and a family that is missing has none', () => {
  assert.deepEqual(peerCommand(BOTH, { peerAdded: added, input: () => 'x' })?.environment, {
    SUBNET: '10.1.2.0/24',
    IPV6SUBNET: 'fd00:1:2::/64',
    PUBLIC_IP: '192.0.2.2',
    PUBLIC_IPV6: '2001:db8::2'
  })
  const six = peerCommand(lease('fd00:1:2::-64', { PublicIP: '0.0.0.0', PublicIPv6: '2001:db8::2' }), {
    peerAdded: added,
    input: () => ''
  })
  assert.ok(six)
  assert.deepEqual(six.environment, { IPV6SUBNET: 'fd00:1:2::/64', PUBLIC_IPV6: '2001:db8::2' })
  assert.equal(aboutOf(six), 'subnet fd00:1:2::/64 of 2001:db8::2')
})

test('this node’s own commands get the networks, too', () => {
  assert.deepEqual(ownEnvironment(dualStackNode(), { 4: prefix('10.0.0.0/8'), 6: prefix('fd00::/32') }), {
    NETWORK: '10.0.0.0/8',
    IPV6NETWORK: 'fd00::/32',
    SUBNET: '10.244.1.0/24',
    IPV6SUBNET: 'fd00:0:0:1::/64',
    PUBLIC_IP: '192.0.2.1',
    PUBLIC_IPV6: '2001:db8::1'
  })
})

test('a configuration without commands for leases has none, and only what a lease changes is run again', () => {
  const input = () => 'data'
  assert.equal(peerCommand(BOTH, { beforeLease: added, input }), undefined)
  const one = peerCommand(BOTH, { peerAdded: added, input }) ?? assert.fail()
  const other = (more: object) => sameCommand(one, { ...one, ...more })
  assert.equal(other({ removed: { key: 'Backend.SubnetRemoveCommand', text: 'remove' } }), true)
  assert.equal(other({ environment: Object.fromEntries(Object.entries(one.environment).reverse()) }), true)
  assert.equal(other({ input: 'other' }), false)
  assert.equal(other({ environment: { ...one.environment, PUBLIC_IP: '192.0.2.3' } }), false)
  assert.equal(other({ added: { ...added, text: 'add more' } }), false)
})
