// The extension backend: what it publishes and names; the commands themselves are run in daemon/commands/.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BACKENDS, registry } from '../../../daemon/backend/registry.ts'
import { parseLease } from '../../../daemon/lease/lease.ts'
import { textOf } from '../../../daemon/state/text.ts'
import { formatIp, parsePrefix } from '../../../ipam/address.ts'
import { dualStackNode, testNode } from '../test-node.ts'

const backend = registry(BACKENDS).configure('Extension', {
  prestartupcommand: 'one',
  PostStartupCommand: '',
  SubnetAddCommand: null
})
const lease = (data?: unknown) =>
  parseLease('10.244.2.0-24', JSON.stringify({ PublicIP: '192.0.2.2', BackendType: 'extension', BackendData: data }))

test('keys match in any letter case, and a command without text is none', () => {
  const { input: _, ...commands } = backend.commands ?? assert.fail()
  assert.deepEqual(commands, { beforeLease: { key: 'Backend.prestartupcommand', text: 'one' } })
})

test('what the command before the lease printed is the lease’s BackendData, as flannel has it', () => {
  assert.deepEqual(backend.publish(testNode({ printed: '02:00:00:00:00:01' })), { 4: '02:00:00:00:00:01' })
  assert.deepEqual(backend.publish(dualStackNode({ printed: '' })), { 4: '' })
  assert.deepEqual(backend.publish(testNode()), {})
})

test('the commands for a node read what it published; what is no text makes its lease malformed', () => {
  const input = (data?: unknown) => backend.commands?.input(lease(data))
  assert.equal(input('a\nb'), 'a\nb')
  assert.equal(input(null), '')
  assert.equal(input(), '')
  assert.deepEqual(backend.peer(lease('x'), testNode()), [])
  assert.throws(() => backend.peer(lease({ VNI: 1 }), testNode()), { code: 'LEASE_MALFORMED', message: /\{"VNI":1\}/ })
})

test('the node holds the gateway’s address, and pods get the MTU of the interface', () => {
  const own = backend.own(testNode()).map(textOf).join('\n')
  assert.match(own, /weft-gw/)
  assert.match(own, /10\.244\.1\.1\/32/)
  assert.equal(formatIp(backend.held(parsePrefix('10.244.2.0/24') ?? assert.fail())), '10.244.2.1')
  assert.equal(backend.mtu(testNode({ deviceMtu: 1400 })), 1400)
})
