// The etcd store when etcd misbehaves: restarts, compaction, silence, lost data, users, certificates, a dead member,
// thousands of leases.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { reasonOf } from '../../daemon/base/error.ts'
import { sentence } from '../../daemon/health/conditions.ts'
import { Health } from '../../daemon/health/health.ts'
import { leaseKey, parseLease } from '../../daemon/lease/lease.ts'
import { EtcdConnection, type EtcdOptions } from '../../daemon/stores/etcd/connection.ts'
import { EtcdKeys } from '../../daemon/stores/etcd/keys.ts'
import { EtcdStore } from '../../daemon/stores/etcd/store.ts'
import { watchFrom } from '../../daemon/stores/etcd/watch.ts'
import { EtcdAlone, Relay } from './etcd-alone.ts'
import { until } from './run.ts'
import { CONFIG, Conditions, Watcher, wishOf } from './store-watcher.ts'

const never = new AbortController().signal
const PREFIX = '/coreos.com/network'
const full = (key: string) => `${PREFIX}/subnets/${key}`
const peer = (publicIp: string) => JSON.stringify({ PublicIP: publicIp, BackendType: 'vxlan' })
const options = (endpoints: readonly string[], more: Partial<EtcdOptions> = {}): EtcdOptions => ({
  endpoints,
  prefix: PREFIX,
  renewMarginMinutes: 60,
  ...more
})
const at = (port: number) => [`http://127.0.0.1:${port}`]

describe('the etcd store', { timeout: 300_000 }, () => {
  test('goes on after a restart of etcd, and the condition says that it was away', async () => {
    await using etcd = await EtcdAlone.start()
    const conditions = new Conditions()
    await using store = new EtcdStore(options(etcd.endpoints), conditions.deps)
    await using watcher = new Watcher(store)
    await until(() => watcher.lists === 1, { what: 'the first list' })
    await etcd.stop()
    await until(() => conditions.active.has('STORE_UNREACHABLE'), { what: 'the condition STORE_UNREACHABLE' })
    etcd.run()
    await etcd.ready()
    await until(() => !conditions.active.has('STORE_UNREACHABLE'), {
      what: 'the end of the condition'
    })
    await etcd.ctl(['put', full('10.77.3.0-24'), peer('192.0.2.3')])
    await until(() => watcher.leases.has('10.77.3.0-24'), {
      what: 'a lease written after the restart'
    })
  })

  test('takes a lease that was asked for while etcd was away', async () => {
    await using etcd = await EtcdAlone.start()
    await etcd.stop()
    const conditions = new Conditions()
    await using store = new EtcdStore(options(etcd.endpoints), conditions.deps)
    const taking = store.acquire(wishOf('192.0.2.1'), never)
    assert.equal(store.leaseEnds(), undefined)
    await until(() => conditions.active.has('STORE_UNREACHABLE'), { what: 'the condition STORE_UNREACHABLE' })
    etcd.run()
    assert.match(leaseKey(await taking), /^10\.77\./)
    const hours = ((store.leaseEnds() ?? 0) - Date.now()) / 3_600_000
    assert.ok(hours > 23 && hours <= 24, `${hours}`)
  })

  test('learns what happened while it was cut off, although etcd has compacted it away', async () => {
    await using etcd = await EtcdAlone.start()
    await using relay = new Relay(etcd.port())
    await relay.open()
    await etcd.ctl(['put', full('10.77.1.0-24'), peer('192.0.2.1')])
    await using store = new EtcdStore(options(at(relay.port)), new Conditions().deps)
    await using watcher = new Watcher(store)
    await until(() => watcher.leases.has('10.77.1.0-24'), { what: 'the first lease' })
    await relay.cut()
    await etcd.ctl(['del', full('10.77.1.0-24')])
    await etcd.ctl(['put', full('10.77.2.0-24'), peer('192.0.2.2')])
    await etcd.compact()
    await relay.open()
    await until(() => watcher.keys.join() === '10.77.2.0-24', { what: 'what is there now' })
  })

  test('a watch from a compacted revision ends, so that the caller lists again', async () => {
    await using etcd = await EtcdAlone.start()
    const { modified } = (await etcd.get('/ready'))!
    for (const ip of ['192.0.2.1', '192.0.2.2']) await etcd.ctl(['put', full('10.77.1.0-24'), peer(ip)])
    await etcd.compact()
    await using connection = new EtcdConnection(options(etcd.endpoints), new Conditions().deps.report)
    for await (const _ of watchFrom(connection, [{ prefix: `${PREFIX}/subnets/` }], modified, never))
      assert.fail('events from before the compaction')
  })

  test('notices a connection that carries nothing any more', async () => {
    await using etcd = await EtcdAlone.start()
    await using relay = new Relay(etcd.port())
    await relay.open()
    await using store = new EtcdStore(options(at(relay.port)), new Conditions().deps)
    await using watcher = new Watcher(store)
    await until(() => watcher.lists === 1, { what: 'the first list' })
    relay.freeze()
    await etcd.ctl(['put', full('10.77.2.0-24'), peer('192.0.2.2')])
    await until(() => watcher.leases.has('10.77.2.0-24'), {
      what: 'a lease written during the silence'
    })
  })

  test('an etcd that came back empty lists nothing and gets our lease again, under the same subnet', async () => {
    await using etcd = await EtcdAlone.start()
    const conditions = new Conditions()
    await using store = new EtcdStore(options(etcd.endpoints), conditions.deps)
    const key = leaseKey(await store.acquire(wishOf('192.0.2.1'), never))
    await using watcher = new Watcher(store)
    await etcd.ctl(['put', full('10.77.200.0-24'), peer('192.0.2.2')])
    await until(() => watcher.leases.has('10.77.200.0-24') && watcher.leases.has(key), { what: 'both leases' })
    await etcd.stop(0, { forget: true })
    etcd.run()
    await etcd.ready()
    await until(async () => (await etcd.get(full(key))) !== undefined, {
      what: 'our lease in the empty etcd'
    })
    await until(() => watcher.keys.join() === key, { what: 'the other lease to go from the list' })
    assert.notEqual((await etcd.get(full(key)))!.lease, '0')
    assert.equal(conditions.raised.has('LEASE_LOST'), false)
  })

  test('takes the same subnet again when its etcd lease is revoked', async () => {
    await using etcd = await EtcdAlone.start()
    await using store = new EtcdStore(options(etcd.endpoints), new Conditions().deps)
    await using _ = new Watcher(store)
    const key = leaseKey(await store.acquire(wishOf('192.0.2.1'), never))
    const { lease } = (await etcd.get(full(key)))!
    await etcd.ctl(['lease', 'revoke', BigInt(lease).toString(16)])
    await until(async () => ![undefined, '0', lease].includes((await etcd.get(full(key)))?.lease), {
      what: 'the key under a new etcd lease'
    })
  })

  test('of two nodes whose subnets overlap under different keys the younger gives way', async () => {
    await using etcd = await EtcdAlone.start()
    await using store = new EtcdStore(options(etcd.endpoints), new Conditions().deps)
    await using watcher = new Watcher(store)
    const conf = '{"Network":"10.77.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:77::/48"}'
    const key = leaseKey(await store.acquire(wishOf('192.0.2.1', { conf }), never))
    const [v4] = key.split('&')
    // Another node takes the IPv4 half in the moment in which our key is gone.
    await etcd.ctl(['put', full(`${v4}&fd00:77:0:ffff::-64`), peer('192.0.2.9')])
    await etcd.ctl(['del', full(key)])
    await until(() => watcher.keys.join() === `${v4}&fd00:77:0:ffff::-64`, { what: 'our key to be given back' })
  })

  test('goes on with a new token when users change, and says when it is refused', async () => {
    await using etcd = await EtcdAlone.start()
    await etcd.ctl(['put', `${PREFIX}/config`, CONFIG])
    await etcd.requireUsers(PREFIX)
    const [conditions, stranger, nobody] = [new Conditions(), new Conditions(), new Conditions()]
    const user = { username: 'weft', password: 'secret' }
    await using store = new EtcdStore(options(etcd.endpoints, user), conditions.deps)
    await using watcher = new Watcher(store)
    assert.equal(await store.configuration(never), CONFIG)
    const key = leaseKey(await store.acquire(wishOf('192.0.2.1'), never))
    await until(() => watcher.leases.has(key), { what: 'our lease in the watch' })
    // Makes every token of before stale: "revision of auth store is old".
    await etcd.ctl(['user', 'add', 'other:pass'])
    assert.equal(await store.configuration(never), CONFIG)
    // A restarted etcd does not know its tokens any more: "invalid auth token".
    await etcd.stop()
    etcd.run()
    await etcd.ready()
    assert.equal(await store.configuration(never), CONFIG)
    assert.equal(leaseKey(await store.acquire(wishOf('192.0.2.1'), never)), key)
    await until(() => conditions.active.size === 0, { what: 'the end of all conditions' })

    await using wrong = new EtcdStore(options(etcd.endpoints, { ...user, password: 'wrong' }), stranger.deps)
    await using none = new EtcdStore(options(etcd.endpoints), nobody.deps)
    const leave = new AbortController()
    const refused = Promise.allSettled([wrong.configuration(leave.signal), none.configuration(leave.signal)])
    await until(() => stranger.active.has('STORE_DENIED') && nobody.active.has('STORE_DENIED'), {
      what: 'the condition STORE_DENIED, twice'
    })
    leave.abort()
    assert.deepEqual(
      (await refused).map(({ status }) => status),
      ['rejected', 'rejected']
    )
  })

  test('publishes a report under the lease of its subnet, a long one hides no other, and a role may forbid all', async () => {
    await using etcd = await EtcdAlone.start({ flags: ['--max-request-bytes', String(20 << 20)] })
    await etcd.ctl(['put', `${PREFIX}/config`, CONFIG])
    await using store = new EtcdStore(options(etcd.endpoints), new Conditions().deps)
    store.publish('too early: there is no lease')
    const key = leaseKey(await store.acquire(wishOf('192.0.2.1'), never))
    store.publish('first')
    await until(async () => (await store.reports()).length > 0, { what: 'the report' })
    store.publish('second')
    await until(async () => (await store.reports())[0]?.text === 'second', { what: 'the second report' })
    const [listed, again] = await Promise.all([store.reports(), store.reports()])
    assert.deepEqual(listed, [{ key, text: 'second' }])
    assert.equal(again, listed, 'asked twice at a time, listed once')
    // Larger together than any message that is taken, and one so large that it is too large alone.
    await using writer = new EtcdConnection(options(etcd.endpoints), new Conditions().deps.report)
    const put = (name: string, value: string) =>
      writer.quietly('transaction', { success: [{ put: { key: `${PREFIX}/weft/reports/${name}`, value } }] })
    for (let n = 0; n < 12; n++) await put(`10.9.${10 + n}.0-24`, 'x'.repeat(1_500_000))
    const huge = () => put('10.9.5.0-24', 'x'.repeat(17 << 20)).catch(() => undefined)
    await until(huge, { what: 'a value of 17 MB' })
    await put('10.99.0.0-24', 'third')
    assert.deepEqual(await store.reports(), [...listed, { key: '10.99.0.0-24', text: 'third' }])
    const leaseOf = async (name: string) =>
      /"lease":(\d+)/.exec((await etcd.ctl(['get', '-w', 'json', `${PREFIX}/${name}/${key}`])).stdout)?.[1]
    assert.equal(await leaseOf('weft/reports'), await leaseOf('subnets'))

    await etcd.requireUsers(`${PREFIX}/subnets`)
    const conditions = new Conditions()
    const user = { username: 'weft', password: 'secret' }
    await using narrow = new EtcdStore(options(etcd.endpoints, user), conditions.deps)
    await narrow.acquire(wishOf('192.0.2.2'), never)
    narrow.publish('not allowed')
    await assert.rejects(narrow.reports(), /permission denied/)
    assert.deepEqual([...conditions.active.keys()], [])
  })

  test('works with users given to an etcd that has none', async () => {
    await using etcd = await EtcdAlone.start()
    await etcd.ctl(['put', `${PREFIX}/config`, CONFIG])
    await using store = new EtcdStore(
      options(etcd.endpoints, { username: 'weft', password: 'x' }),
      new Conditions().deps
    )
    assert.equal(await store.configuration(never), CONFIG)
  })

  test('speaks TLS with a client certificate, and is refused without one', async () => {
    await using etcd = await EtcdAlone.start({ tls: true })
    await etcd.ctl(['put', `${PREFIX}/config`, CONFIG])
    const { ca: caFile, cert: certFile, key: keyFile } = etcd.certificates!
    await using store = new EtcdStore(options(etcd.endpoints, { caFile, certFile, keyFile }), new Conditions().deps)
    assert.equal(await store.configuration(never), CONFIG)
    const lease = await store.acquire(wishOf('192.0.2.1'), never)
    await using watcher = new Watcher(store)
    await until(() => watcher.leases.has(leaseKey(lease)), { what: 'our lease in the watch' })

    const conditions = new Conditions()
    await using bare = new EtcdStore(options(etcd.endpoints, { caFile }), conditions.deps)
    const leave = new AbortController()
    const waiting = bare.configuration(leave.signal).catch(() => 'stopped')
    await until(() => conditions.active.has('STORE_UNREACHABLE'), { what: 'the condition STORE_UNREACHABLE' })
    leave.abort()
    assert.equal(await waiting, 'stopped')
  })

  test('reads authority, certificate and key again when they are rotated, and goes on without a restart', async () => {
    await using etcd = await EtcdAlone.start({ tls: true })
    const { ca: caFile, cert: certFile, key: keyFile } = etcd.certificates!
    await using store = new EtcdStore(options(etcd.endpoints, { caFile, certFile, keyFile }), new Conditions().deps)
    await using watcher = new Watcher(store)
    const lease = await store.acquire(wishOf('192.0.2.1'), never)
    await until(() => watcher.leases.has(leaseKey(lease)), { what: 'our lease in the watch' })
    await etcd.rotateCertificates()
    await etcd.stop()
    etcd.run()
    await etcd.ready()
    await etcd.ctl(['put', full('10.77.3.0-24'), peer('192.0.2.3')])
    await until(() => watcher.leases.has('10.77.3.0-24'), { what: 'a lease written after the rotation' })
  })

  test('names an etcd that is full with the command that disarms it, and never the password in an endpoint', async () => {
    await using etcd = await EtcdAlone.start({ flags: ['--quota-backend-bytes', String(2 << 20)] })
    const endpoints = etcd.endpoints.map((each) => each.replace('://', '://root:hunter2@'))
    const said: string[] = []
    const health = new Health(Date.now, (condition) => said.push(sentence(condition)))
    await using store = new EtcdStore(options(endpoints), { ...new Conditions().deps, report: health })
    while ((await etcd.ctl(['put', '/big', 'x'.repeat(100_000)], false)).code === 0) {}
    const taking = store.acquire(wishOf('192.0.2.1'), never)
    const isFull = () =>
      health.active().some(({ code, cure }) => code === 'STORE_FULL' && /etcdctl alarm disarm/.test(cure))
    await until(isFull, { what: 'the condition STORE_FULL with its cure' })
    await etcd.ctl(['del', '/big'])
    await etcd.compact()
    await etcd.ctl(['defrag'])
    await etcd.ctl(['alarm', 'disarm'])
    await taking
    assert.equal(isFull(), false)
    await etcd.stop()
    await assert.rejects(
      new EtcdConnection(options(endpoints), health).call('asking', 'range', { key: 'a' }),
      (error) => {
        said.push(reasonOf(error))
        return true
      }
    )
    assert.doesNotMatch(said.join('\n') + store.configurationPlace, /hunter2/)
  })

  test('lists leases beside values of a megabyte, which are malformed', async () => {
    await using etcd = await EtcdAlone.start()
    const conditions = new Conditions()
    await using connection = new EtcdConnection(options(etcd.endpoints), conditions.deps.report)
    const keys = new EtcdKeys(connection)
    for (let n = 1; n <= 20; n++)
      await keys.create({ key: full(`10.77.${n}.0-24`), value: 'x'.repeat(1 << 20), lease: 0n })
    await etcd.ctl(['put', full('10.77.99.0-24'), peer('192.0.2.3')])
    await using store = new EtcdStore(options(etcd.endpoints), conditions.deps)
    await using watcher = new Watcher(store)
    await until(() => watcher.leases.has('10.77.99.0-24'), { what: 'the lease among them' })
    assert.equal(conditions.active.size, 0)
  })

  test('a configuration of many megabytes is refused before it is in memory, with a cure', async () => {
    await using etcd = await EtcdAlone.start({ flags: ['--max-request-bytes', String(100 << 20)] })
    const conditions = new Conditions()
    await using writer = new EtcdConnection(options(etcd.endpoints), conditions.deps.report)
    await new EtcdKeys(writer).create({ key: `${PREFIX}/config`, value: 'x'.repeat(20 << 20), lease: 0n })
    await using store = new EtcdStore(options(etcd.endpoints), conditions.deps)
    const leave = new AbortController()
    const waiting = store.configuration(leave.signal).catch(() => 'stopped')
    await until(() => conditions.active.has('STORE_UNREACHABLE'), { what: 'the condition STORE_UNREACHABLE' })
    assert.match(conditions.active.get('STORE_UNREACHABLE') ?? '', /larger than max/)
    assert.match(conditions.cures.get('STORE_UNREACHABLE') ?? '', /find the value of many megabytes/)
    leave.abort()
    assert.equal(await waiting, 'stopped')
  })

  test('names a certificate that cannot be read', () => {
    const missing = options(['https://127.0.0.1:1'], { caFile: '/nowhere/ca.crt' })
    assert.throws(() => new EtcdStore(missing, new Conditions().deps), {
      code: 'OPTION_INVALID',
      message: /--etcd-cafile \/nowhere\/ca\.crt cannot be read/
    })
  })

  test('goes on when one of three members is killed', async () => {
    await using etcd = await EtcdAlone.start({ members: 3 })
    const conditions = new Conditions()
    await using store = new EtcdStore(options(etcd.endpoints), conditions.deps)
    await using watcher = new Watcher(store)
    const key = leaseKey(await store.acquire(wishOf('192.0.2.1'), never))
    await until(() => watcher.leases.has(key), { what: 'our lease in the watch' })
    for (const [member, ip] of [
      [0, '192.0.2.2'],
      [1, '192.0.2.3'],
      [2, '192.0.2.4']
    ] as const) {
      await etcd.stop(member)
      await etcd.ready()
      await using other = new EtcdStore(options(etcd.endpoints), conditions.deps)
      const theirs = leaseKey(await other.acquire(wishOf(ip), never))
      await until(() => watcher.leases.has(theirs), {
        what: `a lease taken with member ${member} dead`
      })
      etcd.run(member)
      await etcd.ready()
      await until(async () => (await etcd.ctl(['endpoint', 'health'], false)).code === 0, {
        what: 'three healthy members'
      })
    }
  })

  test('asks for no lease’s time to live, however many there are, and lists 5,000 in pages', async (t) => {
    await using etcd = await EtcdAlone.start()
    const conditions = new Conditions()
    await using connection = new EtcdConnection(options(etcd.endpoints), conditions.deps.report)
    const keys = new EtcdKeys(connection)
    const value = (n: number) =>
      `{"PublicIP":"172.16.${n >> 8}.${n & 255}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:${(n >> 8).toString(16)}:${(n & 255).toString(16)}"}}`
    const etcdLease = await keys.grant(86_400)
    const numbers = Array.from({ length: 5_000 }, (_, n) => n)
    for (let from = 0; from < numbers.length; from += 250) {
      await Promise.all(
        numbers
          .slice(from, from + 250)
          .map((n) =>
            keys.create({ key: full(`10.${64 + (n >> 8)}.${n & 255}.0-24`), value: value(n), lease: etcdLease })
          )
      )
    }
    await keys.list(`${PREFIX}/subnets/`)
    const times: number[] = []
    while (times.length < 5) {
      const begun = performance.now()
      const { records } = await keys.list(`${PREFIX}/subnets/`)
      const leases = records.map((record) => parseLease(record.key, record.value))
      assert.equal(leases.length, 5_000)
      times.push(performance.now() - begun)
    }
    t.diagnostic(`5,000 leases listed and parsed in ${times.sort((a, b) => a - b)[2]!.toFixed(0)} ms (median of 5)`)

    await using store = new EtcdStore(options(etcd.endpoints), conditions.deps)
    await using watcher = new Watcher(store)
    const conf = '{"Network":"10.0.0.0/8","SubnetMin":"10.64.0.0"}'
    const lease = await store.acquire(wishOf('192.0.2.1', { conf }), never)
    assert.equal(lease.subnet[4]!.ip.value >= 0x0a53_8800n, true)
    await until(() => watcher.leases.has(leaseKey(lease)), { what: 'our lease among the others' })
    const metrics = await (await fetch(`${etcd.endpoints[0]}/metrics`)).text()
    assert.match(metrics, /grpc_server_handled_total\{[^}]*grpc_method="Range"/)
    assert.doesNotMatch(metrics, /grpc_server_handled_total\{[^}]*grpc_method="LeaseTimeToLive"[^}]*\} [1-9]/)
  })
})
