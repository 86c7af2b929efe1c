// A condition that blocks ADD is the same sentence with cause and cure in CNI errors, STATUS, /readyz, log, event and
// weftctl.
import assert from 'node:assert/strict'
import test from 'node:test'
import { CONDITIONS, type ConditionCode, sentence } from '../../../daemon/health/conditions.ts'
import { readiness } from '../../../daemon/health/http.ts'
import { flock } from '../../../daemon/os/flock.ts'
import type { Key } from '../../../daemon/state/object.ts'
import { rangeSets } from '../../../ipam/pool.ts'
import { Reservations } from '../../../ipam/reservations.ts'
import { until } from '../until.ts'
import { prefix, SmallDaemon } from './small-daemon.ts'

/** Only an attempt can end these, so that they let one through: their own test is below. */
const endedByTrying: readonly string[] = ['POOL_EXHAUSTED', 'STATE_UNWRITABLE']
const codes = (Object.keys(CONDITIONS) as ConditionCode[]).filter((code) =>
  (CONDITIONS[code].blocks as readonly string[]).includes('add')
)

test('there are conditions that keep pods from being set up', () => assert.ok(codes.length > 8, codes.join()))

for (const code of codes.filter((each) => !endedByTrying.includes(each))) {
  test(`${code} is the same sentence in the CNI error, STATUS, /readyz, the log, the node's event and weftctl`, async (t) => {
    const daemon = await SmallDaemon.start(t)
    await daemon.hold()
    const detail = 'eth7 has 203.0.113.9, which the lease of node-3 has too'
    daemon.health.raise(code, detail)
    const said = sentence({ ...CONDITIONS[code], detail })
    assert.ok(said.includes(detail) && said.includes(`. Cure: ${CONDITIONS[code].cure}`))

    const added = await daemon.cni('ADD')
    assert.deepEqual([added.exit, added.code, added.msg, added.details], [1, 11, said, undefined])
    const status = await daemon.cni('STATUS')
    assert.equal(status.msg, said)
    assert.ok(status.code === 50 || status.code === 51, String(status.code))

    const { blocks } = CONDITIONS[code] as { readonly blocks: readonly string[] }
    assert.ok(readiness(daemon.health, true).body.includes(`${said}\n`))
    const short = `${code}: ${said}\n`
    assert.equal(readiness(daemon.health, false).body, blocks.includes('ready') ? short : 'ok\n')
    assert.ok(daemon.said.includes(said), 'the log')
    // Every start has STARTING; what makes one long is a condition of its own.
    if (code !== 'STARTING') await until(() => daemon.events.includes(said), 'the event about the node')
    assert.ok((await daemon.weftctl('status')).out.includes(`  ${said}\n`), 'weftctl status')
    const why = (await daemon.weftctl('why', 'pod', 'shop/web-1')).out
    assert.equal(why.split(`  ${said}\n`).length, 3, `once for the call that failed, once for what blocks now:\n${why}`)
  })
}

test('the store being away is what a starting node tells everywhere, and where all conditions stand it is reported once', async (t) => {
  const daemon = await SmallDaemon.start(t)
  daemon.health.raise('STORE_UNREACHABLE', 'connect ECONNREFUSED 192.0.2.9:2379')
  const { msg = '' } = await daemon.cni('ADD')
  assert.match(msg, /^weftd is starting: .*ECONNREFUSED 192\.0\.2\.9:2379\. Cure: check that the store is running/)
  assert.equal((await daemon.cni('STATUS')).msg, msg)
  assert.ok(readiness(daemon.health, false).body.includes(msg))
  assert.ok((await daemon.weftctl('why', 'pod', 'shop/web-1')).out.includes(msg))
  for (const all of [(await daemon.weftctl('status')).out, readiness(daemon.health, true).body]) {
    assert.match(all, /weftd is starting: .*Cure: wait;/)
    assert.equal(all.split('ECONNREFUSED 192.0.2.9:2379').length, 2, all)
  }
})

test('a pool without a free address is the same sentence for ADD, STATUS, /readyz, the log and weftctl', async (t) => {
  const daemon = await SmallDaemon.start(t)
  await daemon.hold()
  // The subnet of the node's own pool, since only that makes it a condition of the node: filled up by pods of flannel,
  // whose links say nothing of them.
  const key = 'link veth1' as Key
  daemon.kernel.change({ kind: 'link', name: 'veth1', form: { type: 'veth' }, master: 'cni0', up: true }, key)
  await until(() => daemon.reconciler.observed.has(key), 'the link to be seen')
  const ipam = { dataDir: daemon.dataDir }
  const others = new Reservations(daemon.dataDir, 'cbr0', { lock: flock, boot: { id: 'x', since: 0 } })
  const pool = rangeSets([[{ subnet: prefix('10.244.1.0/24') }]])
  for (let n = 0; n < 253; n++) await others.reserve({ containerId: `c${n}`, ifname: 'eth0' }, pool, [])

  const { code, msg = '' } = await daemon.cni('ADD', { conf: { ipam } })
  assert.equal(code, 11)
  assert.match(
    msg,
    /^all pod addresses of this node are in use: .*10\.244\.1\..*all 253 are taken.*\. Cure: delete pods/
  )
  assert.deepEqual(await daemon.cni('STATUS', { conf: { ipam } }), { exit: 1, cniVersion: '1.1.0', code: 50, msg })
  assert.ok(readiness(daemon.health, true).body.includes(msg))
  assert.ok(daemon.said.includes(msg), 'the log')
  await until(() => daemon.events.includes(msg), 'the event about the node')
  for (const words of [['status'], ['why', 'pod', 'shop/web-1']])
    assert.ok((await daemon.weftctl(...words)).out.includes(msg), words.join(' '))
})
