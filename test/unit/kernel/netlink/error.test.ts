// The error messages for what the kernel refuses.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Health } from '../../../../daemon/health/health.ts'
import { createMetrics } from '../../../../daemon/health/metrics.ts'
import { KernelError, refused } from '../../../../daemon/kernel/netlink/error.ts'
import { errnoName, errnoNumber } from '../../../../daemon/os/libc.ts'
import { repairReport } from '../../../../daemon/reconcile/repair-report.ts'
import { Retries } from '../../../../daemon/reconcile/retries.ts'
import { type KernelObject, keyOf } from '../../../../daemon/state/object.ts'
import { parseIp, parsePrefix } from '../../../../ipam/address.ts'

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

test('for a link that is down the cure is to set it up', () => {
  const [destination, gateway] = [parsePrefix('10.3.0.0/16'), parseIp('192.0.2.7')]
  assert.ok(destination && gateway)
  const route = { kind: 'route', table: 254, destination, metric: 0, type: 'unicast', gateway, protocol: 87 } as const
  const cure = (device: object, name: string) => refused('add', { ...route, ...device }, errnoNumber(name)).cure
  assert.equal(cure({ device: 'eth0' }, 'ENETDOWN'), 'set the link up with `ip link set eth0 up`')
  assert.match(cure({ device: 'eth0' }, 'ENETUNREACH'), /^the gateway 192\.0\.2\.7 is .* whether eth0 is down/)
  const address = { ...route, kind: 'address', device: 'cni0', prefix: parsePrefix('fd00::1/64') } as KernelObject
  assert.match(
    refused('add', address, errnoNumber('EACCES')).cure,
    /^IPv6 is switched off on cni0: sysctl -w .*disable_ipv6=0$/
  )
  assert.match(cure({}, 'EHOSTUNREACH'), /whether its link is down/)
  assert.match(new KernelError({ operation: 'add', object: 'x', errno: errnoNumber('ENETDOWN') }).cure, /ip link set/)
})

test('the condition for refused changes has the cure of the refusal', () => {
  const log = { error() {}, warn() {}, info() {}, debug() {} }
  const health = new Health(Date.now, () => undefined)
  const report = repairReport(log, createMetrics(), health)
  const said: (readonly [number, string | undefined])[] = []
  const refusals = new Retries({
    log,
    now: () => said.length * 1_000,
    refused: (errors, cure) => {
      said.push([errors.length, cure])
      report.refused(errors, cure)
    }
  })
  const object: KernelObject = { kind: 'link', name: 'weft.1' }
  const error = new KernelError({ operation: 'add', object: 'link weft.1', errno: errnoNumber('ENETDOWN') })
  for (const _ of [1, 2]) {
    refusals.add(keyOf(object), { do: 'put', object }, error)
    refusals.report()
  }
  assert.deepEqual(said, [
    [0, undefined],
    [1, error.cure]
  ])
  const condition = health.active().find(({ code }) => code === 'KERNEL_REFUSED')
  assert.equal(condition?.cure, `${error.cure}; weftd retries with increasing delays`)
})

test('a missing driver names the module', () => {
  const local = parseIp('192.168.0.1')
  assert.ok(local)
  const form = { type: 'vxlan', vni: 1, port: 8472, local, parent: 'eth0', learning: false, gbp: false } as const
  assert.match(refused('add', { kind: 'link', name: 'weft.1', form }, errnoNumber('EOPNOTSUPP')).cure, /modprobe vxlan/)
})

test("without the kernel's sentence the system's text for errno is used, also for unknown numbers", () => {
  assert.match(
    new KernelError({ operation: 'read', object: 'the links', errno: 1 }).message,
    /EPERM \(operation not permitted\)/
  )
  assert.match(new KernelError({ operation: 'read', object: 'the links', errno: 524 }).message, /ENOTSUPP \(/)
  assert.equal(errnoName(11), 'EAGAIN')
})
