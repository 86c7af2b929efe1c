// The contract of a lease store, run over every store that there is: real etcd on loopback, and SQLite files.
import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { after, before, describe, test } from 'node:test'
import { type Lease, leaseKey } from '../../daemon/lease/lease.ts'
import type { Store } from '../../daemon/lease/store.ts'
import { EmbeddedStore } from '../../daemon/stores/embedded/store.ts'
import { EtcdStore } from '../../daemon/stores/etcd/store.ts'
import { EtcdAlone } from './etcd-alone.ts'
import { until } from './run.ts'
import { peer, type StoreNetwork, storeContract } from './store-contract.ts'
import { CONFIG, Conditions, Watcher, wishOf } from './store-watcher.ts'

/** A network whose daemons choose their subnets themselves. */
interface Network extends StoreNetwork {
  open(conditions: Conditions, ttlSeconds?: number): Store
  /** What stands under a key, and whether it is a reservation. */
  get(key: string): Promise<{ readonly value: string; readonly reservation: boolean } | undefined>
}

const chosenByDaemons = {
  allot: async () => undefined,
  async valueOf(this: Pick<Network, 'get'>, key: string) {
    return (await this.get(key))?.value
  }
}

let etcd: EtcdAlone
let networks = 0

async function etcdNetwork(): Promise<Network> {
  const prefix = `/lab/${++networks}`
  const full = (key: string) => `${prefix}/subnets/${key}`
  return {
    ...chosenByDaemons,
    open: (conditions, ttl) =>
      new EtcdStore({ endpoints: etcd.endpoints, prefix, renewMarginMinutes: 60 }, conditions.deps, ttl),
    configure: async (text) => void (await etcd.ctl(['put', `${prefix}/config`, text])),
    put: async (key, value) => void (await etcd.ctl(['put', full(key), value])),
    remove: async (key) => void (await etcd.ctl(['del', full(key)])),
    get: async (key) => {
      const found = await etcd.get(full(key))
      return found && { value: found.value, reservation: found.lease === '0' }
    },
    [Symbol.asyncDispose]: async () => undefined
  }
}

async function embeddedNetwork(): Promise<Network & { readonly writer: string }> {
  const folder = mkdtempSync(join(tmpdir(), 'weft-store-'))
  const path = join(folder, 'state', 'leases.db')
  // The file with its tables, for what is written around the store.
  await new EmbeddedStore({ path }, new Conditions().deps)[Symbol.asyncDispose]()
  const sql = <T>(run: (database: DatabaseSync) => T): T => {
    const database = new DatabaseSync(path, { timeout: 5_000 })
    try {
      return run(database)
    } finally {
      database.close()
    }
  }
  return {
    ...chosenByDaemons,
    writer: `
      import { DatabaseSync } from 'node:sqlite'
      const database = new DatabaseSync(${JSON.stringify(path)})
      database.exec('BEGIN IMMEDIATE; DELETE FROM lease')
      process.stdout.write('deleted')
      setInterval(() => {}, 1000)`,
    open: (conditions, ttl) => new EmbeddedStore({ path }, conditions.deps, ttl),
    configure: async (text) => {
      await using store = new EmbeddedStore({ path }, new Conditions().deps)
      store.configure(text)
    },
    put: async (key, value) => {
      const statement =
        'INSERT OR REPLACE INTO lease (key, value, revision) VALUES (?, ?, (SELECT coalesce(max(revision), 0) + 1 FROM lease))'
      sql((database) => database.prepare(statement).run(key, value))
    },
    remove: async (key) => void sql((database) => database.prepare('DELETE FROM lease WHERE key = ?').run(key)),
    get: async (key) => {
      const row = sql((database) => database.prepare('SELECT value, expires FROM lease WHERE key = ?').get(key))
      return row && { value: String(row.value), reservation: row.expires === null }
    },
    [Symbol.asyncDispose]: async () => rmSync(folder, { recursive: true, force: true })
  }
}

const kinds = { etcd: etcdNetwork, embedded: embeddedNetwork }
const never = new AbortController().signal
before(async () => {
  etcd = await EtcdAlone.start()
})
after(() => etcd[Symbol.asyncDispose]())

for (const [name, make] of Object.entries(kinds))
  describe(`the ${name} store`, { timeout: 300_000 }, () => {
    storeContract(make)

    test('takes the previous subnet when it is free, and hands the backend data of the held lease over', async () => {
      await using network = await make()
      await network.put('10.77.9.0-24', peer('192.0.2.9'))
      await using store = network.open(new Conditions())
      const lease = await store.acquire(wishOf('192.0.2.1', { previous: '10.77.5.0-24' }), never)
      assert.equal(leaseKey(lease), '10.77.5.0-24')
      await using other = network.open(new Conditions())
      const kept = await other.acquire(wishOf('192.0.2.9'), never)
      assert.deepEqual([leaseKey(kept), kept.backendData], ['10.77.9.0-24', { 4: { VNI: 1 } }])
    })

    test('keeps a reservation a reservation', async () => {
      await using network = await make()
      await network.put('10.77.8.0-24', '{"PublicIP":"192.0.2.1"}')
      await using store = network.open(new Conditions())
      assert.equal(leaseKey(await store.acquire(wishOf('192.0.2.1'), never)), '10.77.8.0-24')
      const found = await network.get('10.77.8.0-24')
      assert.equal(found?.reservation, true)
      assert.match(found.value, /"VtepMAC"/)
    })

    test('deletes a lease of ours that no longer fits', async () => {
      await using network = await make()
      await network.put('10.99.8.0-24', peer('192.0.2.1'))
      await using store = network.open(new Conditions())
      const lease = await store.acquire(wishOf('192.0.2.1'), never)
      assert.notEqual(leaseKey(lease), '10.99.8.0-24')
      assert.equal(await network.get('10.99.8.0-24'), undefined)
      assert.deepEqual(lease.backendData, { 4: { VNI: 1 } })
    })

    test('keeps the subnet of a running daemon whose public address changes', async () => {
      await using network = await make()
      await using store = network.open(new Conditions())
      const key = leaseKey(await store.acquire(wishOf('192.0.2.1'), never))
      assert.equal(leaseKey(await store.acquire(wishOf('192.0.2.2'), never)), key)
      assert.match((await network.get(key))!.value, /"PublicIP":"192.0.2.2"/)
    })

    test('renews: the lease lives on past its time', async () => {
      await using network = await make()
      const ttl = 3
      const keeper = network.open(new Conditions(), 1_000)
      await using _ = keeper
      await using watcher = new Watcher(keeper)
      const store = network.open(new Conditions(), ttl)
      const key = leaseKey(await store.acquire(wishOf('192.0.2.1'), never))
      await until(() => watcher.leases.has(key), { what: 'the lease in the watch' })
      const end = performance.now() + 2_500 * ttl
      await until(
        () => {
          assert.ok(watcher.leases.has(key), 'the lease ended although its daemon lives')
          return performance.now() > end
        },
        { what: 'two and a half lifetimes', deadlineMs: 5_000 * ttl }
      )
      assert.ok((await network.get(key)) !== undefined)
      await store[Symbol.asyncDispose]()
    })

    test('gives fifty daemons that start together fifty subnets', async () => {
      await using network = await make()
      await using parts = new AsyncDisposableStack()
      const stores = Array.from({ length: 50 }, () => parts.use(network.open(new Conditions())))
      const leases = await Promise.all(stores.map((store, at) => store.acquire(wishOf(`192.0.2.${at + 1}`), never)))
      assert.equal(new Set(leases.map(leaseKey)).size, 50)
    })

    test('says when no subnet is left', async () => {
      await using network = await make()
      await network.put('10.77.0.0-16', peer('192.0.2.9'))
      await using store = network.open(new Conditions())
      await assert.rejects(store.acquire(wishOf('192.0.2.1'), never), {
        code: 'SUBNETS_EXHAUSTED',
        message: /10\.77\.1\.0\/24 to 10\.77\.255\.0\/24 is free \(1 leases\)/
      })
    })

    test('does not give the subnet of a lease away that cannot be understood', async () => {
      await using network = await make()
      await network.put('10.77.1.0-24', peer('192.0.2.1'))
      await network.put('10.77.2.0-24', 'garbage')
      await using store = network.open(new Conditions())
      const full = wishOf('192.0.2.7', { conf: '{"Network":"10.77.0.0/22","SubnetLen":24,"SubnetMax":"10.77.2.0"}' })
      await assert.rejects(store.acquire(full, never), { code: 'SUBNETS_EXHAUSTED' })
    })

    test('takes the same subnet again when our lease is deleted or garbled', async () => {
      await using network = await make()
      const conditions = new Conditions()
      await using store = network.open(conditions)
      await using watcher = new Watcher(store)
      const key = leaseKey(await store.acquire(wishOf('192.0.2.1'), never))
      const value = (await network.get(key))!.value
      for (const spoil of [() => network.remove(key), () => network.put(key, 'garbage')]) {
        await spoil()
        await until(async () => (await network.get(key))?.value === value, { what: 'our lease, written again' })
      }
      assert.deepEqual(watcher.keys, [key])
      assert.equal(conditions.raised.has('LEASE_LOST'), false)
    })

    test('says LEASE_LOST when another node holds our subnet, and takes it again once it is free', async () => {
      await using network = await make()
      const conditions = new Conditions()
      await using store = network.open(conditions)
      await using _ = new Watcher(store)
      const areOfTwoNodes = (a: Lease, b: Lease) => JSON.stringify(a.backendData) !== JSON.stringify(b.backendData)
      const key = leaseKey(await store.acquire({ ...wishOf('192.0.2.1'), areOfTwoNodes }, never))
      const clone = peer('192.0.2.1').replace('"VNI":1', '"VNI":1,"VtepMAC":"02:00:00:00:00:99"')
      for (const [value, shown] of [
        [peer('192.0.2.9'), /192\.0\.2\.9/],
        [clone, /192\.0\.2\.1".*02:00:00:00:00:99/]
      ] as const) {
        await network.put(key, value)
        await until(() => conditions.active.has('LEASE_LOST'), { what: 'the condition LEASE_LOST' })
        assert.match(conditions.active.get('LEASE_LOST')!, shown)
        await network.remove(key)
        await until(() => !conditions.active.has('LEASE_LOST'), { what: 'the end of LEASE_LOST' })
        assert.match((await network.get(key))!.value, /192\.0\.2\.1".*02:00:00:00:00:01/)
      }
    })
  })

test('the lease file is readable by root only, and so is what SQLite puts beside it', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'weft-store-'))
  const path = join(folder, 'new', 'leases.db')
  try {
    await using store = new EmbeddedStore({ path }, new Conditions().deps)
    store.configure(CONFIG)
    assert.equal(await store.configuration(never), CONFIG)
    for (const suffix of ['', '-wal', '-shm']) assert.equal(statSync(path + suffix).mode & 0o777, 0o600)
    assert.equal(statSync(join(folder, 'new')).mode & 0o777, 0o700)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})

test('a lease file that cannot be used is named with the option that chooses it', () => {
  assert.throws(() => new EmbeddedStore({ path: '/etc/hostname/leases.db' }, new Conditions().deps), {
    code: 'STATE_UNWRITABLE',
    message: /\/etc\/hostname\/leases\.db cannot be used/
  })
})

test('a writer that is killed in mid-transaction leaves the lease file as it was, and nobody waits for it', {
  timeout: 300_000
}, async () => {
  await using network = await embeddedNetwork()
  await using store = network.open(new Conditions())
  const key = leaseKey(await store.acquire(wishOf('192.0.2.1'), never))
  const writer = spawn(process.execPath, ['--input-type=module', '--eval', network.writer], { stdio: 'pipe' })
  await once(writer.stdout, 'data')
  writer.kill('SIGKILL')
  await once(writer, 'exit')
  assert.match((await network.get(key))?.value ?? '', /192\.0\.2\.1"/)
  await using other = network.open(new Conditions())
  assert.notEqual(leaseKey(await other.acquire(wishOf('192.0.2.2'), never)), key)
})

test('a transaction that fails for lack of space says so, and not that it cannot be rolled back', {
  timeout: 300_000
}, () => {
  const folder = mkdtempSync(join(tmpdir(), 'weft-store-'))
  const script = `
    import { EmbeddedFile } from ${JSON.stringify(new URL('../../daemon/stores/embedded/file.ts', import.meta.url).href)}
    const log = { error() {}, warn() {}, info() {}, debug() {} }
    const file = new EmbeddedFile(${JSON.stringify(join(folder, 'leases.db'))}, () => {}, log)
    const row = (n) => ({ key: String(n), value: 'x'.repeat(10_000), node: null, expires: null })
    try {
      for (let n = 0; ; n++) file.transaction(() => { for (let i = 0; i < 10; i++) file.put(row(10 * n + i)) })
    } catch (error) {
      process.stdout.write(error.message)
    }
    process.exit()`
  try {
    const args = ['--fsize=400000', process.execPath, '--input-type=module', '--eval', script]
    const said = execFileSync('prlimit', args, { encoding: 'utf8' })
    assert.match(said, /leases\.db does not answer: (disk I\/O error|database or disk is full)/)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})

test('a lease whose daemon is gone ends in the lease file', { timeout: 300_000 }, async () => {
  await using network = await embeddedNetwork()
  await using store = network.open(new Conditions(), 1)
  await using watcher = new Watcher(store)
  const short = network.open(new Conditions(), 1)
  const key = leaseKey(await short.acquire(wishOf('192.0.2.1'), never))
  await until(() => watcher.leases.has(key), { what: 'the lease' })
  await short[Symbol.asyncDispose]()
  await until(() => !watcher.leases.has(key), { what: 'the end of the lease' })
})
