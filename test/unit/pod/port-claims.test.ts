// Who has which port of the host: what meets, whose name is said, and what is given back.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PortClaims } from '../../../daemon/pod/port-claims.ts'
import { parseIp } from '../../../ipam/address.ts'
import type { HostPort } from '../../../plugins/attachment.ts'

const wish = (hostIp?: string, over: Partial<HostPort> = {}): HostPort => ({
  protocol: 'tcp',
  hostPort: 8080,
  containerPort: 80,
  ...(hostIp === undefined ? {} : { hostIp: parseIp(hostIp) ?? assert.fail(hostIp) }),
  ...over
})

for (const [held, wanted, taken] of [
  [wish(), wish(), true],
  [wish(), wish('192.0.2.1'), true],
  [wish('192.0.2.1'), wish(), true],
  [wish('192.0.2.1'), wish('192.0.2.1'), true],
  [wish('192.0.2.1'), wish('0.0.0.0'), true],
  [wish('192.0.2.1'), wish('192.0.2.2'), false],
  [wish('0.0.0.0'), wish('::'), false],
  [wish('fd00::1'), wish('0.0.0.0'), false],
  [wish(), wish(undefined, { protocol: 'udp' }), false],
  [wish(), wish(undefined, { hostPort: 8081 }), false]
] as const) {
  const text = (each: HostPort) => `${each.hostIp?.value ?? 'any'} ${each.protocol} ${each.hostPort}`
  test(`${text(held)} and ${text(wanted)} ${taken ? 'meet' : 'stand side by side'}`, () => {
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
  const giveBack = claims.claim('a', 'pod a', [wish(), wish(undefined, { hostPort: 1 })])
  assert.throws(() => claims.claim('b', 'pod b', [wish(undefined, { hostPort: 2 }), wish()]))
  claims.claim('c', 'pod c', [wish(undefined, { hostPort: 2 })])
  claims.claim('a', 'pod a', [wish(undefined, { hostPort: 3 })])
  giveBack()
  claims.claim('d', 'pod d', [wish(), wish(undefined, { hostPort: 1 })])
  assert.throws(() => claims.claim('d', 'pod d', [wish(undefined, { hostPort: 3 })]))
  claims.release('a')
  claims.claim('d', 'pod d', [wish(undefined, { hostPort: 3 })])
})
