// The lease file and the file that people edit: whose network configuration counts.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { test } from 'node:test'
import { pino } from 'pino'
import { parseNetConf } from '../../../../daemon/config/net-conf.ts'
import { leaseKey } from '../../../../daemon/lease/lease.ts'
import type { Store, StoreDeps } from '../../../../daemon/lease/store.ts'
import { EmbeddedFile } from '../../../../daemon/stores/embedded/file.ts'
import { EmbeddedStore } from '../../../../daemon/stores/embedded/store.ts'
import { wishOf } from '../../../lab/store-watcher.ts'
import { heard } from '../../logs.ts'
import { until } from '../../until.ts'

const ONE = '{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}'
const OTHER = ONE.replace('10.244', '10.9')
const never = new AbortController().signal
/** What a store says while there is no configuration. */
async function missing(open: (deps: StoreDeps) => Store | Promise<Store>): Promise<readonly string[]> {
  const said = Promise.withResolvers<readonly string[]>()
  const over = new AbortController()
  const report = { raise: (...all: readonly string[]) => said.resolve(all), clear: () => undefined }
  await using store = await open({ log: pino({ enabled: false }), report })
  const waiting = store.configuration(over.signal)
  try {
    return await said.promise
  } finally {
    over.abort()
    await waiting.catch(() => undefined)
  }
}

const deps = { log: pino({ enabled: false }), report: { raise: () => {}, clear: () => {} } }

async function inFolder(work: (leases: string, netConf: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'weft-embedded-'))
  try {
    await work(join(folder, 'leases.db'), join(folder, 'net-conf.json'))
  } finally {
    rmSync(folder, { recursive: true })
  }
}

test('what --net-config-path holds when it is asked for counts, however often it was another', () =>
  inFolder(async (path, netConfigPath) => {
    for (const text of ['', '{', ONE, OTHER]) {
      writeFileSync(netConfigPath, text)
      await using store = new EmbeddedStore({ path, netConfigPath }, deps)
      assert.equal(await store.configuration(never), text)
      writeFileSync(netConfigPath, `${text} `)
      assert.equal(await store.configuration(never), `${text} `, 'edited while the first was refused')
    }
  }))

test('a change of --net-config-path is told while it is watched, by a symbolic link that is replaced too', () =>
  inFolder(async (path, netConfigPath) => {
    const folder = dirname(netConfigPath)
    writeFileSync(join(folder, 'first'), ONE)
    symlinkSync(join(folder, 'first'), netConfigPath)
    await using store = new EmbeddedStore({ path, netConfigPath }, deps)
    await store.configuration(new AbortController().signal)
    const stop = new AbortController()
    const told: (string | undefined)[] = []
    for await (const event of store.watch(stop.signal)) {
      if (event.kind !== 'configuration') continue
      told.push(event.text)
      if (told.length === 2) stop.abort()
      else {
        writeFileSync(join(folder, 'second'), OTHER)
        symlinkSync(join(folder, 'second'), join(folder, 'next'))
        renameSync(join(folder, 'next'), netConfigPath)
      }
    }
    assert.deepEqual(told, [ONE, OTHER])
  }))

test('without that file the configuration of the lease file stays', () =>
  inFolder(async (path, netConfigPath) => {
    await using store = new EmbeddedStore({ path, netConfigPath }, deps)
    store.configure(ONE)
    assert.equal(await store.configuration(never), ONE)
    assert.equal(store.configurationPlace, `the lease file ${path}`)
    writeFileSync(netConfigPath, ONE)
    assert.equal(store.configurationPlace, `${netConfigPath}, kept in the lease file ${path}`)
  }))

test('a --net-config-path that is no readable file is refused by its name', () =>
  inFolder(async (path, netConfigPath) => {
    mkdirSync(netConfigPath)
    await using store = new EmbeddedStore({ path, netConfigPath }, deps)
    await assert.rejects(store.configuration(never), {
      code: 'OPTION_INVALID',
      message: /net-conf\.json cannot be read/
    })
  }))

test('a configuration of 60 MB in either file is refused by its size, without being read', () =>
  inFolder(async (path, netConfigPath) => {
    writeFileSync(netConfigPath, '')
    truncateSync(netConfigPath, 60 << 20)
    const before = process.memoryUsage.rss()
    const message = /net-conf\.json cannot be read: EFBIG: it has 62914560 bytes, and at most 1048576 are read/
    {
      await using store = new EmbeddedStore({ path, netConfigPath }, deps)
      await assert.rejects(store.configuration(never), { code: 'OPTION_INVALID', message })
    }
    const database = new DatabaseSync(path)
    database.exec('INSERT INTO config VALUES (1, CAST(zeroblob(60 << 20) AS TEXT))')
    database.close()
    await using store = new EmbeddedStore({ path }, deps)
    const text = await store.configuration(never)
    assert.throws(() => parseNetConf(text, 'it'), {
      code: 'CONFIG_INVALID',
      message: 'it is longer than 1048576 bytes'
    })
    assert.ok(process.memoryUsage.rss() - before < 200 << 20)
  }))

test('a new lease file that another process is writing is waited for', () =>
  inFolder(async (path) => {
    const other = `
      const { DatabaseSync } = require('node:sqlite')
      const database = new DatabaseSync(process.argv[1])
      database.exec('BEGIN IMMEDIATE; CREATE TABLE other (one INTEGER)')
      process.stdout.write('writing')
      process.stdin.once('data', () => setTimeout(() => database.exec('COMMIT'), 100)).unref()`
    const writer = spawn(process.execPath, ['-e', other, path], { stdio: ['pipe', 'pipe', 'inherit'] })
    try {
      await once(writer.stdout, 'data')
      writer.stdin.write('go on')
      await using store = new EmbeddedStore({ path }, deps)
      store.configure(ONE)
      assert.equal(await store.configuration(never), ONE)
    } finally {
      writer.kill()
    }
  }))

test('opening gives up at one deadline, whatever it waits for', () =>
  inFolder(async (path) => {
    const begun = performance.now()
    for (const mode of ['DELETE', 'WAL']) {
      using writer = new DatabaseSync(`${path}-${mode}`, { timeout: 0 })
      writer.exec(`PRAGMA journal_mode = ${mode}; CREATE TABLE other (one INTEGER); BEGIN IMMEDIATE`)
      writer.exec('INSERT INTO other VALUES (1)')
      const opened = () => new EmbeddedFile(`${path}-${mode}`, () => undefined, deps.log, 50)
      assert.throws(opened, { code: 'STATE_UNWRITABLE', message: /database is locked/ }, mode)
    }
    // SQLite's own timeout, of one statement alone, is 5 s.
    assert.ok(performance.now() - begun < 5_000)
  }))

test('a damaged lease file says so, and how to go on', () =>
  inFolder(async (path, netConfigPath) => {
    writeFileSync(path, 'no database'.repeat(1_000))
    assert.throws(() => new EmbeddedStore({ path, netConfigPath }, deps), {
      code: 'STATE_UNWRITABLE',
      message: /file is not a database/,
      cure: new RegExp(`the file is damaged: stop each weftd .* move ${path}, .*-wal and .*-shm away`)
    })
  }))

test('a lease file that is deleted is made again, with the configuration and the lease that is held', () =>
  inFolder(async (path) => {
    const said: string[] = []
    const log = heard((level, _, message) => level === 'warn' && said.push(message))
    await using store = new EmbeddedStore({ path }, { ...deps, log })
    store.configure(ONE)
    const { subnet } = await store.acquire(wishOf('192.0.2.1', { conf: ONE }), never)
    for (const suffix of ['', '-wal', '-shm']) rmSync(path + suffix)
    const leases = () => {
      const database = new DatabaseSync(path)
      try {
        return database.prepare('SELECT key FROM lease').all()
      } catch {
        return []
      } finally {
        database.close()
      }
    }
    await until(() => said.length === 2 && leases().length === 1, 'the lease in a new file')
    assert.match(said[0] ?? '', /deleted or replaced/)
    assert.equal(leases()[0]?.key, leaseKey({ subnet }))
    assert.equal(await store.configuration(never), ONE)
    await using second = new EmbeddedStore({ path }, deps)
    assert.equal(await second.configuration(never), ONE)
  }))

test('where there is no configuration, message and cure have the real names of the store in use and of no other', () =>
  inFolder(async (path, netConfigPath) => {
    assert.deepEqual(await missing((near) => new EmbeddedStore({ path, netConfigPath }, near)), [
      'CONFIG_MISSING',
      `the lease file ${path} holds none, and ${netConfigPath} does not exist`,
      `write ${ONE} into ${netConfigPath}`
    ])
    assert.deepEqual(await missing((near) => new EmbeddedStore({ path }, near)), [
      'CONFIG_MISSING',
      `the lease file ${path} holds none, and no --net-config-path is given`,
      `write ${ONE} into a file, name it with --net-config-path and restart weftd`
    ])
    const lastConfiguration = { text: '{"Network":"10.42.0.0/16"}', path }
    const said = await missing((near) => new EmbeddedStore({ path, netConfigPath }, { ...near, lastConfiguration }))
    assert.equal(said[2], `write {"Network":"10.42.0.0/16"}, which this node used last, into ${netConfigPath}`)
  }))

test('tells when our lease ends, and nothing before there is one or of a reservation', () =>
  inFolder(async (path) => {
    await using store = new EmbeddedStore({ path }, deps)
    store.configure(ONE)
    assert.equal(store.leaseEnds(), undefined)
    const before = Date.now()
    const lease = await store.acquire({ ...wishOf('192.0.2.1'), network: parseNetConf(ONE) }, never)
    const day = 24 * 3_600_000
    assert.ok((store.leaseEnds() ?? 0) >= before + day && (store.leaseEnds() ?? 0) <= Date.now() + day)
    const file = new DatabaseSync(path)
    file.prepare('UPDATE lease SET expires = NULL WHERE key = ?').run(leaseKey(lease))
    file.close()
    await store.acquire({ ...wishOf('192.0.2.1'), network: parseNetConf(ONE) }, never)
    assert.equal(store.leaseEnds(), undefined)
  }))
