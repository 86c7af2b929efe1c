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

test("a port of weftd's own is refused by name; one that a pod has can not become one", () => {
  const claims = new PortClaims()
  const tunnel = { name: 'the tunnel', key: 'Backend.Port' }
  const at = (ip: string, port: number) => hostPort(ip, { protocol: 'udp', hostPort: port })
  claims.use(tunnel, [at('192.0.2.1', 8472)])
  const message = /^host port 8472\/udp is taken by the tunnel \(Backend\.Port\), which has it of 192\.0\.2\.1$/
  const taken = { code: 'PORT_TAKEN', message, cure: /set Backend\.Port/ }
  const wanted = hostPort(undefined, { protocol: 'udp', hostPort: 8472 })
  assert.throws(() => claims.claim('a', 'pod a', [wanted]), taken)
  claims.claim('a', 'pod a', [at('192.0.2.2', 8472), at('192.0.2.1', 9000)])
  const needs = /^the tunnel \(Backend\.Port\) needs port 9000\/udp, which is a host port of pod a$/
  assert.throws(() => claims.use(tunnel, [at('192.0.2.1', 9000)]), { code: 'PORT_TAKEN', message: needs })
  assert.throws(() => claims.claim('b', 'pod b', [wanted]), taken)
  claims.use(tunnel, [at('192.0.2.1', 4789)])
  claims.claim('b', 'pod b', [at('192.0.2.1', 8472)])
  claims.use(tunnel, [])
  claims.claim('b', 'pod b', [at('192.0.2.1', 4789)])
})

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
