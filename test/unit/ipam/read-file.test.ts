// Every file that weftd opens: what is no small regular file is refused by name, at once and without reading it, and a
// file system that does not answer holds nobody up.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  globSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { reasonOf } from '../../../daemon/base/error.ts'
import type { Log } from '../../../daemon/base/log.ts'
import { forwarded } from '../../../daemon/cni/flannel-forwarding.ts'
import { KubeAccess, targetOf } from '../../../daemon/kube/credentials.ts'
import { LeaseFile } from '../../../daemon/node/lease-file.ts'
import { hostSecret } from '../../../daemon/node/secret-file.ts'
import { previousSubnets } from '../../../daemon/node/subnet-file.ts'
import { flock } from '../../../daemon/os/flock.ts'
import { collectSettings } from '../../../daemon/pod/chained/tuning.ts'
import { readPodsFile } from '../../../daemon/pod/recovery/pods-file.ts'
import { readResolvConf } from '../../../daemon/pod/resolv-conf.ts'
import { requireAnswer } from '../../../daemon/pod/state-file.ts'
import { EmbeddedStore } from '../../../daemon/stores/embedded/store.ts'
import { EtcdConnection } from '../../../daemon/stores/etcd/connection.ts'
import { formatIp, parsePrefix } from '../../../ipam/address.ts'
import { contentOf, rewrite } from '../../../ipam/files.ts'
import { rangeSets } from '../../../ipam/pool.ts'
import { FileReader, readFile } from '../../../ipam/read-file.ts'
import { Reservations } from '../../../ipam/reservations.ts'
import { heard, silent } from '../logs.ts'

const folder = mkdtempSync(join(tmpdir(), 'weft-read-'))
after(() => rmSync(folder, { recursive: true }))
const at = (name: string): string => join(folder, name)

const HUGE = 1 << 30
execFileSync('mkfifo', [at('fifo')])
writeFileSync(at('huge'), '')
truncateSync(at('huge'), HUGE)
mkdirSync(at('directory'))
symlinkSync('/dev/zero', at('link to a device'))

/**
 * What is no small regular file, and why. All are in this folder: a reader that replaced one must not harm the host.
 */
const HOSTILE = {
  [at('fifo')]: /EINVAL: it is a FIFO, not a regular file/,
  [at('link to a device')]: /EINVAL: it is a device, not a regular file/,
  [at('huge')]: /EFBIG: it has 1073741824 bytes, and at most \d+ are read/,
  [at('directory')]: /EISDIR/
} as const

test('a FIFO, a device, a huge file and a directory are refused by name and reason, on the loop and in the pool', async () => {
  const files = new FileReader()
  for (const [path, why] of Object.entries(HOSTILE)) {
    const expected = { message: new RegExp(`${why.source}.* open '${path}'`) }
    assert.throws(() => readFile(path), expected)
    assert.throws(() => contentOf(path), expected)
    await assert.rejects(files.text(path), expected)
    if (path !== at('huge')) assert.throws(() => rewrite(path, 'text'), /ENXIO|EINVAL|EISDIR/)
  }
})

test('the size is what is read, not what stat(2) says: files of /proc have none', async () => {
  writeFileSync(at('exact'), 'x'.repeat(100))
  assert.equal(readFile(at('exact'), 100).length, 100)
  assert.throws(() => readFile(at('exact'), 99), { code: 'EFBIG' })
  assert.match(await new FileReader().text('/proc/self/status'), /^Name:/)
  assert.throws(() => readFile('/proc/self/status', 50), { code: 'EFBIG', message: /it has more, and at most 50/ })
})

test('a file system that does not answer ends its callers by a deadline, occupies one thread, and holds nobody else up', async () => {
  const files = new FileReader(20)
  let begun = 0
  const hung = Promise.withResolvers<void>()
  const never = () => {
    begun++
    return hung.promise
  }
  const late = { message: /ETIMEDOUT: its file system has not answered for 0.02 s, open '.mnt.nfs.a'/ }
  const calls = Array.from({ length: 10 }, () => files.within('/mnt/nfs/a', never))
  const other = files.within('/etc/a', async () => 'text')
  for (const call of calls) await assert.rejects(call, late)
  assert.equal(await other, 'text')
  await assert.rejects(files.within('/mnt/nfs/a', never), late)
  assert.equal(begun, 1)
  hung.resolve()
  await hung.promise
  await new Promise(setImmediate)
  assert.equal(
    await files.within('/mnt/nfs/a', async () => 'text'),
    'text',
    'once it answers again, files are read again'
  )
})

test('a read that has just begun is not taken for stuck because a call has waited for it', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const files = new FileReader(100)
  const [a, b] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  const first = files.within('/d/a', () => a.promise)
  const waiting = files.within('/d/b', () => b.promise)
  t.mock.timers.tick(90)
  a.resolve()
  await first
  await new Promise(setImmediate)
  t.mock.timers.tick(15)
  await assert.rejects(waiting, { code: 'ETIMEDOUT' }, 'its own deadline includes that it waited')
  const next = files.within('/d/c', async () => 'c')
  b.resolve()
  assert.equal(await next, 'c')
})

test('however many file systems do not answer, they occupy three threads', async () => {
  const files = new FileReader(20)
  let begun = 0
  const never = () => {
    begun++
    return new Promise<void>(() => {})
  }
  const ends = await Promise.allSettled(Array.from({ length: 10 }, (_, n) => files.within(`/mnt/${n}/a`, never)))
  const reasons = ends.map((end) => (end.status === 'rejected' ? reasonOf(end.reason) : ''))
  assert.match(reasons[2] ?? '', /its file system has not answered for 0.02 s, open '.mnt.2.a'/)
  assert.match(reasons[3] ?? '', /3 reads on other file systems do not answer, open '.mnt.3.a'/)
  assert.equal(reasons.filter((reason) => reason.startsWith('ETIMEDOUT')).length, 10)
  assert.equal(begun, 3)
})

test('calls whose state is on a file system that does not answer fail with a cure, DEL too', async () => {
  const files = {
    text: () => Promise.reject(new Error('ETIMEDOUT')),
    answers: () => Promise.reject(new Error('ETIMEDOUT'))
  }
  const plugin = { files: () => ({ subnetFile: '/s', stateDirectory: '/mnt/nfs' }), forward: () => ({}) } as never
  const call = { verb: 'DEL', containerId: 'c', network: 'n', configuration: {} } as never
  const expected = { code: 'STATE_UNWRITABLE', message: /\/mnt\/nfs.* can't be used: ETIMEDOUT/, cure: /findmnt/ }
  await assert.rejects(forwarded({ files, serve: () => undefined }, plugin, call, {} as never), expected)
  const tuning = { dataDir: '/mnt/nfs', sysctls: [] } as never
  await assert.rejects(collectSettings({ files }, tuning, 'n', []), expected)
  await assert.rejects(requireAnswer(files, '/mnt/nfs'), expected)
  await requireAnswer(new FileReader(), folder)
})

test('a kept configuration that can not be read at the moment is no missing one: DEL is tried again', async () => {
  const call = { verb: 'DEL', containerId: 'c', network: 'n', configuration: {} } as never
  const plugin = {
    files: () => ({ subnetFile: '/s', stateDirectory: folder }),
    forward: () => ({ type: 'bridge' })
  } as never
  const reading = (code: string) => ({
    text: () => Promise.reject(Object.assign(new Error(code), { code })),
    answers: () => Promise.resolve()
  })
  const served = (code: string) =>
    forwarded({ files: reading(code), serve: () => Promise.resolve({}) }, plugin, call, {
      withInput: () => ({})
    } as never)
  await assert.rejects(served('EMFILE'), { code: 'STATE_UNWRITABLE', message: /c can't be read: EMFILE/ })
  for (const code of ['ENOENT', 'EINVAL']) assert.deepEqual(await served(code), {})
})

test('reservations on a file system that does not answer are an error that names the directory', async () => {
  const answers = () => Promise.reject(new Error('ETIMEDOUT'))
  const boot = { id: 'boot', since: 0 }
  const reservations = new Reservations(folder, 'hung', { lock: flock, answers, boot })
  await assert.rejects(reservations.list(), { name: 'ReservationsUnusable', message: new RegExp(at('hung')) })
})

test('reservation files that are FIFOs, devices or huge block their address and nothing else', async () => {
  const directory = at('net')
  mkdirSync(directory)
  execFileSync('mkfifo', [join(directory, '10.9.0.2')])
  writeFileSync(join(directory, '10.9.0.3'), '')
  truncateSync(join(directory, '10.9.0.3'), HUGE)
  const sets = rangeSets([[{ subnet: parsePrefix('10.9.0.0/29') ?? assert.fail() }]])
  const open = () => new Reservations(folder, 'net', { lock: flock, boot: { id: 'boot', since: 0 } })
  const owner = { containerId: 'c', ifname: 'eth0' }
  const given = await open().reserve(owner, sets)
  assert.equal(given.kind === 'reserved' && formatIp(given.addresses[0]?.prefix.ip ?? assert.fail()), '10.9.0.4')
  assert.equal((await open().collect(() => true)).length, 1, 'what is no reservation is not removed')
  for (const name of ['last_reserved_ip.0', '../.weft-boot/net']) {
    rmSync(join(directory, name))
    execFileSync('mkfifo', [join(directory, name)])
    await assert.rejects(open().reserve(owner, sets), { name: 'ReservationsUnusable', message: /last_res|weft-boot/ })
    rmSync(join(directory, name))
  }
})

/** What each reader of a file says of a path, an error or a line of the log. */
const READERS: Readonly<Record<string, (path: string, log: Log) => unknown>> = {
  'ipam/files.ts': (path) => contentOf(path),
  'daemon/pod/resolv-conf.ts': (path) => readResolvConf({ files: new FileReader() }, path),
  'daemon/cni/flannel-forwarding.ts': (subnetFile) =>
    forwarded(
      { files: new FileReader(), serve: () => undefined },
      {
        type: 'flannel',
        about: '',
        files: () => ({ subnetFile, stateDirectory: folder }),
        forward: () => ({})
      } as never,
      { verb: 'ADD', containerId: 'c', network: 'n', configuration: {} } as never,
      {} as never
    ),
  'daemon/kube/credentials.ts': (kubeconfigFile) => targetOf({ kubeconfigFile, environment: {} }),
  'daemon/kube/credentials.ts, a token': (file) =>
    KubeAccess.open({ server: 'https://192.0.2.1', from: 'a test', token: { file }, insecure: false }, () => 0),
  'daemon/node/subnet-file.ts': (path, log) => previousSubnets(path, log),
  'daemon/node/lease-file.ts': (path, log) => new LeaseFile(path, log).read(),
  'daemon/node/secret-file.ts': (path, log) => {
    rmSync(at('secret'), { force: true })
    hostSecret({ files: [at('secret'), path], isValid: () => true, make: () => 'new' }, log)
  },
  'daemon/pod/recovery/pods-file.ts': (path, log) => readPodsFile(path, log),
  'daemon/stores/embedded/store.ts': async (netConfigPath) => {
    await using store = new EmbeddedStore({ path: at('leases.db'), netConfigPath }, storeDeps)
    return await store.configuration(AbortSignal.timeout(1_000))
  },
  'daemon/stores/embedded/file.ts': (path) => new EmbeddedStore({ path }, storeDeps),
  'daemon/stores/etcd/connection.ts': (caFile) =>
    new EtcdConnection(
      { endpoints: ['https://192.0.2.1'], prefix: '/p', caFile, renewMarginMinutes: 60 },
      storeDeps.report
    )
}
const storeDeps = { log: silent, report: { raise: () => {}, clear: () => {} } }
for (const [name, read] of Object.entries(READERS))
  test(`${name} refuses what is no small regular file by its path`, async () => {
    for (const path of Object.keys(HOSTILE)) {
      // A huge database is one.
      if (name === 'daemon/stores/embedded/file.ts' && path === at('huge')) continue
      const said: string[] = []
      const log = heard((_, fields) => said.push(JSON.stringify(fields)))
      try {
        await read(path, log)
      } catch (error) {
        said.push(reasonOf(error))
      }
      assert.ok(
        said.some((line) => line.includes(path)),
        `${path}: ${said.join('; ')}`
      )
    }
  })

/**
 * Everything else that opens a file by path: the kernel's own, which nobody else can replace, and files that are
 * written or locked. A new reader belongs into READERS and reads by ipam/read-file.ts.
 */
const OTHERS: Readonly<Record<string, string>> = {
  'daemon/api/server.ts': '/proc/self/limits',
  'daemon/cni/host-files.ts': '/proc/self/mountinfo',
  'daemon/base/replace-file.ts': 'writes new files, and syncs directories',
  'daemon/ctl/page/sources.ts': 'its own files, only where it runs from source',
  'daemon/health/metrics.ts': '/proc/self/status',
  'daemon/kernel/namespace.ts': 'network namespaces: opened with O_NONBLOCK, and refused unless on nsfs',
  'daemon/kernel/nftables/facts-reader.ts': '/proc/net',
  'daemon/kernel/nftables/legacy-table.ts': '/proc/net',
  'daemon/kernel/sysctl.ts': '/proc/sys',
  'daemon/lifecycle/processes.ts': '/proc/PID',
  'daemon/lifecycle/leftovers.ts': '/proc/sys',
  'daemon/main.ts': 'writes /proc/self/comm',
  'daemon/migrate/firewall.ts': '/proc/net',
  'daemon/migrate/look.ts': '/proc/PID',
  'daemon/stores/embedded/file.ts': 'makes the database, after it was seen to be a regular file',
  'daemon/os/flock.ts': 'locks: opened with O_NONBLOCK, never read; /proc/locks',
  'daemon/os/process.ts': '/proc',
  'daemon/os/tun.ts': '/dev/net/tun',
  'daemon/pod-context.ts': '/proc/uptime, /proc/sys/kernel/random/boot_id',
  'ipam/files.ts': 'writes: opened with O_NONBLOCK',
  'ipam/read-file.ts': 'the reader'
}

test('a secret that others could read is closed to them, and the log says so', () => {
  const path = at('open secret')
  writeFileSync(path, 'key', { mode: 0o644 })
  const said: string[] = []
  const read = () =>
    hostSecret(
      { files: [path], isValid: () => true, make: () => 'new' },
      heard((_, fields) => said.push(JSON.stringify(fields)))
    )
  assert.equal(read(), 'key')
  assert.equal(statSync(path).mode & 0o777, 0o600)
  assert.equal(read(), 'key')
  assert.equal(said.length, 1)
  assert.match(said[0] ?? '', /open secret.*"mode":"644"/)
})

test('every file that weftd opens is read by ipam/read-file.ts, or is listed here', () => {
  const root = fileURLToPath(new URL('../../../', import.meta.url))
  const found = ['daemon/**/*.ts', 'ipam/*.ts']
    .flatMap((pattern) => globSync(pattern, { cwd: root }))
    .filter((path) => {
      const code = readFileSync(join(root, path), 'utf8')
      const [, imported = ''] = /import \{([^}]*)\} from 'node:fs(?:\/promises)?'/.exec(code) ?? []
      return /\b(open|openSync|readFileSync|writeFileSync|appendFileSync|createReadStream|createWriteStream|readFile)\b/.test(
        imported
      )
    })
  assert.deepEqual(
    found.filter((path) => OTHERS[path] === undefined),
    [],
    'read by ipam/read-file.ts'
  )
})
