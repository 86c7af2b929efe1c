// What an administrator reads when the kernel refuses.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { KernelError, refused } from '../../../daemon/kernel/error.ts'
import { errnoName, errnoNumber } from '../../../daemon/kernel/libc.ts'
import { parseIp, parsePrefix } from '../../../ipam/address.ts'

test('operation, object, errno and the kernel sentence are in one line, with a cure', () => {
  const [destination, gateway] = [parsePrefix('10.3.0.0/16'), parseIp('99.9.9.9')]
  assert.ok(destination && gateway)
  const error = refused(
    'add',
    { kind: 'route', table: 254, destination, metric: 0, type: 'unicast', gateway, protocol: 87 },
    101,
    'Nexthop has invalid gateway'
  )
  assert.equal(
    error.message,
    'the kernel refused to add route 10.3.0.0/16 via 99.9.9.9 proto 87: ENETUNREACH (Nexthop has invalid gateway)'
  )
  assert.equal(error.code, 'KERNEL_REFUSED')
  assert.equal(error.errnoName, 'ENETUNREACH')
  assert.match(error.cure, /gateway/)
})

test('a missing driver names the module', () => {
  const local = parseIp('192.168.0.1')
  assert.ok(local)
  const form = { type: 'vxlan', vni: 1, port: 8472, local, parent: 'eth0', learning: false, gbp: false } as const
  assert.match(refused('add', { kind: 'link', name: 'weft.1', form }, errnoNumber('EOPNOTSUPP')).cure, /modprobe vxlan/)
})

test("without a sentence the system's words stand in, also for numbers it does not know", () => {
  assert.match(
    new KernelError({ operation: 'read', object: 'the links', errno: 1 }).message,
    /EPERM \(operation not permitted\)/
  )
  assert.match(new KernelError({ operation: 'read', object: 'the links', errno: 524 }).message, /ENOTSUPP \(/)
  assert.equal(errnoName(11), 'EAGAIN')
})
