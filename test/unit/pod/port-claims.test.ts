// Claims on host ports: which overlap, whose name the error has, and what is given back.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PortClaims } from '../../../daemon/pod/port-claims.ts'
import { parseIp } from '../../../ipam/address.ts'
import type { HostPort } from '../../../plugins/attachment.ts'

const hostPort = (hostIp?: string, over: Partial<HostPort> = {}): HostPort => ({
  protocol: 'tcp',
  hostPort: 8080,
  containerPort: 80,
  ...(hostIp === undefined ? {} : { hostIp: parseIp(hostIp) ?? assert.fail(hostIp) }),
  ...over
})

for (const [held, wanted, taken] of [
  [hostPort(), hostPort(), true],
  [hostPort(), hostPort('192.0.2.1'), true],
  [hostPort('192.0.2.1'), hostPort(), true],
  [hostPort('192.0.2.1'), hostPort('192.0.2.1'), true],
  [hostPort('192.0.2.1'), hostPort('0.0.0.0'), true],
  [hostPort('192.0.2.1'), hostPort('192.0.2.2'), false],
  [hostPort('0.0.0.0'), hostPort('::'), false],
  [hostPort('fd00::1'), hostPort('0.0.0.0'), false],
  [hostPort(), hostPort(undefined, { protocol: 'udp' }), false],
  [hostPort(), hostPort(undefined, { hostPort: 8081 }), false]
] as const) {
  const text = (each: HostPort) => `${each.hostIp?.value ?? 'any'} ${each.protocol} ${each.hostPort}`
  test(`${text(held)} and ${text(wanted)} ${taken ? 'overlap' : 'do not overlap'}`, () => {
    const claims = new PortClaims()
    claims.claim('a', 'pod default/a', [held])
    const second = () => claims.claim('b', 'pod default/b', [wanted])
    if (taken)
      assert.throws(second, { code: 'PORT_TAKEN', message: /^host port 8080\/tcp.* is taken by pod default\/a/ })
    else second()
  })
}

test('all of a call are taken or none, and the call that took them can give back just those', () => {
  const claims = new PortClaims()
  const giveBack = claims.claim('a', 'pod a', [hostPort(), hostPort(undefined, { hostPort: 1 })])
  assert.throws(() => claims.claim('b', 'pod b', [hostPort(undefined, { hostPort: 2 }), hostPort()]))
  claims.claim('c', 'pod c', [hostPort(undefined, { hostPort: 2 })])
  claims.claim('a', 'pod a', [hostPort(undefined, { hostPort: 3 })])
  giveBack()
  claims.claim('d', 'pod d', [hostPort(), hostPort(undefined, { hostPort: 1 })])
  assert.throws(() => claims.claim('d', 'pod d', [hostPort(undefined, { hostPort: 3 })]))
  claims.release('a')
  claims.claim('d', 'pod d', [hostPort(undefined, { hostPort: 3 })])
})
