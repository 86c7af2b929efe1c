// etcd in states that its administrators know: a changed password, expired certificates, no quorum, a leader that hangs
// or dies, no space, a configuration that only the v2 API has.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { leaseKey } from '../../daemon/lease/lease.ts'
import type { EtcdOptions } from '../../daemon/stores/etcd/connection.ts'
import { EtcdStore } from '../../daemon/stores/etcd/store.ts'
import { EtcdAlone } from './etcd-alone.ts'
import { run, until } from './run.ts'
import { CONFIG, Conditions, Watcher, wishOf } from './store-watcher.ts'

const never = new AbortController().signal
const PREFIX = '/coreos.com/network'
const full = (key: string) => `${PREFIX}/subnets/${key}`
const peer = (publicIp: string) => JSON.stringify({ PublicIP: publicIp, BackendType: 'vxlan' })
const options = (etcd: EtcdAlone, more: Partial<EtcdOptions> = {}): EtcdOptions => ({
  ...{ endpoints: etcd.endpoints, prefix: PREFIX, renewMarginMinutes: 60 },
  ...more
})

const raised = (conditions: Conditions, code: 'STORE_DENIED' | 'STORE_UNREACHABLE' | 'STORE_FULL', what = /./) =>
  until(() => what.test(conditions.active.get(code) ?? ''), { what: `${code} that says ${what}` })
const ended = (conditions: Conditions) =>
  until(() => conditions.active.size === 0, { what: 'the end of all conditions' })

describe('etcd', { concurrency: true, timeout: 300_000 }, () => {
  test('a password that is changed is a condition, what is known stays, and it ends without a restart', async () => {
    await using etcd = await EtcdAlone.start()
    await etcd.ctl(['put', full('10.77.9.0-24'), peer('192.0.2.9')])
    await etcd.requireUsers(PREFIX)
    const conditions = new Conditions()
    await using store = new EtcdStore(options(etcd, { username: 'weft', password: 'secret' }), conditions.deps)
    await using watcher = new Watcher(store)
    const key = leaseKey(await store.acquire(wishOf('192.0.2.1'), never))
    await until(() => watcher.leases.has(key), { what: 'our lease in the watch' })
    const passwordIs = async (password: string) => {
      await etcd.ctl(['user', 'delete', 'weft'])
      await etcd.ctl(['user', 'add', `weft:${password}`])
      await etcd.ctl(['user', 'grant-role', 'weft', 'weft'])
      // Its tokens are forgotten, and the watch breaks.
      await etcd.stop()
      etcd.run()
      await etcd.ready()
    }
    await passwordIs('changed')
    await raised(conditions, 'STORE_DENIED', /authentication failed/)
    assert.match(conditions.cures.get('STORE_DENIED') ?? '', /--etcd-password/)
    assert.deepEqual(watcher.keys, [key, '10.77.9.0-24'].sort())
    await passwordIs('secret')
    await ended(conditions)
    await etcd.ctl(['put', full('10.77.8.0-24'), peer('192.0.2.8')])
    await until(() => watcher.leases.has('10.77.8.0-24'), { what: 'a lease written afterwards' })
  })

  for (const name of ['client', 'server'] as const)
    test(`an expired certificate of the ${name} is named, and a new one is taken without a restart`, async () => {
      await using etcd = await EtcdAlone.start({ tls: true })
      await etcd.ctl(['put', `${PREFIX}/config`, CONFIG])
      const { ca: caFile, cert: certFile, key: keyFile } = etcd.certificates ?? assert.fail()
      await etcd.certify(name, -1)
      await etcd.stop()
      etcd.run()
      const conditions = new Conditions()
      await using store = new EtcdStore(options(etcd, { caFile, certFile, keyFile }), conditions.deps)
      const configuration = store.configuration(never)
      const [says, cure] =
        name === 'client'
          ? [/the client certificate \S+client\.crt expired on \d{4}-\d\d-\d\d \d\d:\d\d$/, /renew .*client\.crt/]
          : [/etcd's certificate, or that of its authority, has expired$/, /renew etcd's certificate/]
      await raised(conditions, 'STORE_UNREACHABLE', says)
      assert.match(conditions.cures.get('STORE_UNREACHABLE') ?? '', cure)
      await etcd.certify(name, 2)
      if (name === 'server') {
        await etcd.stop()
        etcd.run()
      }
      assert.equal(await configuration, CONFIG)
      await ended(conditions)
    })

  test('the leader of three dies, then the quorum: leases go on, then wait, and nothing is lost', async () => {
    await using etcd = await EtcdAlone.start({ members: 3 })
    const conditions = new Conditions()
    await using store = new EtcdStore(options(etcd), conditions.deps)
    await using watcher = new Watcher(store)
    const key = leaseKey(await store.acquire(wishOf('192.0.2.1'), never))
    const first = await etcd.leader()
    await etcd.stop(first)
    await etcd.ready()
    await etcd.ctl(['put', full('10.77.8.0-24'), peer('192.0.2.8')])
    await until(() => watcher.leases.has('10.77.8.0-24'), { what: 'a lease written under the next leader' })
    await ended(conditions)

    const [second] = await until(
      async () => {
        const leader = await etcd.leader()
        return leader < 0 ? undefined : ([leader] as const)
      },
      { what: 'the next leader' }
    )
    await etcd.stop(second)
    const theirs = new Conditions()
    await using other = new EtcdStore(options(etcd), theirs.deps)
    const taking = other.acquire(wishOf('192.0.2.2'), never)
    await raised(theirs, 'STORE_UNREACHABLE')
    assert.deepEqual(watcher.keys, [key, '10.77.8.0-24'].sort())
    etcd.run(first)
    etcd.run(second)
    const added = leaseKey(await taking)
    await until(() => watcher.leases.has(added) && watcher.leases.size === 3, { what: 'all leases' })
    await ended(conditions)
    await ended(theirs)
    assert.equal(conditions.raised.has('LEASE_LOST'), false)
  })

  test('a leader that hangs: leases are taken from the others, and the watch notices and goes to another', async () => {
    await using etcd = await EtcdAlone.start({ members: 3 })
    const leader = await etcd.leader()
    // Each begins with a member by chance: of so many, one follows the leader.
    await using all = new AsyncDisposableStack()
    const followers = Array.from({ length: 8 }, () => {
      const conditions = new Conditions()
      const store = all.use(new EtcdStore(options(etcd), conditions.deps))
      return { conditions, store, watcher: all.use(new Watcher(store)) }
    })
    const [{ store } = assert.fail()] = followers
    const allSee = async (key: string, what: string) => {
      for (const { watcher } of followers) await until(() => watcher.leases.has(key), { what })
    }
    await allSee(leaseKey(await store.acquire(wishOf('192.0.2.1'), never)), 'our lease in each watch')
    etcd.signal(leader, 'SIGSTOP')
    await using other = new EtcdStore(options(etcd), new Conditions().deps)
    await allSee(leaseKey(await other.acquire(wishOf('192.0.2.2'), never)), 'their lease in each watch')
    etcd.signal(leader, 'SIGCONT')
    for (const { conditions } of followers) await ended(conditions)
  })

  test('without space the lease that is held stays, and is renewed', async () => {
    await using etcd = await EtcdAlone.start({ flags: ['--quota-backend-bytes', String(2 << 20)] })
    const conditions = new Conditions()
    // A second to live, of which etcd makes its least: it must be renewed while the alarm is on.
    await using store = new EtcdStore(options(etcd), conditions.deps, 2)
    await using watcher = new Watcher(store)
    const key = leaseKey(await store.acquire(wishOf('192.0.2.1'), never))
    while ((await etcd.ctl(['put', '/big', 'x'.repeat(100_000)], false)).code === 0) {}
    const { lease } = (await etcd.get(full(key))) ?? assert.fail()
    const timeToLive = async () => {
      const { stdout } = await etcd.ctl(['lease', 'timetolive', BigInt(lease).toString(16), '-w', 'json'])
      return (JSON.parse(stdout) as { readonly ttl: number }).ttl
    }
    const begun = Date.now()
    await until(async () => Date.now() - begun > 5_000 && (await timeToLive()) > 0, {
      what: 'five seconds of its life'
    })
    assert.deepEqual(watcher.keys, [key])
    assert.equal((await etcd.get(full(key)))?.lease, lease)
  })

  test('a configuration that only the v2 API has is shown, with the command that copies it', async () => {
    await using etcd = await EtcdAlone.start({ flags: ['--enable-v2'] })
    const conditions = new Conditions()
    await using store = new EtcdStore(options(etcd), conditions.deps)
    const configuration = store.configuration(never)
    const missing = (what: RegExp) =>
      until(() => what.test(conditions.active.get('CONFIG_MISSING') ?? ''), { what: `CONFIG_MISSING: ${what}` })
    await missing(/has no key \/coreos\.com\/network\/config$/)
    assert.match(conditions.cures.get('CONFIG_MISSING') ?? '', /the v2 API, etcdctl set or mk, is not seen/)

    const text = `{"Network": "10.77.0.0/16",\n "Backend": {"Type": "it's"}}`
    const set = ['--endpoints', etcd.endpoints.join(), 'set', `${PREFIX}/config`, text]
    await run('etcdctl', set, { env: { ETCDCTL_API: '2' } })
    await missing(/in its v2 API, which is not read: \{"Network":"10\.77\.0\.0\/16","Backend":\{"Type":"it's"\}\}$/)
    const cure = conditions.cures.get('CONFIG_MISSING') ?? ''
    const command = /^copy it to the v3 API: (ETCDCTL_API=3 etcdctl put .*)$/.exec(cure)?.[1] ?? assert.fail(cure)
    // As somebody pastes it, with the endpoint of this test.
    await run('sh', ['-c', command], { env: { ETCDCTL_ENDPOINTS: etcd.endpoints.join() } })
    assert.deepEqual(JSON.parse(await configuration), JSON.parse(text))
    await ended(conditions)
  })
})
